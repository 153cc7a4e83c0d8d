//! How well a model predicts a split: nats summed in f64 and divided once.
//!
//! `stream` is one batch row over the whole split, every token but the first predicted: the number that papers publish.
//! `batched` is the rows and windows of training with dropout off, the tail dropped: quick, for choosing a model.

use super::Evaluation;
use super::adapt::Adaptation;
use super::tally::Tally;
use crate::config::Unit;
use crate::data::Encoded;
use crate::data::batch::Batches;
use crate::error::{Error, Result};
use crate::model::FrozenModel;
use crate::parallel::rows::Rows;
use crate::parallel::world::{World, agree};
use crate::predict::{Reader, STREAM_STEPS, WindowReader};
use crate::readable::too_few;
use candle_core::{DType, Device, Tensor};
use rhn_kernels::threads::Tuner;
use std::time::Instant;

/// A text as an evaluation sees it, and what it is called in reports and errors.
#[derive(Clone, Copy)]
pub struct Split<'a> {
    /// The corpus's name.
    pub corpus: &'a str,
    /// `train`, `valid` or `test`.
    pub split: &'a str,
    /// What a token is.
    pub unit: Unit,
    /// The tokens, and how much text they stand for.
    pub text: &'a Encoded,
}

/// Receives the tokens that are done and how many there are; its error ends the evaluation.
pub type EvaluationProgress<'a> = &'a mut dyn FnMut(u64, u64) -> Result<()>;

/// Perplexity at batch 1 with the state carried over the whole split, every token but the first predicted.
pub fn stream(
    model: &FrozenModel,
    split: &Split<'_>,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    stream_at(model, split, 1.0, progress)
}

/// Perplexity over `batch` contiguous rows in windows of `steps`, as in training but with dropout off.
pub fn batched(
    model: &FrozenModel,
    split: &Split<'_>,
    batch: usize,
    steps: usize,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    batched_at(model, split, [batch, steps], 1.0, progress)
}

/// As [`batched`], where the ranks share the batch rows, and each gets the whole result.
///
/// # Errors
/// Also if another rank has one, or was asked to stop.
pub fn batched_among(
    world: &dyn World,
    model: &FrozenModel,
    split: &Split<'_>,
    [batch, steps]: [usize; 2],
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    if world.size() == 1 {
        return batched(model, split, batch, steps, progress);
    }
    let begun = Instant::now();
    let all = Batches::batched(&split.name(), split.text.tokens.len(), batch, steps)?;
    let batches = all.rows(Rows::of_rank(world, batch)?);
    let mut reader = WindowReader::new(model, batches.count)?;
    let mut tally = Tally::of_text(split.text, &batches);
    let mut add = |start: usize, window: &[f64]| tally.add(split.text, &batches, start, window);
    let mut is_agreed = false;
    let mut agree_on = |done, all| {
        let agreed = agree(world, progress(done, all));
        is_agreed = agreed.is_err();
        agreed
    };
    let read = read_split(&mut reader, split, &batches, model.device(), &mut add, &mut agree_on);
    match read {
        Err(error) if !is_agreed => agree(world, Err(error))?, // the others are where they agree
        read => read?,
    }
    let own = serde_json::to_vec(&tally).expect("a tally is numbers");
    let mut whole = Tally::default();
    for tally in world.gather(own)? {
        whole.join(&serde_json::from_slice(&tally).expect("a rank wrote it"));
    }
    whole.unseen = split.text.unseen; // each rank has that of the whole text
    Ok(Evaluation::new(split, "batched", whole, begun.elapsed().as_secs_f64()))
}

/// As [`stream`], with the logits divided by `temperature`.
pub fn stream_at(
    model: &FrozenModel,
    split: &Split<'_>,
    temperature: f64,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    let batches = split.stream(STREAM_STEPS)?;
    at_temperature(model, split, "stream", &batches, temperature, progress)
}

