//! Long short-term memory with a projection (Sak et al., 2014), as `torch.nn.LSTM` with `proj_size` has it: what a layer
//! gives, and what its products see of the step before, are P numbers that a matrix makes of the H of the cell.
//!
//! ```text
//! i, o, f = sigmoid(x W + b + m R + b')      g = tanh(x W + b + m R + b')
//! c = f c + i g                              m = (o tanh(c)) P
//! ```
//!
//! Weights: `input.weight` (input, 4 H), `input.bias`, `recurrent.weight` (P, 4 H), `recurrent.bias`, columns of i, o, f, g in
//! this order; `projection.weight` (H, P). A window is one operation, `rhn_kernels::scan::projected`.

use super::recurrent::RECURRENT;
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::layers::Cell;
use crate::model::noise::RecurrentNoise;
use candle_core::Tensor;
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::projected::scan;

/// The name of the weights from the cell to the output.
const PROJECTION: &str = "projection.weight";

/// A layer with a projection.
pub(super) struct Projected {
    input: Tensor,
    recurrent: Tensor,
    /// Those of the input and of the state before.
    biases: [Tensor; 2],
    projection: Tensor,
    precision: Precision,
}

impl Projected {
    /// A layer of `hidden` cells that gives `outputs` numbers.
    pub(super) fn build(input: usize, [hidden, outputs]: [usize; 2], weights: &Builder<'_>) -> Result<Self> {
        Ok(Self {
            input: weights.weight("input.weight", (input, 4 * hidden))?,
            recurrent: weights.weight(RECURRENT, (outputs, 4 * hidden))?,
            biases: [
                weights.weight("input.bias", 4 * hidden)?,
                weights.weight("recurrent.bias", 4 * hidden)?,
            ],
            projection: weights.weight(PROJECTION, (hidden, outputs))?,
            precision: weights.precision,
        })
    }

    fn product(&self, xs: &Tensor, weight: &Tensor) -> Result<Tensor> {
        Ok(linear(xs, weight, Stored::ByInput, self.precision)?)
    }
}

impl Cell for Projected {
    fn forward(
        &self,
        xs: &Tensor,
        state: &[Tensor],
        noise: RecurrentNoise<'_>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let bias = (&self.biases[0] + &self.biases[1])?;
        let brought = self.product(xs, &self.input)?.broadcast_add(&bias)?;
        let recurrent = noise.weights.on(RECURRENT, &self.recurrent)?;
        let state = [&state[0], &state[1]];
        let (outputs, [m, c]) =
            scan(&brought, &recurrent, &self.projection, state, noise.state, self.precision)?;
        Ok((outputs, vec![m, c]))
    }

    fn parts(&self) -> usize {
        2
    }

    fn part_size(&self, part: usize, outputs: usize) -> usize {
        if part == 0 { outputs } else { self.projection.dims()[0] }
    }

    fn cost(&self) -> u64 {
        [&self.input, &self.recurrent, &self.projection].map(|weight| weight.elem_count() as u64).iter().sum()
    }
}
