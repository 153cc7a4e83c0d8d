//! From tokens to vectors. To add a kind: its file here with its settings, and four lines below (`mod`, a variant of
//! [`EmbeddingConfig`], its lines in `settings` and `settings_mut`).

mod adaptive;
mod char_cnn;
pub(super) mod computed;
mod highway;
mod pixels;
mod settings;
pub mod spelling;
mod table;

pub use adaptive::AdaptiveEmbeddingConfig;
pub(super) use char_cnn::CharCnn;
pub use char_cnn::CharCnnConfig;
pub use highway::HighwayVariant;
pub(super) use highway::{Highway, HighwaySettings};
pub use pixels::PixelsConfig;
pub(super) use table::Table;
pub use table::WordEmbeddingConfig;

use serde::{Deserialize, Serialize};
pub(super) use settings::{EmbeddingSettings, Surroundings};

/// How a token becomes a vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EmbeddingConfig {
    /// One trained vector a word type.
    Word(WordEmbeddingConfig),
    /// A convolution over the characters of a word type (Kim et al., 2016).
    CharCnn(CharCnnConfig),
    /// Vectors that are smaller the rarer a word is (Baevski and Auli, 2019).
    Adaptive(AdaptiveEmbeddingConfig),
    /// A plain layer from the pixels of an image.
    Pixels(PixelsConfig),
}

impl EmbeddingConfig {
    pub(super) fn settings(&self) -> &dyn EmbeddingSettings {
        match self {
            Self::Word(embedding) => embedding,
            Self::CharCnn(embedding) => embedding,
            Self::Adaptive(embedding) => embedding,
            Self::Pixels(embedding) => embedding,
        }
    }

    pub(super) fn settings_mut(&mut self) -> &mut dyn EmbeddingSettings {
        match self {
            Self::Word(embedding) => embedding,
            Self::CharCnn(embedding) => embedding,
            Self::Adaptive(embedding) => embedding,
            Self::Pixels(embedding) => embedding,
        }
    }
}
