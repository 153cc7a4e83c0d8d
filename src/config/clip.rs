//! `[train.clip]` of a recipe: a norm for each part of the model's gradient.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// To what the gradient's norm is cut, for each part of the model by itself; 0 leaves it. The published models of one
/// billion words clip their recurrent layers alone: the norm of all gradients together is mostly that of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipConfig {
    /// Of the weights whose names begin with `embedding`, a tied output's table among them.
    #[serde(default)]
    pub embedding: f64,
    /// Of the recurrent layers, those of a sentence VAE's encoder among them.
    #[serde(default)]
    pub core: f64,
    /// Of the output layer.
    #[serde(default)]
    pub output: f64,
    /// Of what is between the encoder and the decoder of a sentence VAE.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub latent: f64,
}

fn is_zero(norm: &f64) -> bool {
    *norm == 0.0
}

/// The parts of a model, as the names of their weights begin.
pub(crate) const PARTS: [&str; 4] = ["embedding", "core", "output", "latent"];

impl ClipConfig {
    /// The norms, in the order of the parts.
    pub(crate) fn norms(&self) -> [f64; 4] {
        [self.embedding, self.core, self.output, self.latent]
    }

    pub(super) fn validate(&self, max_grad_norm: f64) -> Result<()> {
        for (part, norm) in PARTS.iter().zip(self.norms()) {
            if !(norm >= 0.0 && norm.is_finite()) {
                return Err(Error::config(format!("train.clip.{part} is {norm}, wanted 0 or more")));
            }
        }
        if max_grad_norm > 0.0 {
            return Err(Error::config(
                "train.clip clips each part of the gradient by itself, train.max_grad_norm all of it; wanted one of them",
            ));
        }
        Ok(())
    }
}

/// Which of the parts the weight `name` is of.
pub(crate) fn part_of(name: &str) -> Option<usize> {
    let first = name.split('.').find(|component| !["encoder", "backward"].contains(component))?;
    PARTS.iter().position(|part| *part == first)
}

#[cfg(test)]
mod tests {
    use super::part_of;

    #[test]
    fn the_recurrent_layers_of_an_encoder_are_recurrent_layers() {
        let parts = [
            ("core.0.bias", Some(1)),
            ("encoder.core.0.bias", Some(1)),
            ("encoder.backward.core.0.bias", Some(1)),
            ("embedding.weight", Some(0)),
            ("output.tail.0.0.weight", Some(2)),
            ("latent.encoder.highway.0.bias", Some(3)),
            ("classifier.weight", None),
        ];
        for (name, part) in parts {
            assert_eq!(part_of(name), part, "{name}");
        }
    }
}
