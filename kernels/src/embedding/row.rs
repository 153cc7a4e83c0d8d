//! A row of a table on the CPU, without a tensor for it.

use crate::cpu::real;
use crate::error::{Error, Result};
use candle_core::Tensor;

/// Copies row `row` of a contiguous `(rows, out.len())` of f32 on the CPU. Fails if the tensor is not such a one, or
/// has no such row.
pub fn copy_row(table: &Tensor, row: usize, out: &mut [f32]) -> Result<()> {
    let size = out.len();
    real::with_elements([table], |[values]| match values.get(row * size..(row + 1) * size) {
        Some(values) => {
            out.copy_from_slice(values);
            Ok(())
        }
        None => Err(Error::setting(format!("row {row} of a table of {}", values.len() / size.max(1)))),
    })?
}
