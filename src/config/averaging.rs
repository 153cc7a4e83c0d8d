//! `[train.averaging]` of a recipe: the mean of the weights by which a run is measured.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The mean of the weights that a run is measured and published by; `train/averaging.rs` has the rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Averaging {
    /// There is none. With braces, as one without would take any key.
    None {},
    /// Exponential, from the first step on.
    Ema(Ema),
    /// Of all steps since the validation loss stopped falling (Merity et al., 2017).
    NtAsgd(NtAsgd),
}

impl Default for Averaging {
    fn default() -> Self {
        Self::None {}
    }
}

/// An exponential mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ema {
    /// What is kept of the mean at a step.
    #[serde(default = "ema_decay")]
    pub decay: f64,
}

/// A mean with a trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NtAsgd {
    /// It begins after an epoch whose validation loss is above the least of all epochs but the last so many before it.
    #[serde(default = "five")]
    pub non_monotone: usize,
    /// It begins with the first step, and the run is over after such an epoch: their rule for fine-tuning.
    #[serde(default, skip_serializing_if = "is_false")]
    pub from_start: bool,
}

impl Averaging {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::None {}
    }

    pub(super) fn validate(&self) -> Result<()> {
        match self {
            Self::Ema(Ema { decay }) if !(*decay > 0.0 && *decay < 1.0) => {
                Err(Error::config(format!("train.averaging.decay is {decay}, wanted 0 < decay < 1")))
            }
            Self::None {} | Self::Ema(_) | Self::NtAsgd(_) => Ok(()),
        }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

defaults! {
    five: usize = 5;
    ema_decay: f64 = 0.999;
}
