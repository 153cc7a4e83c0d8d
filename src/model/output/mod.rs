//! The output layer. To add a kind: its file here, and three lines below (`mod`, a variant of [`OutputKind`], its line
//! in `build`); settings of its own are optional fields of [`OutputConfig`].

mod softmax;

use super::builder::Builder;
use super::layers::Output;
use super::noise::Noise;
use crate::error::Result;
use candle_core::Tensor;
use rhn_kernels::softmax::nats_of_products;
use serde::{Deserialize, Serialize};
use softmax::Softmax;
use std::sync::Arc;

/// Nats of each target with the logits divided by `temperature`: at 1 [`Output::nats`] itself, else by the logits, whose
/// history is not followed.
pub(super) fn nats_at(
    output: &dyn Output,
    ys: &Tensor,
    targets: &Tensor,
    noise: &Noise,
    temperature: f64,
) -> Result<Tensor> {
    if temperature == 1.0 {
        return output.nats(ys, targets, noise);
    }
    let logits = (output.logits(ys)?.detach().flatten(0, 1)? / temperature)?;
    let no_bias = Tensor::zeros(logits.dim(1)?, logits.dtype(), logits.device())?;
    Ok(nats_of_products(&logits, &no_bias, &targets.flatten_all()?)?.reshape(targets.shape())?)
}

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
