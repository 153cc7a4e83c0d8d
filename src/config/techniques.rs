//! What a recipe may add to training by truncated back-propagation; each is off unless it is asked for.

use super::train::DropoutConfig;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Penalties on what the last layer gives (Merity et al., 2017, arXiv 1708.01009); 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationConfig {
    /// Activation regularization: this times the mean square of it, after output dropout. Published: 2.
    #[serde(default)]
    pub ar: f64,
    /// Temporal activation regularization: this times the mean square of its change from one step of the window to the
    /// next, before output dropout. Published: 1.
    #[serde(default)]
    pub tar: f64,
}

/// How long the windows of training are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowKind {
    /// `bptt_steps`, each of them.
    #[default]
    Fixed,
    /// Drawn, around `bptt_steps` (Merity et al., 2017, section 4.1); `data/drawn.rs` has the rule.
    Variable,
}

/// Two passes over each window, with masks of their own (Żołna et al., 2018).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FraternalConfig {
    /// This times the mean square of the difference of their logits is added to the loss. Published: 0.15; `eld` 0.25.
    #[serde(default = "kappa")]
    pub kappa: f64,
    /// What the second pass is.
    #[serde(default)]
    pub variant: FraternalVariant,
}

/// What the second pass is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FraternalVariant {
    /// With masks of its own; the loss is the mean of both passes' (Żołna et al., 2018).
    #[default]
    Fraternal,
    /// Without masks; the loss is the first pass's (expectation-linear dropout, Ma et al., 2017).
    Eld,
    /// With masks of its own; the loss is the first pass's (the Π-model, Laine and Aila, 2017).
    Pi,
}

defaults! {
    kappa: f64 = 0.15;
}

impl ActivationConfig {
    /// Whether there is no penalty.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn validate(&self) -> Result<()> {
        not_negative("train.activation.ar", self.ar)?;
        not_negative("train.activation.tar", self.tar)
    }
}

impl WindowKind {
    pub(super) fn is_fixed(&self) -> bool {
        *self == Self::Fixed
    }
}

impl FraternalConfig {
    /// `layers` is how many the core has.
    pub(super) fn validate(&self, dropout: &DropoutConfig, layers: usize) -> Result<()> {
        if dropout.drops_nothing(layers) {
            return Err(Error::config(
                "train.fraternal wants two passes to agree that drop other values, and train.dropout drops none",
            ));
        }
        not_negative("train.fraternal.kappa", self.kappa)
    }
}

/// Refuses a probability of 1 and more.
pub(super) fn probability(name: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::config(format!("{name} is {value}, wanted a probability 0 ≤ p < 1")))
}

fn not_negative(name: &str, value: f64) -> Result<()> {
    if value >= 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::config(format!("{name} is {value}, wanted 0 or more")))
}
