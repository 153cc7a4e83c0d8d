//! A weight that an output layer multiplies by: as training changes it, or laid out for evaluation.

use crate::error::Result;
use candle_core::{D, Tensor};
use rhn_kernels::linear::{self, Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::softmax as loss;
use std::ops::Range;

/// The most logits that an evaluation makes at a time: 128 MiB of f32, as in training.
pub(super) const LOGITS: usize = 1 << 25;

/// A weight that is multiplied by.
pub(super) enum Product {
    Trained { weight: Tensor, stored: Stored, precision: Precision },
    Packed(linear::Prepared),
}

impl Product {
    /// `xs W`: `(…, input)` to `(…, output)`.
    pub(super) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Trained { weight, stored, precision } => linear(xs, weight, *stored, *precision)?,
            Self::Packed(weight) => weight.forward(xs)?,
        })
    }

    /// Nats of each target in the softmax of `xs W + bias`, `(rows)`, of `xs` `(…, hidden)`. The logits are made some rows at
    /// a time where all of them would fill the memory.
    pub(super) fn nats(&self, xs: &Tensor, bias: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let weight = match self {
            Self::Trained { weight, stored, precision } => {
                return Ok(loss::nats(xs, weight, *stored, bias, targets, *precision)?);
            }
            Self::Packed(weight) => weight,
        };
        let xs = xs.flatten_to(D::Minus2)?;
        in_blocks(xs.dim(0)?, bias.elem_count(), |rows| {
            let xs = xs.narrow(0, rows.start, rows.len())?;
            let targets = targets.narrow(0, rows.start, rows.len())?;
            Ok(loss::nats_of_products(&weight.forward(&xs)?, bias, &targets)?)
        })
    }

    /// Laid out for evaluation; `None` if it is already.
    pub(super) fn packed(&self) -> Result<Option<Self>> {
        let Self::Trained { weight, stored, precision } = self else { return Ok(None) };
        Ok(Some(Self::Packed(linear::Prepared::new(weight, *stored, *precision)?)))
    }

    /// For one row after another; `None` where only tensors can do it.
    pub(super) fn rows(&self) -> Option<linear::Rows> {
        match self {
            Self::Trained { .. } => None,
            Self::Packed(weight) => weight.rows(),
        }
    }
}

/// What `block` makes of some rows, for all `rows` one behind the other: of so many at a time that there are [`LOGITS`] of
/// `width` a row at most.
pub(super) fn in_blocks(
    rows: usize,
    width: usize,
    block: impl Fn(Range<usize>) -> Result<Tensor>,
) -> Result<Tensor> {
    in_blocks_of((LOGITS / width.max(1)).max(1), rows, block)
}

/// The same of `at_once` rows at a time.
pub(super) fn in_blocks_of(
    at_once: usize,
    rows: usize,
    block: impl Fn(Range<usize>) -> Result<Tensor>,
) -> Result<Tensor> {
    if rows <= at_once {
        return block(0..rows);
    }
    let blocks = (0..rows).step_by(at_once).map(|start| block(start..rows.min(start + at_once)));
    Ok(Tensor::cat(&blocks.collect::<Result<Vec<_>>>()?, 0)?)
}
