//! The output layer. To add a kind: its file here, and three lines below (`mod`, a variant of [`OutputKind`], its line
//! in `build`); settings of its own are optional fields of [`OutputConfig`].

mod softmax;

use super::builder::Builder;
use super::layers::Output;
use crate::error::Result;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use softmax::Softmax;
use std::sync::Arc;

/// How the state becomes a distribution over the next token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// Which layer; a plain softmax unless given.
    #[serde(default, skip_serializing_if = "OutputKind::is_softmax")]
    pub kind: OutputKind,
    /// Use the embedding as the output's weights.
    #[serde(default)]
    pub tied: bool,
}

/// A kind of output layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// One softmax over the whole vocabulary.
    #[default]
    Softmax,
}

impl OutputKind {
    /// Whether `config.json` and recipes leave the kind out.
    fn is_softmax(&self) -> bool {
        *self == Self::Softmax
    }
}

impl OutputConfig {
    /// The layer; `embedding` is the table that it can be tied to.
    pub(super) fn build(
        &self,
        hidden_size: usize,
        vocab_size: usize,
        embedding: Option<&Tensor>,
        builder: &Builder<'_>,
    ) -> Result<Arc<dyn Output>> {
        let tied = embedding.filter(|_| self.tied);
        Ok(match self.kind {
            OutputKind::Softmax => Arc::new(Softmax::build(hidden_size, vocab_size, tied, builder)?),
        })
    }
}
