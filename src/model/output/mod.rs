//! The output layer. To add a kind: its file here, and three lines below (`mod`, a variant of [`OutputKind`], its line
//! in `build`); settings of its own are optional fields of [`OutputConfig`].

mod mixture;
mod softmax;

use super::builder::Builder;
use super::layers::Output;
use super::noise::Noise;
use crate::error::{Error, Result};
use candle_core::Tensor;
use mixture::Mixture;
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
    let logits = (output.logits(ys, noise)?.detach().flatten(0, 1)? / temperature)?;
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
    /// For `mixture`: how many softmaxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<usize>,
}

fn needs_components() -> Error {
    Error::config("output.kind = \"mixture\" needs output.components, how many softmaxes are mixed")
}

/// The sizes that an output layer has to fit.
#[derive(Clone, Copy)]
pub(super) struct OutputSizes {
    /// Of what the core gives.
    pub(super) hidden: usize,
    /// Of a word's vector in the embedding.
    pub(super) embedding: usize,
    pub(super) vocabulary: usize,
}

/// A kind of output layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// One softmax over the whole vocabulary.
    #[default]
    Softmax,
    /// Several softmaxes over one table, mixed by weights that depend on the state (Yang et al., 2018).
    Mixture,
}

impl OutputKind {
    /// Whether `config.json` and recipes leave the kind out.
    fn is_softmax(&self) -> bool {
        *self == Self::Softmax
    }
}

impl OutputConfig {
    /// Whether the vectors of a table that it is tied to must have the hidden size.
    pub(super) fn ties_hidden_size(&self) -> bool {
        self.tied && self.kind == OutputKind::Softmax
    }

    /// How many vectors the layer makes of a state, if it makes any: each has a dropout mask.
    pub fn component_count(&self) -> Option<usize> {
        self.components.filter(|_| self.kind == OutputKind::Mixture)
    }

    /// Refuses settings that no output layer has.
    pub(super) fn validate(&self) -> Result<()> {
        const MOST: usize = 1 << 12;
        match (self.kind, self.components) {
            (OutputKind::Softmax, None) => Ok(()),
            (OutputKind::Softmax, Some(_)) => Err(Error::config(
                "output.components is for output.kind = \"mixture\": a softmax has no components",
            )),
            (OutputKind::Mixture, None) => Err(needs_components()),
            (OutputKind::Mixture, Some(count)) if !(1..=MOST).contains(&count) => {
                Err(Error::config(format!("output.components is {count}, wanted 1 to {MOST}")))
            }
            (OutputKind::Mixture, Some(_)) => Ok(()),
        }
    }

    /// The layer in a few words, for people.
    pub(super) fn describe(&self) -> String {
        let tied = if self.tied { "tied" } else { "untied" };
        match self.component_count() {
            None => tied.into(),
            Some(count) => format!("mixture of {count} softmaxes, {tied}"),
        }
    }

    /// The layer; `embedding` is the table that it can be tied to.
    pub(super) fn build(
        &self,
        sizes: OutputSizes,
        embedding: Option<&Tensor>,
        builder: &Builder<'_>,
    ) -> Result<Arc<dyn Output>> {
        let tied = embedding.filter(|_| self.tied);
        Ok(match self.kind {
            OutputKind::Softmax => Arc::new(Softmax::build(sizes, tied, builder)?),
            OutputKind::Mixture => {
                let components = self.components.ok_or_else(needs_components)?;
                Arc::new(Mixture::build(components, sizes, tied, builder)?)
            }
        })
    }
}