/// As [`batched`], with the logits divided by `temperature`; `batch` rows and the windows' steps.
pub fn batched_at(
    model: &FrozenModel,
    split: &Split<'_>,
    [batch, steps]: [usize; 2],
    temperature: f64,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    let batches = Batches::batched(&split.name(), split.text.tokens.len(), batch, steps)?;
    at_temperature(model, split, "batched", &batches, temperature, progress)
}

fn at_temperature(
    model: &FrozenModel,
    split: &Split<'_>,
    protocol: &str,
    batches: &Batches,
    temperature: f64,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    let adaptation = Adaptation::at_temperature(temperature)?;
    let mut reader = WindowReader::new(model, batches.count)?.at_temperature(temperature);
    let found = evaluate(&mut reader, split, protocol, batches, model.device(), progress)?;
    Ok(Evaluation { adaptation, ..found })
}

/// Reads what `batches` predict of the split, and divides its sums.
pub(super) fn evaluate(
    reader: &mut dyn Reader,
    split: &Split<'_>,
    protocol: &str,
    batches: &Batches,
    device: &Device,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    let start = Instant::now();
    let mut tally = Tally::of_text(split.text, batches);
    let mut add = |start: usize, window: &[f64]| tally.add(split.text, batches, start, window);
    read_split(reader, split, batches, device, &mut add, progress)?;
    Ok(Evaluation::new(split, protocol, tally, start.elapsed().as_secs_f64()))
}

/// Reads a split window by window; `take` gets each window's first step and the nats of its tokens, `(time, batch)` in row
/// order.
pub(super) fn read_split(
    reader: &mut dyn Reader,
    split: &Split<'_>,
    batches: &Batches,
    device: &Device,
    take: &mut dyn FnMut(usize, &[f64]),
    progress: EvaluationProgress<'_>,
) -> Result<()> {
    let mut tuner = if device.is_cpu() { Tuner::new() } else { None };
    for (window, (start, steps)) in batches.windows().enumerate() {
        let begun = Instant::now();
        let (inputs, targets) = batches.window(&split.text.tokens, window, device)?;
        let nats = reader.nats(&inputs, &targets)?;
        let (_, rows) = nats.dims2()?;
        take(start, &finite(&nats, start)?);
        if let Some(tuner) = &mut tuner {
            tuner.observe(begun.elapsed().as_secs_f64());
        }
        progress((rows * (start + steps)) as u64, (rows * batches.predicted) as u64)?;
    }
    Ok(())
}

/// `(time, batch)` nats in row order; one that is not finite is an error, never part of a sum.
pub(super) fn finite(nats: &Tensor, start: usize) -> Result<Vec<f64>> {
    let (_, rows) = nats.dims2()?;
    finite_at(nats, |at| start + at / rows)
}

/// The same, where number `at` of them is of this time step.
pub(super) fn finite_at(nats: &Tensor, time: impl Fn(usize) -> usize) -> Result<Vec<f64>> {
    let nats = nats.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    match nats.iter().position(|value| !value.is_finite()) {
        None => Ok(nats),
        Some(at) => Err(Error::NotFinite {
            step: (time(at) + 1) as u64,
            what: format!(
                "the model gives a token of the text −ln p = {}; its weights are unusable",
                nats[at]
            ),
        }),
    }
}

