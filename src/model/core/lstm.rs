//! Long short-term memory as Kim et al. (2016) use it: two bias vectors, no forget-gate boost.
//!
//! ```text
//! i, o, f = sigmoid(x W + b + h R + b')      g = tanh(x W + b + h R + b')
//! c = f c + i g                              h = o tanh(c)
//! ```
//!
//! Weights: `input.weight` (input, 4 hidden), `input.bias`, `recurrent.weight` (hidden, 4 hidden), `recurrent.bias`;
//! columns of i, o, f, g in this order. With a projection as `projected.rs` has it.

use super::mogrifier::{Mogrified, MogrifierConfig};
use super::projected::Projected;
use super::recurrent::{Bias, RECURRENT, Recurrent, Weights};
use super::settings::CoreSettings;
use super::stack::Stack;
use crate::error::{Error, Result};
use crate::model::builder::Builder;
use crate::model::config::at_least;
use crate::model::layers::Core;
use candle_core::Shape;
use rhn_kernels::scan;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// Long short-term memory with two bias vectors and no forget-gate boost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LstmConfig {
    /// Stacked layers.
    #[serde(default = "super::settings::one_layer")]
    pub layers: usize,
    /// Units of the cell.
    pub hidden_size: usize,
    /// Units of the output, if a matrix makes them from those of the cell; the products see them in place of the cell's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<usize>,
    /// Gates between the input and the state before the cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mogrifier: Option<MogrifierConfig>,
}

impl CoreSettings for LstmConfig {
    fn layers(&self) -> usize {
        self.layers
    }

    fn hidden_size(&self) -> usize {
        self.projection.unwrap_or(self.hidden_size)
    }

    fn widest(&self) -> usize {
        self.hidden_size.max(self.hidden_size())
    }

    fn recurrent_weights(&self) -> Vec<(&'static str, Shape)> {
        vec![(RECURRENT, (self.hidden_size(), 4 * self.hidden_size).into())]
    }

    fn gate_columns(&self, name: &str) -> Option<Range<usize>> {
        let has_gates = !name.starts_with("mogrifier.") && !name.starts_with("projection.");
        Some(if has_gates { 0..3 * self.hidden_size } else { 0..0 })
    }

    fn validate(&self) -> Result<()> {
        at_least(
            1,
            "model.core",
            &[("hidden_size", self.hidden_size), ("projection", self.projection.unwrap_or(1))],
        )?;
        if self.projection.is_some() && self.mogrifier.is_some() {
            return Err(Error::config("model.core.projection and model.core.mogrifier are not for one LSTM"));
        }
        self.mogrifier.as_ref().map_or(Ok(()), |mogrifier| mogrifier.validate(self.hidden_size))
    }

    fn describe(&self) -> String {
        let mogrifier = self.mogrifier.as_ref().map(MogrifierConfig::to_string).unwrap_or_default();
        let projection = self.projection.map_or(String::new(), |size| format!(" projected to {size}"));
        format!("LSTM, {} layer(s) of {} units{projection}{mogrifier}", self.layers, self.hidden_size)
    }

    fn build(&self, input_size: usize, builder: &Builder<'_>) -> Result<Arc<dyn Core>> {
        if let Some(outputs) = self.projection {
            return Stack::build(self, input_size, builder, |size, weights| {
                Projected::build(size, [self.hidden_size, outputs], weights)
            });
        }
        let Some(mogrifier) = &self.mogrifier else {
            return Stack::build(self, input_size, builder, |size, weights| self.layer(size, weights));
        };
        Stack::build(self, input_size, builder, |size, weights| {
            let gates = mogrifier.build(size, self.hidden_size, weights)?;
            Ok(Mogrified::new(gates, self.layer(size, weights)?))
        })
    }
}

impl LstmConfig {
    fn layer(&self, input_size: usize, weights: &Builder<'_>) -> Result<Recurrent<scan::Lstm>> {
        let hidden = self.hidden_size;
        Ok(Recurrent::new(Weights {
            input: weights.weight("input.weight", (input_size, 4 * hidden))?,
            recurrent: weights.weight(RECURRENT, (hidden, 4 * hidden))?,
            bias: Bias::Summed(
                weights.weight("input.bias", 4 * hidden)?,
                weights.weight("recurrent.bias", 4 * hidden)?,
            ),
            precision: weights.precision,
        }))
    }
}
