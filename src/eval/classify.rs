//! How well a model finds the sentences that need an edit.

use super::decisions::{Counts, Decisions, best_threshold};
use super::sentences::{ROWS, Sentence};
use super::{Evaluation, EvaluationProgress};
use crate::config::{ModelConfig, Unit};
use crate::data::Tokenizer;
use crate::data::labelled::Labelled;
use crate::data::lengths::sorted_batches;
use crate::error::{Error, Result};
use crate::model::{Classifier, EncoderNoise};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::time::Instant;

/// Tokens of all rows that are read at once, at most: what bounds the states that are held.
const TOKENS_AT_ONCE: usize = 1 << 14;

/// Sentences in a model's tokens, with their labels.
#[derive(Clone, Debug, Default)]
pub struct LabelledSentences {
    /// None of them is without a token.
    pub sentences: Vec<Sentence>,
    /// Whether each needs an edit.
    pub labels: Vec<bool>,
}

impl LabelledSentences {
    /// How many need an edit.
    pub fn positives(&self) -> u64 {
        self.labels.iter().filter(|&&label| label).count() as u64
    }

    /// How many words there are, and how many of them have a symbol that the vocabulary lacks.
    pub fn words(&self) -> [u64; 2] {
        let sum =
            |of: fn(&Sentence) -> usize| self.sentences.iter().map(|sentence| of(sentence) as u64).sum();
        [sum(|sentence| sentence.words), sum(|sentence| sentence.unknown_words)]
    }
}

/// Cuts sentences into the tokens of a classifier. Where its embedding reads any word, the words that the vocabulary lacks get
/// ids of their own after those of the vocabulary; else they are `<unk>`.
pub struct SentenceCutter<'a> {
    tokenizer: &'a Tokenizer,
    reads_any_word: bool,
    ids: HashMap<String, u32>,
    words: Vec<String>,
}

impl<'a> SentenceCutter<'a> {
    /// For the classifier that `config` describes.
    pub fn new(tokenizer: &'a Tokenizer, config: &ModelConfig) -> Self {
        let reads_any_word = config.reads_any_string() && tokenizer.unit() == Unit::Word;
        Self { tokenizer, reads_any_word, ids: HashMap::new(), words: Vec::new() }
    }

    /// The same for sentences that are trained on: words that the vocabulary lacks are `<unk>`.
    pub fn closed(self) -> Self {
        Self { reads_any_word: false, ..self }
    }

    /// The tokens of a line.
    ///
    /// # Errors
    /// If it has none, or another program's tokenizer refuses it.
    pub fn cut(&mut self, text: &str) -> Result<Sentence> {
        let mut sentence = Sentence::cut(text, self.tokenizer)?;
        if sentence.ids.is_empty() {
            return Err(Error::config(format!(
                "{text:.60?}: no token of the vocabulary is in this sentence"
            )));
        }
        for (place, word) in std::mem::take(&mut sentence.unknown).into_iter().filter(|_| self.reads_any_word)
        {
            let first = self.tokenizer.vocab_size();
            let words = &mut self.words;
            let id = *self.ids.entry(word).or_insert_with_key(|word| {
                words.push(word.clone());
                (first + words.len() - 1) as u32
            });
            sentence.ids[place] = id;
        }
        Ok(sentence)
    }

    /// All sentences of a split.
    ///
    /// # Errors
    /// As [`SentenceCutter::cut`].
    pub fn cut_all(&mut self, labelled: &Labelled) -> Result<LabelledSentences> {
        let sentences = labelled.sentences.iter().map(|sentence| self.cut(&sentence.text));
        Ok(LabelledSentences { sentences: sentences.collect::<Result<_>>()?, labels: labelled.labels() })
    }

    /// The words with ids of their own, in the order of these.
    pub fn words(self) -> Vec<String> {
        self.words
    }
}

/// How a split is decided on.
#[derive(Clone, Debug)]
pub enum Threshold {
    /// By this probability.
    At(f64),
    /// By the one with the best F1 on the split itself.
    Best,
}

