//! `[train.loss]` of a recipe: over which words the loss of a token is, and from whom it is learned.

use super::{DistillConfig, ModelSpec};
use crate::error::{Error, Result};
use crate::model::output::OutputKind;
use serde::{Deserialize, Serialize};

/// Over which words the loss of a token is, and from whom it is learned. An evaluation is always of the text, over all words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LossConfig {
    /// The whole vocabulary. With braces, as one without would take any key.
    Exact {},
    /// A softmax over the target and words drawn for the step (Jean et al., 2015).
    Sampled {
        /// Different words a step; the whole vocabulary if it has no more.
        #[serde(default = "eight_thousand")]
        samples: usize,
    },
    /// Noise-contrastive estimation with words drawn for the step (Gutmann and Hyvärinen, 2010; Mnih and Teh, 2012).
    Nce {
        /// As of `sampled`.
        #[serde(default = "eight_thousand")]
        samples: usize,
    },
    /// The whole vocabulary, from the text and from teachers.
    Distill(DistillConfig),
}

defaults! {
    eight_thousand: usize = 8192;
}

impl Default for LossConfig {
    fn default() -> Self {
        Self::Exact {}
    }
}

impl LossConfig {
    /// Whether it is over the whole vocabulary.
    pub fn is_exact(&self) -> bool {
        *self == Self::Exact {}
    }

    /// Whether it is over words that are drawn for the step.
    pub fn is_sampled(&self) -> bool {
        matches!(self, Self::Sampled { .. } | Self::Nce { .. })
    }

    /// What is learned from teachers, if anything is.
    pub fn distill(&self) -> Option<&DistillConfig> {
        match self {
            Self::Distill(distill) => Some(distill),
            _ => None,
        }
    }

    /// Whether the training loss is comparable with the nats of the whole vocabulary: that of noise-contrastive estimation
    /// is a sum over all samples.
    pub fn is_in_nats_of_a_word(&self) -> bool {
        !matches!(self, Self::Nce { .. })
    }

    /// As recipes name it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Exact {} => "exact",
            Self::Sampled { .. } => "sampled",
            Self::Nce { .. } => "nce",
            Self::Distill(_) => "distill",
        }
    }

    /// Refuses samples that there cannot be, and an output layer that cannot take them.
    pub(super) fn validate(&self, model: &ModelSpec, has_second_pass: bool) -> Result<()> {
        let samples = match self {
            Self::Exact {} => return Ok(()),
            Self::Distill(_) if has_second_pass => {
                return Err(Error::config(
                    "train.fraternal and train.loss.kind = \"distill\" are not for one run",
                ));
            }
            Self::Distill(distill) => return distill.validate(),
            Self::Sampled { samples } | Self::Nce { samples } => *samples,
        };
        let name = self.as_str();
        let output = &model.output;
        let what = if samples == 0 {
            "train.loss.samples is 0, wanted at least 1".into()
        } else if !matches!(output.kind, OutputKind::Softmax | OutputKind::CharCnn) {
            format!(
                "train.loss.kind = \"{name}\" is for one softmax, and the output is {}",
                output.kind.as_str()
            )
        } else if output.kind == OutputKind::Softmax && !output.tied && !output.by_word {
            format!(
                "train.loss.kind = \"{name}\" needs model.output.by_word = true (or a tied output): a word's weights are \
                 then a row, and a step touches no others"
            )
        } else if has_second_pass {
            format!(
                "train.fraternal compares the logits of all words, which train.loss.kind = \"{name}\" never makes"
            )
        } else {
            return Ok(());
        };
        Err(Error::config(what))
    }
}
