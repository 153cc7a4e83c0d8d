//! Embeddings that compute a word's vector from its characters, whatever network does it.

use super::computed;
use super::highway::Highways;
use super::spelling::{self, SpellingSize, TABLE};
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::layers::{Embedding, VectorStage};
use crate::model::stage::StageTrace;
use candle_core::Tensor;

/// A network from the characters of words to their vectors, with highway layers between.
pub(in crate::model) trait WordNetwork: Send + Sync {
    /// Whether a GPU finds the distinct words of a window first, too.
    const DISTINCT_ON_GPU: bool;

    /// What enters the highway layers: `(words, word length)` of u32 to `(words, features)`.
    fn features(&self, characters: &Tensor) -> Result<Tensor>;

    /// The highway layers.
    fn highways(&self) -> &Highways;

    /// The highway layers and what comes after them: `(words, features)` to `(words, size)`.
    fn vectors(&self, features: Tensor) -> Result<Tensor>;

    /// Multiplications for a word of `length` characters, its marks and blanks included.
    fn cost(&self, length: usize) -> usize;
}

/// Vectors of words by network `N`, from the table of their characters.
pub(in crate::model) struct OfCharacters<N> {
    network: N,
    /// `(vocabulary, word length)` of u32.
    spelling: Tensor,
    /// Whether any string can be spelled.
    reads_bytes: bool,
}

impl<N: WordNetwork> OfCharacters<N> {
    /// Of a vocabulary of `vocab_size` words, whose characters are those of the embedding.
    pub(super) fn build(
        network: N,
        vocab_size: usize,
        SpellingSize { alphabet_size, word_length }: SpellingSize,
        reads_bytes: bool,
        builder: &Builder<'_>,
    ) -> Result<Self> {
        let spelling = builder.indices(TABLE, (vocab_size, word_length), alphabet_size)?;
        Ok(Self { network, spelling, reads_bytes })
    }

    fn features(&self, ids: &Tensor) -> Result<Tensor> {
        self.network.features(&self.spelling.index_select(ids, 0)?)
    }

    /// Vectors of the words `ids` (u32): `(words)` to `(words, size)`.
    pub(in crate::model) fn vectors(&self, ids: &Tensor) -> Result<Tensor> {
        self.network.vectors(self.features(ids)?)
    }
}

impl<N: WordNetwork> Embedding for OfCharacters<N> {
    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        match N::DISTINCT_ON_GPU {
            true => computed::of_distinct_tokens(tokens, |ids| self.vectors(ids)),
            false => computed::of_tokens(tokens, |ids| self.vectors(ids)),
        }
    }

    fn table(&self) -> Result<Tensor> {
        let (vocab_size, _) = self.spelling.dims2()?;
        computed::of_vocabulary(vocab_size, self.spelling.device(), |ids| self.vectors(ids))
    }

    fn reads_any_string(&self) -> bool {
        self.reads_bytes
    }

    fn reads_characters(&self) -> bool {
        true
    }

    fn spelled(&self, words: &[&[u8]]) -> Result<Tensor> {
        let characters = spelling::spell_all(words, self.spelling.dim(1)?, self.spelling.device())?;
        self.of_characters(&characters, VectorStage::Whole)
    }

    fn of_characters(&self, characters: &Tensor, stage: VectorStage) -> Result<Tensor> {
        let features = self.network.features(characters)?.detach();
        match stage {
            VectorStage::BeforeHighway => Ok(features),
            VectorStage::Whole => Ok(self.network.vectors(features)?.detach()),
        }
    }

    fn trace(&self, ids: &Tensor) -> Result<Option<StageTrace>> {
        self.network.highways().trace(|| self.features(ids))
    }

    /// For a word of the longest's length; a shorter one may take less.
    fn cost(&self) -> u64 {
        self.network.cost(self.spelling.dims()[1]) as u64
    }
}
