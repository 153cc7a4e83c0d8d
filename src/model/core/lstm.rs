//! Long short-term memory as Kim et al. (2016) use it: two bias vectors, no forget-gate boost.
//!
//! ```text
//! i, o, f = sigmoid(x W + b + h R + b')      g = tanh(x W + b + h R + b')
//! c = f c + i g                              h = o tanh(c)
//! ```
//!
//! Weights: `input.weight` (input, 4 hidden), `input.bias`, `recurrent.weight` (hidden, 4 hidden), `recurrent.bias`;
//! columns of i, o, f, g in this order.

use super::recurrent::{Bias, RECURRENT, Recurrent, Weights};
use super::settings::CoreSettings;
use super::stack::Stack;
use crate::error::Result;
use crate::model::builder::Builder;
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
    /// Units of the state.
    pub hidden_size: usize,
}

impl CoreSettings for LstmConfig {
    fn layers(&self) -> usize {
        self.layers
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn recurrent_weights(&self) -> Vec<(&'static str, Shape)> {
        vec![(RECURRENT, (self.hidden_size, 4 * self.hidden_size).into())]
    }

    fn gate_columns(&self, _name: &str) -> Option<Range<usize>> {
        Some(0..3 * self.hidden_size)
    }

    fn describe(&self) -> String {
        format!("LSTM, {} layer(s) of {} units", self.layers, self.hidden_size)
    }

    fn build(&self, input_size: usize, builder: &Builder<'_>) -> Result<Arc<dyn Core>> {
        let hidden = self.hidden_size;
        Stack::build(self, input_size, builder, |input_size, weights| {
            Ok(Recurrent::<scan::Lstm>::new(Weights {
                input: weights.weight("input.weight", (input_size, 4 * hidden))?,
                recurrent: weights.weight(RECURRENT, (hidden, 4 * hidden))?,
                bias: Bias::Summed(
                    weights.weight("input.bias", 4 * hidden)?,
                    weights.weight("recurrent.bias", 4 * hidden)?,
                ),
                precision: weights.precision,
            }))
        })
    }
}
