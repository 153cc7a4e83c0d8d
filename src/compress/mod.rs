//! Lossless compression with a model: its next-token probabilities drive a range coder. `docs/compression.md` has the
//! format and the rules.
//!
//! A text decodes only where the probabilities come out the same to the last bit, so both directions run one code:
//! `step` has the numbers, `frequencies` the integers made of them, `row` what is coded in which order; they differ
//! in the end of the `coder` that they hold. What the tokens of a vocabulary do not spell exactly goes as literal bytes,
//! so every file comes back byte for byte.

mod adaptive;
mod blocks;
mod coder;
mod format;
mod frequencies;
mod items;
mod row;
mod step;

use crate::data::tokenizer::Spellings;
use crate::error::{Error, Result};
use crate::predict::Loaded;
use coder::{Coder, Decoder, Encoder};
use format::{Header, ModelDigest};
use frequencies::Frequencies;
use row::{Row, Rows};
use serde::Serialize;
use std::path::Path;
use step::{Stepper, with_fixed_numbers};

/// Bytes of text for which another batch row pays off: it costs the 8 bytes or more that the header has of it, and a
/// beginning without a context.
const BYTES_A_ROW: usize = 8 << 10;

/// Batch rows unless they are asked for, at most.
const DEFAULT_ROWS: usize = 64;

/// The most batch rows that can be asked for, and that are read.
pub const MOST_ROWS: usize = 1024;

/// Called as bytes of the text are done, with how many are, and of how many; its error ends the work.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> Result<()>;

/// What was coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Parts of the text that were read side by side.
    pub rows: usize,
    /// Tokens that the model predicted.
    pub tokens: u64,
    /// Bytes that no token spelled.
    pub literals: u64,
    /// −log2 of the model's probability of every token, and what the literal bytes took.
    pub ideal_bits: f64,
}

/// A model that can compress, opened in the numbers that do so.
pub struct Compressor {
    loaded: Loaded,
    spellings: Spellings,
    digest: ModelDigest,
}

impl Compressor {
    /// Opens the directory or hub address `argument`.
    ///
    /// # Errors
    /// If the checkpoint is refused, or its model or tokenizer cannot give every machine the same text.
    pub fn open(argument: impl AsRef<Path>) -> Result<Self> {
        let loaded = with_fixed_numbers(|| step::load(argument.as_ref()))?;
        let Some(spellings) = loaded.tokenizer.spellings() else {
            let what = "has tokens without bytes of their own, so a text could not come back exactly; compress with a \
                        model of words, characters, bytes or byte-level byte pairs";
            return Err(Error::checkpoint(&loaded.checkpoint().tokenizer_path, what));
        };
        let digest = ModelDigest::of(loaded.checkpoint());
        Ok(Self { loaded, spellings, digest })
    }

    /// Whether the files of the checkpoint were those that its manifest lists.
    pub fn verified(&self) -> bool {
        self.loaded.checkpoint().verified
    }

    /// The bytes of a compressed file; `rows` parts of the text are read side by side, by default as many as pay off.
    ///
    /// # Errors
    /// If `progress` fails, or the model gives a logit that is not finite.
    pub fn compress(
        &self,
        text: &[u8],
        rows: Option<usize>,
        progress: Progress<'_>,
    ) -> Result<(Vec<u8>, Summary)> {
        let rows = rows.unwrap_or((text.len() / BYTES_A_ROW).clamp(1, DEFAULT_ROWS));
        let parts = items::parts(text, rows.min(MOST_ROWS));
        let lengths = parts.iter().map(|part| part.len()).collect();
        let checks = blocks::checks(&parts);
        let first_token = self.first_token();
        let header = Header::new(self.digest, self.vocabulary(), first_token, lengths, checks)?;
        let items = parts.iter().map(|part| items::items(&self.loaded.tokenizer, &self.spellings, part));
        let items = items.collect::<Result<Vec<_>>>()?;
        let given = items.iter().map(|items| items.as_slice());
        let rows = header.rows().zip(given).map(|(row, items)| Row::new(row, items)).collect();
        let mut encoder = Encoder::default();
        let (_, summary) = self.code(&header, rows, &mut encoder, progress)?;
        Ok((header.write(&encoder.finish()), summary))
    }

    /// The text in the bytes of a compressed file; `path` is for messages.
    ///
    /// # Errors
    /// If the file is damaged, or another model or another program wrote it; if `progress` fails.
    pub fn decompress(
        &self,
        path: &Path,
        bytes: &[u8],
        progress: Progress<'_>,
    ) -> Result<(Vec<u8>, Summary)> {
        let damaged = |what: String| Error::data(path, what);
        let (header, payload) = Header::read(bytes).map_err(damaged)?;
        header.check_model(&self.digest, self.vocabulary()).map_err(|what| {
            Error::checkpoint(
                self.loaded.directory(),
                format!("is not the model that {} was compressed with: {what}", path.display()),
            )
        })?;
        let mut decoder = Decoder::new(payload);
        let rows = header.rows().map(|row| Row::new(row, &[])).collect();
        let decoded = self.code(&header, rows, &mut decoder, progress).and_then(|decoded| {
            if decoder.is_at_end() { Ok(decoded) } else { Err(coder::damaged("has more than its text")) }
        });
        decoded.map_err(|error| match error {
            Error::Data { what, .. } => damaged(what), // a row does not know the file
            error => error,
        })
    }

    /// Codes every row to its end, one step of the model for a token of each.
    fn code(
        &self,
        header: &Header,
        rows: Vec<Row<'_>>,
        coder: &mut impl Coder,
        progress: Progress<'_>,
    ) -> Result<(Vec<u8>, Summary)> {
        let total = header.text_length();
        let mut rows = Rows::new(&self.spellings, rows);
        if total == 0 {
            return Ok(rows.finish());
        }
        with_fixed_numbers(|| {
            let mut stepper = Stepper::new(&self.loaded.model, rows.count())?;
            let mut frequencies = Frequencies::new(self.vocabulary(), header.precision);
            let mut read = vec![header.first_token; rows.count()];
            while !rows.are_complete() {
                progress(rows.done(), total)?;
                let logits = stepper.step(&read)?;
                for (row, logits) in logits.chunks_exact(self.vocabulary()).enumerate() {
                    // Rows that are complete read on: a batch of another size could be computed in another order.
                    let token = rows.code(row, logits, &mut frequencies, coder)?;
                    read[row] = token.unwrap_or(header.first_token);
                }
            }
            progress(total, total)?;
            Ok(rows.finish())
        })
    }

    fn vocabulary(&self) -> usize {
        self.loaded.tokenizer.vocab_size()
    }

    /// What the model reads before a row's first token.
    fn first_token(&self) -> u32 {
        let tokenizer = &self.loaded.tokenizer;
        tokenizer.line_end_id().or(tokenizer.unknown_id()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
