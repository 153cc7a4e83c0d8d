//! `[train.lists]` of a recipe: how the scores of n-best lists are put together, and what is learned from them.

use crate::error::{Error, Result};
use crate::eval::nbest::{Format, Weights};
use serde::{Deserialize, Serialize};

/// How the scores of n-best lists are put together (as `rhn rescore` does), and what is learned from them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListsConfig {
    /// How lists are written.
    #[serde(default)]
    pub format: Format,
    /// Of the acoustic score.
    #[serde(default = "one")]
    pub acoustic_scale: f64,
    /// Of the language model that the lists were found with.
    #[serde(default)]
    pub old_weight: f64,
    /// Of the model that is trained.
    #[serde(default = "half")]
    pub weight: f64,
    /// In nats a word.
    #[serde(default)]
    pub word_penalty: f64,
    /// What totals are multiplied by before they become probabilities of a list's hypotheses: the larger, the more of the
    /// probability the best one has.
    #[serde(default = "one")]
    pub sharpness: f64,
    /// How much of the references' −ln p is added to the expected word errors, so that the model stays one of language
    /// (Prabhavalkar et al., 2018, with 0.01).
    #[serde(default = "hundredth")]
    pub cross_entropy: f64,
}

defaults! {
    one: f64 = 1.0;
    half: f64 = 0.5;
    hundredth: f64 = 0.01;
}

impl Default for ListsConfig {
    fn default() -> Self {
        Self {
            format: Format::default(),
            acoustic_scale: one(),
            old_weight: 0.0,
            weight: half(),
            word_penalty: 0.0,
            sharpness: one(),
            cross_entropy: hundredth(),
        }
    }
}

impl ListsConfig {
    /// The weights of a hypothesis's total.
    pub fn weights(&self) -> Weights {
        let &Self { acoustic_scale, old_weight, weight, word_penalty, .. } = self;
        Weights { acoustic_scale, old_weight, weight, word_penalty }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let numbers = [
            ("acoustic_scale", self.acoustic_scale),
            ("old_weight", self.old_weight),
            ("word_penalty", self.word_penalty),
        ];
        if let Some((key, value)) = numbers.into_iter().find(|(_, value)| !value.is_finite()) {
            return Err(Error::config(format!("train.lists.{key} is {value}, wanted a finite number")));
        }
        let positive = [("weight", self.weight), ("sharpness", self.sharpness)];
        if let Some((key, value)) =
            positive.into_iter().find(|(_, value)| !(*value > 0.0 && value.is_finite()))
        {
            return Err(Error::config(format!("train.lists.{key} is {value}, wanted a number above 0")));
        }
        match self.cross_entropy {
            value if value >= 0.0 && value.is_finite() => Ok(()),
            value => Err(Error::config(format!("train.lists.cross_entropy is {value}, wanted 0 or more"))),
        }
    }
}
