//! From tokens to vectors. To add a kind: its file here with its settings, and four lines below (`mod`, a variant of
//! [`EmbeddingConfig`], its lines in `settings` and `settings_mut`).

mod adaptive;
mod char_cnn;
mod char_lstm;
pub(super) mod computed;
mod highway;
mod of_characters;
mod pixels;
mod settings;
pub mod spelling;
mod table;
mod word_groups;

pub use adaptive::AdaptiveEmbeddingConfig;
pub(super) use char_cnn::CharCnn;
pub use char_cnn::CharCnnConfig;
pub use char_lstm::CharLstmConfig;
pub use highway::HighwayVariant;
pub(super) use highway::{HighwaySettings, Highways};
pub use pixels::PixelsConfig;
pub(super) use table::Table;
pub use table::WordEmbeddingConfig;

use super::builder::{Builder, Source};
use super::config::ModelConfig;
use super::layers::Embedding;
use super::parameters::Parameters;
use crate::error::Result;
use candle_core::Device;
use rhn_kernels::precision::Precision;
use serde::{Deserialize, Serialize};
pub(super) use settings::{EmbeddingSettings, Surroundings};
use spelling::Spelling;
use std::cell::RefCell;

/// How a token becomes a vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EmbeddingConfig {
    /// One trained vector a word type.
    Word(WordEmbeddingConfig),
    /// A convolution over the characters of a word type (Kim et al., 2016).
    CharCnn(CharCnnConfig),
    /// Two LSTMs over the characters of a word type (Ling et al., 2015).
    CharLstm(CharLstmConfig),
    /// Vectors that are smaller the rarer a word is (Baevski and Auli, 2019).
    Adaptive(AdaptiveEmbeddingConfig),
    /// A plain layer from the pixels of an image.
    Pixels(PixelsConfig),
}

/// The embedding alone of a model of any kind.
///
/// # Errors
/// If `parameters` are those of another model.
pub(crate) fn of_parameters(
    config: &ModelConfig,
    parameters: &Parameters,
    precision: Precision,
    device: &Device,
) -> Result<Box<dyn Embedding>> {
    let tensors = parameters.tracked();
    let asked = RefCell::default();
    let source = Source::Take(&tensors);
    let builder = Builder::new(&source, precision, device, &asked);
    config.spec.embedding.settings().build(config.vocab_size, config.embedding_size(), &builder)
}

impl EmbeddingConfig {
    /// How `words` are spelled, if the embedding reads characters.
    pub(crate) fn spell(&self, words: &[String]) -> Result<Option<Spelling>> {
        self.settings().spell(words)
    }

    /// The highway layers of an embedding of a kind that may have some.
    pub(crate) fn highways(&self) -> Option<HighwaySettings> {
        self.settings().highways()
    }

    pub(super) fn settings(&self) -> &dyn EmbeddingSettings {
        match self {
            Self::Word(embedding) => embedding,
            Self::CharCnn(embedding) => embedding,
            Self::CharLstm(embedding) => embedding,
            Self::Adaptive(embedding) => embedding,
            Self::Pixels(embedding) => embedding,
        }
    }

    pub(super) fn settings_mut(&mut self) -> &mut dyn EmbeddingSettings {
        match self {
            Self::Word(embedding) => embedding,
            Self::CharCnn(embedding) => embedding,
            Self::CharLstm(embedding) => embedding,
            Self::Adaptive(embedding) => embedding,
            Self::Pixels(embedding) => embedding,
        }
    }
}
