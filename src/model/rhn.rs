//! Recurrent highway layer (Zilly et al., 2017), carry gate tied to `1 - t`.
//!
//! ```text
//! h_l = tanh   (x W_h [l = 1] + s_{l-1} R_h,l + b_h,l)
//! t_l = sigmoid(x W_t [l = 1] + s_{l-1} R_t,l + b_t,l)
//! s_l = s_{l-1} + t_l (h_l - s_{l-1})                     l = 1 ..= depth
//! ```
//!
//! Weights: `input.weight` (input, 2 hidden), `recurrent.weight` (depth, hidden, 2 hidden), `bias` (depth, 2 hidden);
//! columns of H, then of T.

use super::builder::Builder;
use super::cell::{Cell, CellSteps, TrainedCell};
use crate::config::model::RhnConfig;
use crate::error::Result;
use candle_core::Tensor;
use rhn_kernels::linear::{self, Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::{self, HiddenMask};

pub(super) struct Rhn {
    input: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    hidden_size: usize,
    precision: Precision,
}

impl Rhn {
    pub(super) fn build(
        config: &RhnConfig,
        input_size: usize,
        name: &str,
        builder: &Builder<'_>,
    ) -> Result<Self> {
        let (hidden, depth) = (config.hidden_size, config.recurrence_depth);
        let bias = |index: usize, uniform: f64| {
            let of_transform_gate = index % (2 * hidden) >= hidden;
            if of_transform_gate { config.transform_bias } else { uniform }
        };
        Ok(Self {
            input: builder.weight(&format!("{name}.input.weight"), (input_size, 2 * hidden))?,
            recurrent: builder.weight(&format!("{name}.recurrent.weight"), (depth, hidden, 2 * hidden))?,
            bias: builder.weight_with(&format!("{name}.bias"), (depth, 2 * hidden), bias)?,
            hidden_size: hidden,
            precision: builder.precision(),
        })
    }
}

impl Cell for Rhn {
    fn forward(&self, xs: &Tensor, state: &[Tensor], mask: &HiddenMask) -> Result<(Tensor, Vec<Tensor>)> {
        let (time, batch, _) = xs.dims3()?;
        let projected = linear(&xs.flatten(0, 1)?, &self.input, Stored::ByInput, self.precision)?; // every time step at once
        let projected = projected.reshape((time, batch, 2 * self.hidden_size))?;
        Ok(scan::scan::<scan::Rhn>(&projected, &self.recurrent, &self.bias, state, mask, self.precision)?)
    }

    fn parts(&self) -> usize {
        1
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }
}

impl TrainedCell for Rhn {
    fn prepared(&self) -> Result<Box<dyn Cell>> {
        Ok(Box::new(PreparedRhn {
            input: linear::Prepared::new(&self.input, Stored::ByInput, self.precision)?,
            recurrence: scan::Prepared::new::<scan::Rhn>(&self.recurrent, &self.bias, self.precision)?,
            hidden_size: self.hidden_size,
        }))
    }
}

/// The layer for evaluation.
struct PreparedRhn {
    input: linear::Prepared,
    recurrence: scan::Prepared,
    hidden_size: usize,
}

impl Cell for PreparedRhn {
    fn forward(&self, xs: &Tensor, state: &[Tensor], mask: &HiddenMask) -> Result<(Tensor, Vec<Tensor>)> {
        let (time, batch, _) = xs.dims3()?;
        let projected =
            self.input.forward(&xs.flatten(0, 1)?)?.reshape((time, batch, 2 * self.hidden_size))?;
        Ok(self.recurrence.forward(&projected, state, mask)?)
    }

    fn parts(&self) -> usize {
        1
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn steps(&self) -> Result<Option<CellSteps<'_>>> {
        Ok(CellSteps::new(&self.input, self.recurrence.steps()?))
    }
}
