//! Long short-term memory as Kim et al. (2016) use it: two bias vectors, no forget-gate boost.
//!
//! ```text
//! i, o, f = sigmoid(x W + b + h R + b')      g = tanh(x W + b + h R + b')
//! c = f c + i g                              h = o tanh(c)
//! ```
//!
//! Weights: `input.weight` (input, 4 hidden), `input.bias`, `recurrent.weight` (hidden, 4 hidden), `recurrent.bias`;
//! columns of i, o, f, g in this order.

use super::recurrent::{Recurrence, Recurrent, last};
use super::settings::CoreSettings;
use super::stack::Stack;
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::layers::Core;
use candle_core::Tensor;
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::steps::StepByStep;
use rhn_kernels::scan::{HiddenMask, lstm_op};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Long short-term memory with two bias vectors and no forget-gate boost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LstmConfig {
    /// Stacked layers.
    #[serde(default = "one")]
    pub layers: usize,
    /// Units of the state.
    pub hidden_size: usize,
}

fn one() -> usize {
    1
}

impl CoreSettings for LstmConfig {
    fn layers(&self) -> usize {
        self.layers
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn describe(&self) -> String {
        format!("LSTM, {} layer(s) of {} units", self.layers, self.hidden_size)
    }

    fn build(&self, input_size: usize, builder: &Builder<'_>) -> Result<Arc<dyn Core>> {
        let hidden = self.hidden_size;
        Stack::build(self, input_size, builder, |input_size, weights| {
            let input = weights.weight("input.weight", (input_size, 4 * hidden))?;
            let recurrence = Lstm {
                input_bias: weights.weight("input.bias", 4 * hidden)?,
                recurrent: weights.weight("recurrent.weight", (hidden, 4 * hidden))?,
                recurrent_bias: weights.weight("recurrent.bias", 4 * hidden)?,
                precision: weights.precision(),
            };
            Ok(Recurrent::new(input, weights.precision(), recurrence, 2, hidden * 4 * hidden))
        })
    }
}

struct Lstm {
    input_bias: Tensor,
    recurrent: Tensor,
    recurrent_bias: Tensor,
    precision: Precision,
}

impl Lstm {
    fn bias(&self) -> Result<Tensor> {
        Ok((&self.input_bias + &self.recurrent_bias)?)
    }
}

impl Recurrence for Lstm {
    fn scan(&self, xs: &Tensor, state: &[Tensor], mask: &HiddenMask) -> Result<(Tensor, Vec<Tensor>)> {
        let state = [&state[0], &state[1]];
        let (ys, c) = lstm_op::lstm(xs, &self.recurrent, &self.bias()?, state, mask, self.precision)?;
        let h = last(&ys)?;
        Ok((ys, vec![h, c]))
    }

    fn prepared(&self) -> Result<Option<Box<dyn Recurrence>>> {
        Ok(Some(Box::new(lstm_op::Prepared::new(&self.recurrent, &self.bias()?, self.precision)?)))
    }
}

impl Recurrence for lstm_op::Prepared {
    fn scan(&self, xs: &Tensor, state: &[Tensor], mask: &HiddenMask) -> Result<(Tensor, Vec<Tensor>)> {
        let (ys, c) = self.forward(xs, [&state[0], &state[1]], mask)?;
        let h = last(&ys)?;
        Ok((ys, vec![h, c]))
    }

    fn steps(&self) -> Result<Option<Box<dyn StepByStep>>> {
        Ok(self.steps()?.map(|steps| Box::new(steps) as Box<dyn StepByStep>))
    }
}
