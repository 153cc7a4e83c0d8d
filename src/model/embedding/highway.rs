//! A highway layer with a coupled carry gate (Srivastava et al., 2015), as Kim et al. (2016) use it.
//!
//! ```text
//! t = sigmoid(y W_t + b_t − 2)      z = t ReLU(y W_h + b_h) + (1 − t) y
//! ```
//!
//! Weights: `weight` (size, 2 size), `bias` (2 size); columns of H, then of T. The −2 is not part of the bias.

use crate::error::Result;
use crate::model::builder::Builder;
use candle_core::Tensor;
use rhn_kernels::highway;
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;

const CARRY_FIRST: f64 = -2.0; // most of the input passes unchanged at first

pub(super) struct Highway {
    weight: Tensor,
    bias: Tensor,
    precision: Precision,
}

impl Highway {
    pub(super) fn build(size: usize, builder: &Builder<'_>) -> Result<Self> {
        let weight = builder.weight("weight", (size, 2 * size))?;
        let bias = builder.weight("bias", 2 * size)?;
        Ok(Self { weight, bias, precision: builder.precision })
    }

    /// Multiplications for a row.
    pub(super) fn cost(&self) -> usize {
        self.weight.elem_count()
    }

    /// `(rows, size)` to `(rows, size)`.
    pub(super) fn forward(&self, y: &Tensor) -> Result<Tensor> {
        let products = linear(y, &self.weight, Stored::ByInput, self.precision)?;
        Ok(highway::highway(&products, &self.bias, y, CARRY_FIRST)?)
    }
}
