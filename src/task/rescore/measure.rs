//! How a model puts the hypotheses of lists in order.

use super::lists::Utterance;
use crate::config::ListsConfig;
use crate::data::Tokenizer;
use crate::error::Result;
use crate::eval::nbest::{ListFigures, NBest, WordErrors, expected};
use crate::eval::sentences::{ROWS, Sentence, SentenceScore, score_sentences};
use crate::eval::{Evaluation, EvaluationProgress};
use crate::model::FrozenModel;
use std::time::Instant;

/// The nats of the references, and the word errors of the lists: to be expected, of the best, of the first as they were, and
/// of those nearest to the references.
pub(super) fn measure(
    model: &FrozenModel,
    tokenizer: &Tokenizer,
    names: [&str; 2],
    utterances: &[Utterance],
    settings: &ListsConfig,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    let start = Instant::now();
    let cut = |text: &str| Sentence::cut(text, tokenizer);
    let mut sentences = Vec::new();
    for utterance in utterances {
        for text in utterance.list.hypotheses.iter().map(|each| &each.text).chain([&utterance.reference]) {
            sentences.push(cut(text)?);
        }
    }
    let scores = score_sentences(model, tokenizer.line_end_id(), &sentences, ROWS, progress)?;
    let mut reference = SentenceScore::default();
    let mut figures = Sums::default();
    let mut left = scores.as_slice();
    for utterance in utterances {
        let (hypotheses, rest) = left.split_at(utterance.list.hypotheses.len());
        let (of_reference, rest) = rest.split_at(1);
        reference.lp += of_reference[0].lp;
        reference.tokens += of_reference[0].tokens;
        figures.add(utterance, hypotheses, settings);
        left = rest;
    }
    let unseen = sentences.iter().map(|sentence| sentence.unknown_words as u64).sum();
    let seconds = start.elapsed().as_secs_f64();
    Ok(Evaluation::of_lists(names, (&reference, unseen), figures.figures(), seconds))
}

#[derive(Default)]
struct Sums {
    best: WordErrors,
    first: WordErrors,
    oracle: WordErrors,
    expected: f64,
}

impl Sums {
    fn add(&mut self, utterance: &Utterance, scores: &[SentenceScore], settings: &ListsConfig) {
        let weights = settings.weights();
        let mut list: NBest = utterance.list.clone();
        list.hypotheses.iter_mut().zip(scores).for_each(|(hypothesis, score)| hypothesis.lp = score.lp);
        let totals: Vec<f64> = list.hypotheses.iter().map(|hypothesis| weights.total(hypothesis)).collect();
        let Utterance { errors, words, .. } = utterance;
        let numbers: Vec<f64> = errors.iter().map(|&errors| errors as f64).collect();
        self.expected += expected(&totals, &numbers, settings.sharpness);
        self.best.add(errors[weights.best(&list)], *words);
        self.first.add(errors[0], *words);
        self.oracle.add(errors.iter().copied().min().unwrap_or(0), *words);
    }

    fn figures(&self) -> ListFigures {
        ListFigures {
            word_error_rate: self.best.rate(),
            word_error_rate_first: self.first.rate(),
            word_error_rate_oracle: self.oracle.rate(),
            expected_error_rate: (self.best.words > 0).then(|| self.expected / self.best.words as f64),
        }
    }
}
