//! What the settings of every kind of embedding offer.

use super::highway::HighwaySettings;
use super::spelling::{Spelling, SpellingSize};
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::layers::Embedding;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::ops::Range;

/// What an embedding has to fit.
#[derive(Clone, Copy)]
pub(in crate::model) struct Surroundings {
    pub(in crate::model) vocab_size: usize,
    pub(in crate::model) hidden_size: usize,
    /// Whether the output layer takes the embedding's weights.
    pub(in crate::model) tied: bool,
    /// Whether these must then have the hidden size.
    pub(in crate::model) ties_hidden_size: bool,
}

/// The settings of a kind of embedding.
pub(in crate::model) trait EmbeddingSettings {
    /// The size of a vector.
    fn size(&self, around: Surroundings) -> usize;

    /// Refuses settings that no embedding of this kind can have.
    fn validate(&self, around: Surroundings) -> Result<()>;

    /// Refuses settings that do not fit the vocabulary, once that is known.
    fn validate_vocabulary(&self) -> Result<()> {
        Ok(())
    }

    /// Every size that it has, and how many layers: to refuse what no memory holds.
    fn magnitude(&self) -> (Vec<usize>, usize) {
        (Vec::new(), 0)
    }

    /// The embedding in a few words, for people.
    fn describe(&self) -> &'static str;

    /// How the words of the vocabulary are spelled, as far as that fixes shapes.
    fn spelling(&self) -> Option<SpellingSize> {
        None
    }

    /// Takes what [`EmbeddingSettings::spelling`] gave.
    fn set_spelling(&mut self, _size: SpellingSize) {}

    /// How `words` are spelled, if the embedding reads characters.
    fn spell(&self, _words: &[String]) -> Result<Option<Spelling>> {
        Ok(None)
    }

    /// Takes the sizes that follow from the vocabulary's words. Returns the model's tables of indices, by name.
    fn set_words(&mut self, words: &[String]) -> Result<BTreeMap<String, Tensor>> {
        let Some(spelling) = self.spell(words)? else { return Ok(BTreeMap::new()) };
        self.set_spelling(spelling.size);
        spelling.tensors()
    }

    /// Whether words that the vocabulary lacks have vectors too.
    fn reads_any_string(&self) -> bool {
        false
    }

    /// The highway layers of an embedding of a kind that may have some.
    fn highways(&self) -> Option<HighwaySettings> {
        None
    }

    /// Sets how many highway layers there are, where there may be some.
    fn set_highway_layers(&mut self, _layers: usize) {}

    /// Which columns of the weight `name` compute gates of a recurrent layer; `None` if it is of no such layer.
    fn gate_columns(&self, _name: &str) -> Option<Range<usize>> {
        None
    }

    /// The embedding, with vectors of `size`.
    fn build(&self, vocab_size: usize, size: usize, builder: &Builder<'_>) -> Result<Box<dyn Embedding>>;
}
