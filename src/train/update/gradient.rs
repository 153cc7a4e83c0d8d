//! The gradients of a step as the rule takes them: of some rows of a table where the rule leaves the others alone, of some
//! columns where training leaves the others as they are, else of every number.
//!
//! Columns are taken out of the weight, updated as a weight of their own, and put back: no rule has to know of them, and
//! the other numbers are never written. So are the rows of a table whose numbers take two bytes, which are updated in single
//! precision and rounded at random when they go back.

use crate::error::Result;
use candle_core::{D, DType, Tensor, Var};
use rhn_kernels::embedding::{RoundedRows, is_two_bytes, lookup, put_rows};
use rhn_kernels::gradients::Gradient;
use rhn_kernels::rng::Rng;
use std::ops::Range;

/// The gradient of one weight.
pub(super) struct Taken {
    /// In the weight's shape, or the rows alone.
    pub(super) tensor: Tensor,
    /// The numbers of the rows, which rise.
    pub(super) rows: Option<Vec<u32>>,
    /// What is updated in the weight's place, if it is not the weight.
    part: Option<Part>,
}

/// Numbers of a weight, with memory of their own.
enum Part {
    /// Columns, from `start` on.
    Columns { var: Var, start: usize },
    /// The rows `ids` of a table of two bytes a number, and what is remembered of them.
    Rows { var: Var, memory: Option<Var>, ids: Vec<u32> },
}

impl Taken {
    /// The gradient of `var`, of which `memory` is remembered; of `columns` if not all are updated, of rows if there are some
    /// and `takes_rows`.
    pub(super) fn new(
        gradient: Gradient,
        (var, memory): (&Var, Option<&Var>),
        columns: Option<&Range<usize>>,
        takes_rows: bool,
    ) -> Result<Self> {
        if is_two_bytes(var) {
            return Self::of_two_bytes(gradient, var, memory);
        }
        if let Some(columns) = columns {
            let take = |whole: &Tensor| whole.narrow(D::Minus1, columns.start, columns.len())?.contiguous();
            let part = Part::Columns {
                var: Var::from_tensor(&take(&var.as_detached_tensor())?)?,
                start: columns.start,
            };
            return Ok(Self { tensor: take(&gradient.dense()?)?, rows: None, part: Some(part) });
        }
        let has_kernels = var.device().is_cpu() && matches!(var.dtype(), DType::F32 | DType::F64);
        match gradient {
            Gradient::Rows(rows) if takes_rows && has_kernels => {
                let (ids, tensor) = rows.summed()?;
                Ok(Self { tensor, rows: Some(ids), part: None })
            }
            gradient => Ok(Self { tensor: gradient.dense()?, rows: None, part: None }),
        }
    }

    /// The rows of a table of two bytes a number that have a gradient, in single precision.
    fn of_two_bytes(gradient: Gradient, var: &Var, memory: Option<&Var>) -> Result<Self> {
        let (ids, tensor) = match gradient {
            Gradient::Rows(rows) => rows.summed()?,
            gradient => ((0..var.dim(0)? as u32).collect(), gradient.dense()?),
        };
        let numbers = Tensor::new(ids.as_slice(), var.device())?;
        let rows = lookup(&var.as_detached_tensor(), &numbers, None)?;
        // The first dimension of what is remembered is of its parts.
        let of_rows =
            |memory: &Var| Var::from_tensor(&memory.as_detached_tensor().index_select(&numbers, 1)?);
        let memory = memory.map(of_rows).transpose()?;
        let part = Part::Rows { var: Var::from_tensor(&rows)?, memory, ids };
        Ok(Self { tensor, rows: None, part: Some(part) })
    }

    /// What the rule updates: `var`, or what was taken out of it.
    pub(super) fn updated<'a>(&'a self, var: &'a Var) -> &'a Var {
        match &self.part {
            None => var,
            Some(Part::Columns { var, .. } | Part::Rows { var, .. }) => var,
        }
    }

    /// What is remembered of [`Taken::updated`], of all that is remembered of the weight.
    pub(super) fn memory<'a>(&'a self, memory: Option<&'a Var>) -> Option<&'a Var> {
        match &self.part {
            Some(Part::Rows { memory, .. }) => memory.as_ref(),
            _ => memory,
        }
    }

    /// Puts what was taken out of `var` and of its `memory` back as the rule has left it; numbers of two bytes are rounded by
    /// `rounding`.
    pub(super) fn put_back(
        &self,
        var: &Var,
        memory: Option<&Var>,
        rounding: impl FnOnce() -> Rng,
    ) -> Result<()> {
        match &self.part {
            None => Ok(()),
            Some(Part::Columns { var: part, start }) => {
                Ok(var.slice_set(&part.as_detached_tensor(), D::Minus1, *start)?)
            }
            Some(Part::Rows { var: rows, memory: of_rows, ids }) => {
                RoundedRows { ids, stream: rounding() }.put(var, &rows.as_detached_tensor())?;
                match memory.zip(of_rows.as_ref()) {
                    None => Ok(()),
                    Some((memory, of_rows)) => Ok(put_rows(memory, ids, &of_rows.as_detached_tensor())?),
                }
            }
        }
    }
}
