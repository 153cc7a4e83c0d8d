//! Rows of a table by their numbers.

#[cfg(feature = "cuda")]
mod cuda;
mod row;

pub use row::copy_row;

use crate::error::Result;
use candle_core::Tensor;

/// Rows of `table` `(rows, width)` by `ids` (u32, of any shape): `(ids, width)`.
///
/// Where the row `blank` is one that receives no gradient, say so: a GPU sums the gradients in an order of its own
/// kernel's, and many places of a padded table are blank.
pub fn lookup(table: &Tensor, ids: &Tensor, blank: Option<u32>) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if table.device().is_cuda() {
        return Ok(crate::embedding::cuda::lookup(table, ids, blank)?);
    }
    let _ = blank; // of no use where index_select does the work
    Ok(table.index_select(&ids.flatten_all()?, 0)?)
}
