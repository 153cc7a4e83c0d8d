//! In which numbers a training keeps the tables of words.

use super::train::{Averaging, OptimizerKind, TrainConfig};
use crate::error::{Error, Result};
use crate::model::config::ModelSpec;
use crate::model::output::OutputKind;
use crate::model::{UpdateGroup, WeightTypes};
use candle_core::DType;
use serde::{Deserialize, Serialize};

/// In which numbers a training keeps the tables of words: `embedding.weight` and `output.table`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableNumbers {
    /// Those of all other weights
    #[default]
    F32,
    /// Two bytes each, rounded at random when a step changes them
    F16,
}

impl TableNumbers {
    pub(super) fn is_f32(&self) -> bool {
        *self == Self::F32
    }

    /// The types of a model's weights, of which all others are of type `weights`.
    pub fn types(self, weights: DType) -> WeightTypes {
        let tables = if self.is_f32() { weights } else { DType::F16 };
        WeightTypes { weights, tables }
    }

    /// Refuses what needs more of a table than the rows of some words.
    pub(super) fn validate(self, model: &ModelSpec, train: &TrainConfig) -> Result<()> {
        if self.is_f32() {
            return Ok(());
        }
        let leaves_rows = train.weight_decay == 0.0
            && match train.optimizer {
                OptimizerKind::Sgd => train.momentum == 0.0,
                OptimizerKind::AdaGrad => true,
                OptimizerKind::Adam | OptimizerKind::AdamW => false,
            };
        let what = if !train.loss.is_sampled() || model.output.kind != OutputKind::Softmax {
            "is for train.loss.kind = \"sampled\" or \"nce\" with one softmax: any other loss reads the whole table"
        } else if !leaves_rows {
            "is for train.optimizer = \"adagrad\" or \"sgd\" without momentum and weight_decay: the others change every row in every step"
        } else if train.averaging != Averaging::default() {
            "and train.averaging are not for one run: small steps of a mean are lost in numbers of two bytes"
        } else if train.update != UpdateGroup::All {
            "is for train.update = \"all\""
        } else {
            return Ok(());
        };
        Err(Error::config(format!("train.tables = \"f16\" {what}")))
    }
}