/// The logit of each sentence, in their order, in double precision. `progress` gets the sentences that are done, and all.
///
/// # Errors
/// If a logit is not finite, or `progress` ends it.
pub fn logits(
    model: &Classifier,
    sentences: &[Sentence],
    progress: EvaluationProgress<'_>,
) -> Result<Vec<f64>> {
    let lengths: Vec<usize> = sentences.iter().map(|sentence| sentence.ids.len()).collect();
    let mut found = vec![0.0; sentences.len()];
    let mut done = 0;
    for numbers in sorted_batches(&lengths, ROWS, TOKENS_AT_ONCE) {
        let ids = numbers.iter().map(|&number| sentences[number as usize].ids.as_slice());
        let (tokens, lengths) = padded(ids.collect::<Vec<_>>().as_slice(), model.device())?;
        let logits = model.logits(&tokens, &lengths, &EncoderNoise::default())?;
        for (number, logit) in numbers.iter().zip(logits.to_dtype(DType::F64)?.to_vec1::<f64>()?) {
            if !logit.is_finite() {
                let what = format!("the model gives sentence {} the logit {logit}", number + 1);
                return Err(Error::NotFinite { step: 0, what });
            }
            found[*number as usize] = logit;
        }
        done += numbers.len() as u64;
        progress(done, sentences.len() as u64)?;
    }
    Ok(found)
}

/// The rows of a batch, `(time, batch)` of u32, padded with token 0, and their lengths.
pub(crate) fn padded(rows: &[&[u32]], device: &Device) -> Result<(Tensor, Vec<usize>)> {
    let lengths: Vec<usize> = rows.iter().map(|ids| ids.len()).collect();
    let time = lengths.iter().copied().max().unwrap_or(0);
    let ids = (0..time).flat_map(|step| rows.iter().map(move |ids| ids.get(step).copied().unwrap_or(0)));
    let tokens = Tensor::from_vec(ids.collect::<Vec<u32>>(), (time, rows.len()), device)?;
    Ok((tokens, lengths))
}

/// p(needs an edit).
pub fn probability(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// −ln p of a label, each counted once whatever training counts it for.
fn label_nats(logit: f64, label: bool) -> f64 {
    let towards = if label { logit } else { -logit };
    (-towards).max(0.0) + (-towards.abs()).exp().ln_1p()
}

/// The model on a split: the mean −ln p of a label, and what the decisions at a threshold are worth.
///
/// # Errors
/// As [`logits`].
pub fn evaluate(
    model: &Classifier,
    [corpus, split]: [&str; 2],
    labelled: &LabelledSentences,
    threshold: Threshold,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    let start = Instant::now();
    let LabelledSentences { sentences, labels } = labelled;
    let logits = logits(model, sentences, progress)?;
    let nats = logits.iter().zip(labels).map(|(&logit, &label)| label_nats(logit, label)).sum();
    let scores: Vec<f64> = logits.iter().map(|&logit| probability(logit)).collect();
    let threshold = match threshold {
        Threshold::At(threshold) => threshold,
        Threshold::Best => best_threshold(&scores, labels),
    };
    let counts = Counts::of(&scores, labels, threshold);
    let right = counts.true_positives + counts.true_negatives;
    let [words, oov_tokens] = labelled.words();
    let seconds = start.elapsed().as_secs_f64();
    Ok(Evaluation {
        protocol: "classify".into(),
        words,
        oov_tokens,
        decisions: Some(Decisions::at(threshold, &scores, labels)),
        ..Evaluation::of_labels(corpus, split, nats, [sentences.len() as u64, right], seconds)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_at_their_ends() {
        let (tokens, lengths) = padded(&[&[5, 6, 7], &[8]], &Device::Cpu).unwrap();
        assert_eq!(tokens.to_vec2::<u32>().unwrap(), [[5, 8], [6, 0], [7, 0]]);
        assert_eq!(lengths, [3, 1]);
    }

    #[test]
    fn a_label_costs_what_its_probability_says() {
        assert!((probability(3f64.ln()) - 0.75).abs() < 1e-15 && probability(-1e4) == 0.0);
        assert!((label_nats(3f64.ln(), false) - 4f64.ln()).abs() < 1e-15);
        assert!((label_nats(3f64.ln(), true) + 0.75f64.ln()).abs() < 1e-15);
        assert_eq!([label_nats(1e4, true), label_nats(1e4, false)], [0.0, 1e4]);
    }
}
