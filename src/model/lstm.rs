//! Long short-term memory as Kim et al. (2016) use it: two bias vectors, no forget-gate boost.
//!
//! ```text
//! i, o, f = sigmoid(x W + b + h R + b')      g = tanh(x W + b + h R + b')
//! c = f c + i g                              h = o tanh(c)
//! ```
//!
//! Weights: `input.weight` (input, 4 hidden), `input.bias`, `recurrent.weight` (hidden, 4 hidden), `recurrent.bias`;
//! columns of i, o, f, g in this order.

use super::builder::Builder;
use super::cell::Cell;
use crate::config::model::LstmConfig;
use crate::error::Result;
use crate::ops::linear::{Stored, linear};
use crate::ops::precision::Precision;
use crate::ops::recurrence::HiddenMask;
use candle_core::Tensor;
use candle_nn::ops::sigmoid;

pub(super) struct Lstm {
    input: Tensor,
    input_bias: Tensor,
    recurrent: Tensor,
    recurrent_bias: Tensor,
    hidden_size: usize,
    precision: Precision,
}

impl Lstm {
    pub(super) fn build(
        config: &LstmConfig,
        input_size: usize,
        name: &str,
        builder: &Builder<'_>,
    ) -> Result<Self> {
        let hidden = config.hidden_size;
        Ok(Self {
            input: builder.weight(&format!("{name}.input.weight"), (input_size, 4 * hidden))?,
            input_bias: builder.weight(&format!("{name}.input.bias"), 4 * hidden)?,
            recurrent: builder.weight(&format!("{name}.recurrent.weight"), (hidden, 4 * hidden))?,
            recurrent_bias: builder.weight(&format!("{name}.recurrent.bias"), 4 * hidden)?,
            hidden_size: hidden,
            precision: builder.precision(),
        })
    }
}

impl Cell for Lstm {
    fn forward(&self, xs: &Tensor, state: &[Tensor], mask: &HiddenMask) -> Result<(Tensor, Vec<Tensor>)> {
        let (time, batch, _) = xs.dims3()?;
        let n = self.hidden_size;
        let projected = linear(&xs.flatten(0, 1)?, &self.input, Stored::ByInput, self.precision)?; // every time step at once
        let projected = projected.broadcast_add(&(&self.input_bias + &self.recurrent_bias)?)?;
        let projected = projected.reshape((time, batch, 4 * n))?;
        let (mut h, mut c) = (state[0].detach(), state[1].detach());
        let mut outputs = Vec::with_capacity(time);
        for step in 0..time {
            let operand = match mask {
                HiddenMask::None => h,
                HiddenMask::Shared(mask) | HiddenMask::Separate { h: mask, .. } => (h * mask)?,
            };
            let z =
                (projected.get(step)? + linear(&operand, &self.recurrent, Stored::ByInput, self.precision)?)?;
            let gates = sigmoid(&z.narrow(1, 0, 3 * n)?)?;
            let gate = |index| gates.narrow(1, index * n, n);
            let candidate = z.narrow(1, 3 * n, n)?.tanh()?;
            c = ((gate(2)? * c)? + (gate(0)? * candidate)?)?;
            h = (gate(1)? * c.tanh()?)?;
            outputs.push(h.clone());
        }
        Ok((Tensor::stack(&outputs, 0)?, vec![h, c]))
    }

    fn parts(&self) -> usize {
        2
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }
}
