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
use super::cell::{Cell, CellSteps, TrainedCell};
use crate::config::model::LstmConfig;
use crate::error::Result;
use candle_core::Tensor;
use rhn_kernels::linear::{self, Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::{self, HiddenMask};

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
        let projected = linear(&xs.flatten(0, 1)?, &self.input, Stored::ByInput, self.precision)?; // every time step at once
        let projected = projected.reshape((time, batch, 4 * self.hidden_size))?;
        let bias = (&self.input_bias + &self.recurrent_bias)?;
        let recurrent = self.recurrent.unsqueeze(0)?;
        let bias = bias.unsqueeze(0)?;
        Ok(scan::scan::<scan::Lstm>(&projected, &recurrent, &bias, state, mask, self.precision)?)
    }

    fn parts(&self) -> usize {
        2
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }
}

impl TrainedCell for Lstm {
    fn prepared(&self) -> Result<Box<dyn Cell>> {
        let bias = (&self.input_bias + &self.recurrent_bias)?;
        Ok(Box::new(PreparedLstm {
            input: linear::Prepared::new(&self.input, Stored::ByInput, self.precision)?,
            recurrence: scan::Prepared::new::<scan::Lstm>(
                &self.recurrent.unsqueeze(0)?,
                &bias.unsqueeze(0)?,
                self.precision,
            )?,
            hidden_size: self.hidden_size,
        }))
    }
}

/// The layer for evaluation.
struct PreparedLstm {
    input: linear::Prepared,
    recurrence: scan::Prepared,
    hidden_size: usize,
}

impl Cell for PreparedLstm {
    fn forward(&self, xs: &Tensor, state: &[Tensor], mask: &HiddenMask) -> Result<(Tensor, Vec<Tensor>)> {
        let (time, batch, _) = xs.dims3()?;
        let projected =
            self.input.forward(&xs.flatten(0, 1)?)?.reshape((time, batch, 4 * self.hidden_size))?;
        Ok(self.recurrence.forward(&projected, state, mask)?)
    }

    fn parts(&self) -> usize {
        2
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn steps(&self) -> Result<Option<CellSteps<'_>>> {
        Ok(CellSteps::new(&self.input, self.recurrence.steps()?))
    }
}
