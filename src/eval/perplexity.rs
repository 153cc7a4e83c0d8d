//! How well a model predicts a split: nats summed in f64 and divided once.
//!
//! `stream` is one batch row over the whole split, every token but the first predicted: the number that papers publish.
//! `batched` is the rows and windows of training with dropout off, the tail dropped: quick, for choosing a model.

use crate::config::Unit;
use crate::data::Encoded;
use crate::data::batch::Batches;
use crate::error::{Error, Result};
use crate::model::FrozenModel;
use crate::predict::{Reader, STREAM_STEPS, WindowReader};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;
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

/// How well a model predicted a text; what `rhn eval --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The corpus's name.
    pub corpus: String,
    /// `train`, `valid` or `test`.
    pub split: String,
    /// `stream`, `batched` or `mc`.
    pub protocol: String,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// UTF-8 bytes of the text that was predicted.
    pub bytes: u64,
    /// Symbols of the split that the vocabulary lacks.
    pub oov_tokens: u64,
    /// Mean −ln p of a token.
    pub nats_per_token: f64,
    /// exp of the nats per token; infinite, and null in JSON, if a double does not hold it.
    pub perplexity: f64,
    /// The same in bits.
    pub bits_per_token: f64,
    /// Bits over the characters that were predicted; for character units, the bits per token.
    pub bits_per_char: f64,
    /// Bits over the bytes that were predicted; for byte units, the bits per token.
    pub bits_per_byte: f64,
    /// Wall-clock time.
    pub seconds: f64,
    /// Tokens predicted in a second of it.
    pub tokens_per_second: f64,
}

/// Perplexity at batch 1 with the state carried over the whole split, every token but the first predicted.
pub fn stream(
    model: &FrozenModel,
    split: &Split<'_>,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    let batches = Batches::stream(&split.name(), split.text.tokens.len(), STREAM_STEPS)?;
    if split.text.bytes <= split.text.first_bytes {
        return Err(split.too_short("there is no text after the first"));
    }
    evaluate(model, split, "stream", &batches, progress)
}

/// Perplexity over `batch` contiguous rows in windows of `steps`, as in training but with dropout off.
pub fn batched(
    model: &FrozenModel,
    split: &Split<'_>,
    batch: usize,
    steps: usize,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    let batches = Batches::batched(&split.name(), split.text.tokens.len(), batch, steps)?;
    evaluate(model, split, "batched", &batches, progress)
}

fn evaluate(
    model: &FrozenModel,
    split: &Split<'_>,
    protocol: &str,
    batches: &Batches,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    let start = Instant::now();
    let mut reader = WindowReader::new(model, batches.count)?;
    let mut nats = 0.0;
    let mut add = |window: &[f64]| nats += window.iter().sum::<f64>();
    read_split(&mut reader, split, batches, model.device(), &mut add, progress)?;
    let tokens = (batches.count * batches.predicted) as u64;
    Ok(Evaluation::new(split, protocol, nats, tokens, start.elapsed().as_secs_f64()))
}

/// Reads a split window by window; `take` gets the nats of each window's tokens, `(time, batch)` in row order.
pub(super) fn read_split(
    reader: &mut dyn Reader,
    split: &Split<'_>,
    batches: &Batches,
    device: &Device,
    take: &mut dyn FnMut(&[f64]),
    progress: EvaluationProgress<'_>,
) -> Result<()> {
    for (window, (start, steps)) in batches.windows().enumerate() {
        let (inputs, targets) = batches.window(&split.text.tokens, window, device)?;
        let nats = reader.nats(&inputs, &targets)?;
        let (_, rows) = nats.dims2()?;
        take(&finite(&nats, start)?);
        progress((rows * (start + steps)) as u64, (rows * batches.predicted) as u64)?;
    }
    Ok(())
}

/// `(time, batch)` nats in row order; one that is not finite is an error, never part of a sum.
pub(super) fn finite(nats: &Tensor, start: usize) -> Result<Vec<f64>> {
    let (_, rows) = nats.dims2()?;
    let nats = nats.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    match nats.iter().position(|value| !value.is_finite()) {
        None => Ok(nats),
        Some(at) => Err(Error::NotFinite {
            step: (start + at / rows + 1) as u64,
            what: format!(
                "the model gives a token of the text −ln p = {}; its weights are unusable",
                nats[at]
            ),
        }),
    }
}

impl Split<'_> {
    /// What to call the split in an error.
    fn name(&self) -> String {
        format!("{} ({})", self.corpus, self.split)
    }

    pub(crate) fn too_short(&self, wanted: &str) -> Error {
        let found = self.text.tokens.len();
        Error::data(self.name(), format!("{found} tokens are too few to evaluate; {wanted}"))
    }
}

impl Evaluation {
    /// Divides the sums, once. `nats` is the total over `tokens` predicted tokens.
    pub fn new(split: &Split<'_>, protocol: &str, nats: f64, tokens: u64, seconds: f64) -> Self {
        let text = split.text;
        let share = tokens as f64 / (text.tokens.len() as f64 - 1.0);
        let chars = (text.chars - text.first_chars) as f64 * share;
        let bytes = (text.bytes - text.first_bytes) as f64 * share;
        let bits = nats / LN_2;
        let per_token = bits / tokens as f64;
        Self {
            corpus: split.corpus.into(),
            split: split.split.into(),
            protocol: protocol.into(),
            tokens,
            bytes: bytes.round() as u64,
            oov_tokens: text.unseen,
            nats_per_token: nats / tokens as f64,
            perplexity: (nats / tokens as f64).exp(),
            bits_per_token: per_token,
            bits_per_char: if split.unit == Unit::Char { per_token } else { bits / chars },
            bits_per_byte: if split.unit == Unit::Byte { per_token } else { bits / bytes },
            seconds,
            tokens_per_second: tokens as f64 / seconds.max(1e-9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Tokens;
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
        assert!((found.perplexity - vocab_size as f64).abs() < 1e-12);
        assert!((found.bits_per_char - (vocab_size as f64).log2()).abs() < 1e-12);
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
        let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(103));
        let model = tiny::drawn(vocab_size, 1.0);
        let ids = text.tokens.to_vec();
        let row = |row: usize| {
            // 4 rows of 25 tokens; 24 = 4 windows of 6 are predicted in each
            let text = Encoded { tokens: Tokens::U32(ids[25 * row..25 * row + 25].to_vec()), ..text.clone() };
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
        assert!((found.bits_per_char - bits / 12.0).abs() < 1e-12); // " den Wolken\n"
        assert!((found.bits_per_byte - bits / 12.0).abs() < 1e-12);
        assert_eq!((found.tokens, found.bytes), (3, 12));
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
