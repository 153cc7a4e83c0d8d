//! The gradients of a step as the rule takes them: of some rows of a table where the rule leaves the others alone, else of
//! every number.

use crate::error::Result;
use candle_core::{DType, Tensor, Var};
use rhn_kernels::gradients::Gradient;

/// The gradient of one weight.
pub(super) struct Taken {
    /// In the weight's shape, or the rows alone.
    pub(super) tensor: Tensor,
    /// The numbers of the rows, which rise.
    pub(super) rows: Option<Vec<u32>>,
}

impl Taken {
    /// The gradient of `var`; of rows if there are some and `takes_rows`.
    pub(super) fn new(gradient: Gradient, var: &Var, takes_rows: bool) -> Result<Self> {
        let has_kernels = var.device().is_cpu() && matches!(var.dtype(), DType::F32 | DType::F64);
        match gradient {
            Gradient::Rows(rows) if takes_rows && has_kernels => {
                let (ids, tensor) = rows.summed()?;
                Ok(Self { tensor, rows: Some(ids) })
            }
            gradient => Ok(Self { tensor: gradient.dense()?, rows: None }),
        }
    }
}
