//! The LSTM with a highway layer on its output (Kurata et al., 2017, variant H), so that a time step is deeper.
//!
//! ```text
//! h̃, c as the LSTM has them
//! T = sigmoid(h̃ W_T + b_T)    H = tanh(h̃ W_H + b_H)    h = T ⊙ H + (1 − T) ⊙ h̃
//! ```
//!
//! h goes up and into the next time step. Dropout of the state acts in both products, as in a recurrent highway network.
//!
//! Weights: those of the `lstm` core by the same names, so that a run can begin with a trained one; `highway.weight`
//! (hidden, 2 hidden), `highway.bias`, columns of H, then of T.

use super::super::recurrent::{Bias, RECURRENT, Recurrent, Weights};
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::layers::Cell;
use crate::model::noise::{RecurrentNoise, WeightMasks};
use candle_core::Tensor;
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::KurataLstm;
use std::sync::Arc;

/// The name of the highway layer's weights.
pub(super) const HIGHWAY: &str = "highway.weight";

/// A layer; the scan takes its two sublayers as one tensor, which is put together for every window.
pub(super) struct Kurata {
    input: Tensor,
    recurrent: Tensor,
    bias: [Tensor; 2],
    highway: Tensor,
    highway_bias: Tensor,
    precision: Precision,
}

impl Kurata {
    pub(super) fn build(
        hidden: usize,
        transform_bias: f64,
        input_size: usize,
        weights: &Builder<'_>,
    ) -> Result<Self> {
        let first_bias = |index: usize, uniform: f64| if index < hidden { uniform } else { transform_bias };
        Ok(Self {
            input: weights.weight("input.weight", (input_size, 4 * hidden))?,
            recurrent: weights.weight(RECURRENT, (hidden, 4 * hidden))?,
            bias: [weights.weight("input.bias", 4 * hidden)?, weights.weight("recurrent.bias", 4 * hidden)?],
            highway: weights.weight(HIGHWAY, (hidden, 2 * hidden))?,
            highway_bias: weights.weight_with("highway.bias", 2 * hidden, first_bias)?,
            precision: weights.precision,
        })
    }

    /// Both sublayers have four gates in a scan: the second's last two are zeros, whose products cost as much as others.
    fn scanned(&self, masks: &WeightMasks) -> Result<Recurrent<KurataLstm>> {
        let Self { input, recurrent, bias: [one, other], highway, highway_bias, precision } = self;
        let width = highway_bias.dim(0)?;
        let recurrent = masks.on(RECURRENT, recurrent)?;
        let highway = masks.on(HIGHWAY, highway)?;
        let recurrent = Tensor::stack(&[&recurrent, &highway.pad_with_zeros(1, 0, width)?], 0)?;
        let bias = Tensor::stack(&[&(one + other)?, &highway_bias.pad_with_zeros(0, 0, width)?], 0)?;
        Ok(Recurrent::new(Weights {
            input: input.clone(),
            recurrent,
            bias: Bias::One(bias),
            precision: *precision,
        }))
    }
}

impl Cell for Kurata {
    fn forward(
        &self,
        xs: &Tensor,
        state: &[Tensor],
        noise: RecurrentNoise<'_>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let scanned = self.scanned(noise.weights)?; // which has them masked already
        scanned.forward(xs, state, RecurrentNoise { weights: WeightMasks::NONE, ..noise })
    }

    fn parts(&self) -> usize {
        2
    }

    fn cost(&self) -> u64 {
        (self.input.elem_count() + self.recurrent.elem_count() + self.highway.elem_count()) as u64
    }

    fn frozen(&self) -> Result<Option<Arc<dyn Cell>>> {
        self.scanned(WeightMasks::NONE)?.frozen()
    }
}