impl Split<'_> {
    /// One batch row over all of it, in windows of at most `steps`.
    pub(super) fn stream(&self, steps: usize) -> Result<Batches> {
        Batches::stream(&self.name(), self.text.tokens.len(), steps)
    }

    /// What to call the split in an error.
    fn name(&self) -> String {
        format!("{} ({})", self.corpus, self.split)
    }

    pub(crate) fn too_short(&self, wanted: &str) -> Error {
        let found = self.text.tokens.len();
        Error::data(self.name(), format!("{} to evaluate; {wanted}", too_few(found, "token")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Text, Tokens};
    use crate::predict::tiny;
    use candle_core::Device;

    fn split(unit: Unit, text: &Encoded) -> Split<'_> {
        Split { corpus: "tiny", split: "test", unit, text }
    }

    #[test]
    fn a_model_that_knows_nothing_has_the_vocabularys_size_for_perplexity() {
        let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(100));
        let found =
            stream(&tiny::drawn(vocab_size, 0.0), &split(Unit::Char, &text), &mut |_, _| Ok(())).unwrap();
        assert!((found.perplexity.unwrap() - vocab_size as f64).abs() < 1e-12);
        assert!((found.bits_per_char.unwrap() - (vocab_size as f64).log2()).abs() < 1e-12);
        assert_eq!((found.tokens, found.bytes, found.bits_per_byte), (99, 99, found.bits_per_char));
    }

    #[test]
    fn stream_carries_the_state_over_its_windows() {
        let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(2 * STREAM_STEPS + 77));
        let model = tiny::drawn(vocab_size, 1.0);
        let ids = text.tokens.to_vec();
        let column = |ids: &[u32]| Tensor::from_slice(ids, (ids.len(), 1), &Device::Cpu).unwrap();
        let inputs = column(&ids[..ids.len() - 1]);
        let targets = column(&ids[1..]);
        let whole = WindowReader::new(&model, 1).unwrap().nats(&inputs, &targets).unwrap();
        let found = stream(&model, &split(Unit::Char, &text), &mut |_, _| Ok(())).unwrap();
        let wanted = whole.mean_all().unwrap().to_scalar::<f64>().unwrap();
        assert!((found.nats_per_token - wanted).abs() < 1e-12, "{} {wanted}", found.nats_per_token);
    }

    #[test]
    fn batched_is_the_mean_of_its_rows_without_their_tails() {
        let characters = tiny::characters(103);
        let tokenizer = tiny::tokenizer(Unit::Char, &characters);
        let encode = |part: &str| tokenizer.encode_measured(&Text::from(part)).unwrap();
        let text = encode(&characters);
        let model = tiny::drawn(tokenizer.vocab_size(), 1.0);
        let row = |row: usize| {
            // 4 rows of 25 tokens; 24 = 4 windows of 6 are predicted in each
            let text = encode(&characters[25 * row..25 * row + 25]);
            stream(&model, &split(Unit::Char, &text), &mut |_, _| Ok(())).unwrap().nats_per_token
        };
        let wanted = (0..4).map(row).sum::<f64>() / 4.0;
        let found = batched(&model, &split(Unit::Char, &text), 4, 6, &mut |_, _| Ok(())).unwrap();
        assert!((found.nats_per_token - wanted).abs() < 1e-12);
        assert_eq!((found.tokens, found.bytes), (96, 96));
    }

    #[test]
    fn word_models_are_compared_by_the_characters_they_predict() {
        let (text, vocab_size) = tiny::encoded(Unit::Word, "über den Wolken\n"); // 4 tokens, 3 of them predicted
        let found =
            stream(&tiny::drawn(vocab_size, 0.0), &split(Unit::Word, &text), &mut |_, _| Ok(())).unwrap();
        let bits = 3.0 * (vocab_size as f64).log2();
        assert!((found.perplexity_words.unwrap() - (bits / 2.0).exp2()).abs() < 1e-9); // den, Wolken
        assert!((found.bits_per_char.unwrap() - bits / 12.0).abs() < 1e-12); // " den Wolken\n"
        assert!((found.bits_per_byte.unwrap() - bits / 12.0).abs() < 1e-12);
        assert_eq!((found.tokens, found.bytes), (3, 12));
    }

    #[test]
    fn what_hides_behind_unk_has_a_perplexity_and_no_bits_for_a_letter() {
        let tokenizer = tiny::tokenizer(Unit::Word, "a b\n");
        let text = tokenizer.encode_measured(&Text::from("a secret b\n")).unwrap();
        let found =
            stream(&tiny::constant(&[0.5, 0.2, 0.2, 0.1]), &split(Unit::Word, &text), &mut |_, _| Ok(()));
        let found = found.unwrap();
        assert_eq!((found.tokens, found.oov_tokens, found.bytes), (3, 1, 3)); // of " b\n"
        assert_eq!((found.bits_per_char, found.bits_per_byte, found.perplexity_words), (None, None, None));
        assert!(found.bits_per_char_absent.unwrap().contains("1 predicted token is <unk>"));
        let unknown = tokenizer.unknown_id().unwrap();
        let known: f64 = text
            .tokens
            .iter()
            .skip(1)
            .filter(|&id| id != unknown)
            .map(|id| [0.5f64, 0.2, 0.2, 0.1][id as usize].ln())
            .sum();
        assert!((found.perplexity_known.unwrap() - (-known / 2.0).exp()).abs() < 1e-9);
    }

    #[test]
    fn what_is_left_out_is_not_divided_by() {
        let config = crate::config::CorpusConfig { unknown: false, ..tiny::corpus(Unit::Char) };
        let tokenizer = crate::data::Tokenizer::build(&config, &Text::from("ab")).unwrap();
        let text = tokenizer.encode_measured(&Text::from("axxxxxb")).unwrap();
        let found = stream(&tiny::drawn(2, 0.0), &split(Unit::Char, &text), &mut |_, _| Ok(())).unwrap();
        assert_eq!((found.tokens, found.chars, found.bytes, found.oov_tokens), (1, Some(1), 1, 5));
        assert!((found.bits_per_byte.unwrap() - 1.0).abs() < 1e-12);
        assert!(found.perplexity_words_absent.unwrap().contains("left out"));
    }

    #[test]
    fn texts_together_are_their_sums_divided_once() {
        let tokenizer = tiny::tokenizer(Unit::Char, "ab \n");
        let model = tiny::drawn(tokenizer.vocab_size(), 1.0);
        let parts = ["ab ba a\n", "b\nba ab ab\n"].map(|part| {
            let text = tokenizer.encode_measured(&Text::from(part)).unwrap();
            stream(&model, &split(Unit::Char, &text), &mut |_, _| Ok(())).unwrap()
        });
        let total = Evaluation::total("both", Unit::Char, &parts);
        let nats = parts.iter().map(|part| part.nats_per_token * part.tokens as f64).sum::<f64>();
        assert_eq!((total.tokens, total.words), (7 + 10, 3 + 3)); // the words a b alone is the first token
        assert!((total.nats_per_token - nats / 17.0).abs() < 1e-12);
        assert!((total.perplexity_words.unwrap() - (nats / 6.0).exp()).abs() < 1e-9);
    }

    #[test]
    fn a_text_that_is_too_short_is_refused_with_what_is_needed() {
        let (text, vocab_size) = tiny::encoded(Unit::Char, "abcab");
        let model = tiny::drawn(vocab_size, 0.0);
        let error = batched(&model, &split(Unit::Char, &text), 2, 3, &mut |_, _| Ok(())).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().starts_with("tiny (test): 5 tokens are too few"), "{error}");
        assert!(error.to_string().contains("at least 8"), "{error}");
        let one = Encoded { tokens: Tokens::U8(vec![0]), ..text.clone() };
        assert_eq!(stream(&model, &split(Unit::Char, &one), &mut |_, _| Ok(())).unwrap_err().exit_code(), 3);
    }

    #[test]
    fn a_number_that_is_not_finite_never_becomes_a_perplexity() {
        let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(10));
        let model = tiny::constant(&vec![f64::NAN; vocab_size]);
        let error = stream(&model, &split(Unit::Char, &text), &mut |_, _| Ok(())).unwrap_err();
        assert!(matches!(error, Error::NotFinite { step: 1, .. }), "{error}");
    }
}
