//! One trained vector a word type.
//!
//! Weights: `embedding.weight` (vocabulary, size).

use super::settings::{EmbeddingSettings, Surroundings};
use crate::error::{Error, Result};
use crate::model::builder::Builder;
use crate::model::layers::Embedding;
use candle_core::Tensor;
use rhn_kernels::embedding::lookup;
use serde::{Deserialize, Serialize};

/// One trained vector a word type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordEmbeddingConfig {
    /// The vector's size. Unless given: the hidden size, or the vocabulary's if that is smaller and the output untied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
}

impl EmbeddingSettings for WordEmbeddingConfig {
    fn size(&self, Surroundings { vocab_size, hidden_size, tied, .. }: Surroundings) -> usize {
        self.size.unwrap_or(if tied { hidden_size } else { hidden_size.min(vocab_size) })
    }

    fn validate(&self, around: Surroundings) -> Result<()> {
        let hidden = around.hidden_size;
        let size = EmbeddingSettings::size(self, around);
        if around.ties_hidden_size && size != hidden {
            let what = format!(
                "a tied output needs an embedding of the hidden size, or model.output.kind = \"mixture\": {size} is not {hidden}"
            );
            return Err(Error::config(what));
        }
        Ok(())
    }

    fn describe(&self) -> &'static str {
        "table"
    }

    fn build(&self, vocab_size: usize, size: usize, builder: &Builder<'_>) -> Result<Box<dyn Embedding>> {
        Ok(Box::new(Table(builder.words("embedding.weight", (vocab_size, size))?)))
    }
}

/// One vector a word type.
pub(in crate::model) struct Table(Tensor);

impl Table {
    /// Of vectors that do not change, `(vocabulary, size)`.
    pub(in crate::model) fn fixed(vectors: Tensor) -> Self {
        Self(vectors)
    }
}

impl Embedding for Table {
    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        Ok(lookup(&self.0, tokens, None)?)
    }

    fn table(&self) -> Result<Tensor> {
        Ok(self.0.detach())
    }

    fn tied(&self) -> Option<&Tensor> {
        Some(&self.0)
    }
}
