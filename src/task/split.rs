//! A split brought to token ids, in memory or on disk, and the batch rows that are made of it.

use super::windows::{RowWindows, Rows};
use crate::config::corpus::Sentences;
use crate::config::{Recipe, Unit};
use crate::data::batch::Batches;
use crate::data::packing::PackedRows;
use crate::data::sentences::{SentenceSource, TextSentences};
use crate::data::shards::EncodedShards;
use crate::data::{Encoded, TokenSource, Tokenizer};
use crate::error::{Error, Result};
use std::sync::Arc;

/// Where the tokens of a split are.
#[derive(Clone, Debug)]
pub(crate) enum SplitTokens {
    /// In memory.
    Text(Arc<Encoded>),
    /// In the cache on disk.
    Shards(EncodedShards),
}

/// What a split has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitSize {
    /// Tokens.
    pub tokens: u64,
    /// Symbols that the vocabulary lacks.
    pub unseen: u64,
}

impl SplitTokens {
    /// What is in it.
    pub(crate) fn size(&self) -> SplitSize {
        match self {
            Self::Text(text) => SplitSize { tokens: text.tokens.len() as u64, unseen: text.unseen },
            Self::Shards(shards) => {
                let counts = shards.counts();
                SplitSize { tokens: counts.tokens, unseen: counts.unseen }
            }
        }
    }

    /// The text, if it is in memory.
    pub(crate) fn text(&self) -> Option<&Encoded> {
        match self {
            Self::Text(text) => Some(text),
            Self::Shards(_) => None,
        }
    }

    /// All tokens as one row, of which `rows` places are read side by side.
    pub(crate) fn tokens(&self, rows: usize) -> Box<dyn TokenSource> {
        match self {
            Self::Text(text) => Box::new(text.clone()),
            Self::Shards(shards) => Box::new(shards.tokens(rows)),
        }
    }

    /// The windows of training over a split that errors call `name`.
    pub(crate) fn training(&self, name: &str, recipe: &Recipe, tokenizer: &Tokenizer) -> Result<RowWindows> {
        let (batches, rows) = self.rows(name, recipe, tokenizer, Some(recipe.train.seed))?;
        Ok(RowWindows::new(batches, rows, &recipe.train))
    }

    /// The windows of validation: sentences come in the text's order.
    pub(crate) fn validation(
        &self,
        name: &str,
        recipe: &Recipe,
        tokenizer: &Tokenizer,
    ) -> Result<RowWindows> {
        let (batches, rows) = self.rows(name, recipe, tokenizer, None)?;
        Ok(RowWindows::fixed(batches, rows, &recipe.train))
    }

    fn rows(
        &self,
        name: &str,
        recipe: &Recipe,
        tokenizer: &Tokenizer,
        seed: Option<u64>,
    ) -> Result<(Batches, Rows)> {
        let count = recipe.train.batch_size;
        let steps = recipe.train.bptt_steps;
        let tokens = self.size().tokens as usize;
        let Some(line_end) = line_end(recipe.corpus.sentences, tokenizer)? else {
            let batches = Batches::batched(name, tokens, count, steps)?;
            return Ok((batches, Rows::Running(self.tokens(count))));
        };
        let batches = Batches::of_sentences(name, tokens, count, steps)?;
        let most = recipe.corpus.shuffle_sentences;
        let source: Box<dyn SentenceSource> = match self {
            Self::Text(text) => Box::new(TextSentences::new(text.clone(), line_end, most)),
            Self::Shards(shards) => shards.sentences(most)?,
        };
        let rows = PackedRows::new(name, source, count, line_end, seed)?;
        Ok((batches, Rows::Sentences(Box::new(rows))))
    }
}

/// The token that ends a sentence and comes before the next one; none of running text.
///
/// # Errors
/// If the vocabulary has no line end of its own.
pub fn line_end(sentences: Sentences, tokenizer: &Tokenizer) -> Result<Option<u32>> {
    let unit = tokenizer.unit();
    match (sentences, tokenizer.line_end_id()) {
        (Sentences::Running, _) => Ok(None),
        (_, Some(line_end)) if unit != Unit::Bpe => Ok(Some(line_end)),
        (sentences, _) => Err(Error::config(format!(
            "corpus.sentences = {:?} needs lines whose end is a token of its own, and this vocabulary of unit {} has none; \
             wanted {}, or corpus.sentences = \"running\"",
            sentences.as_str(),
            unit.as_str(),
            match unit {
                Unit::Bpe => "corpus.unit = \"word\", \"char\" or \"byte\"",
                _ => "a training text with line feeds",
            }
        ))),
    }
}
