//! The gradients of a step as the rule takes them: of some rows of a table where the rule leaves the others alone, of some
//! columns where training leaves the others as they are, else of every number.
//!
//! Columns are taken out of the weight, updated as a weight of their own, and put back: no rule has to know of them, and
//! the other numbers are never written.

use crate::error::Result;
use candle_core::{D, DType, Tensor, Var};
use rhn_kernels::gradients::Gradient;
use std::ops::Range;

/// The gradient of one weight.
pub(super) struct Taken {
    /// In the weight's shape, or the rows alone.
    pub(super) tensor: Tensor,
    /// The numbers of the rows, which rise.
    pub(super) rows: Option<Vec<u32>>,
    /// The columns that are updated, if not all.
    part: Option<Part>,
}

/// Columns of a weight, with memory of their own.
struct Part {
    var: Var,
    start: usize,
}

impl Taken {
    /// The gradient of `var`; of `columns` if not all are updated, of rows if there are some and `takes_rows`.
    pub(super) fn new(
        gradient: Gradient,
        var: &Var,
        columns: Option<&Range<usize>>,
        takes_rows: bool,
    ) -> Result<Self> {
        if let Some(columns) = columns {
            let take = |whole: &Tensor| whole.narrow(D::Minus1, columns.start, columns.len())?.contiguous();
            let part =
                Part { var: Var::from_tensor(&take(&var.as_detached_tensor())?)?, start: columns.start };
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

    /// What the rule updates: `var`, or the columns taken out of it.
    pub(super) fn updated<'a>(&'a self, var: &'a Var) -> &'a Var {
        self.part.as_ref().map_or(var, |part| &part.var)
    }

    /// Puts the columns back into `var`, as the rule has left them.
    pub(super) fn put_back(&self, var: &Var) -> Result<()> {
        match &self.part {
            None => Ok(()),
            Some(part) => Ok(var.slice_set(&part.var.as_detached_tensor(), D::Minus1, part.start)?),
        }
    }
}
