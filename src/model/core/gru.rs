//! Gated recurrent unit (Cho et al., 2014) with the equations and the two bias vectors of `torch.nn.GRU`.
//!
//! ```text
//! r, z = sigmoid(x W + b + h R + b')         n = tanh(x W + b + r (h R + b'))
//! h = (1 - z) n + z h
//! ```
//!
//! Weights: `input.weight` (input, 3 hidden), `input.bias`, `recurrent.weight` (hidden, 3 hidden), `recurrent.bias`;
//! columns of r, z, n in this order.

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

/// Gated recurrent unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GruConfig {
    /// Stacked layers.
    #[serde(default = "super::settings::one_layer")]
    pub layers: usize,
    /// Units of the state.
    pub hidden_size: usize,
}

impl CoreSettings for GruConfig {
    fn layers(&self) -> usize {
        self.layers
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn recurrent_weights(&self) -> Vec<(&'static str, Shape)> {
        vec![(RECURRENT, (self.hidden_size, 3 * self.hidden_size).into())]
    }

    fn gate_columns(&self, _name: &str) -> Option<Range<usize>> {
        Some(0..2 * self.hidden_size)
    }

    fn describe(&self) -> String {
        format!("GRU, {} layer(s) of {} units", self.layers, self.hidden_size)
    }

    fn build(&self, input_size: usize, builder: &Builder<'_>) -> Result<Arc<dyn Core>> {
        let hidden = self.hidden_size;
        Stack::build(self, input_size, builder, |input_size, weights| {
            Ok(Recurrent::<scan::Gru>::new(Weights {
                input: weights.weight("input.weight", (input_size, 3 * hidden))?,
                recurrent: weights.weight(RECURRENT, (hidden, 3 * hidden))?,
                bias: Bias::Apart {
                    input: weights.weight("input.bias", 3 * hidden)?,
                    recurrent: weights.weight("recurrent.bias", 3 * hidden)?,
                },
                precision: weights.precision,
            }))
        })
    }
}
