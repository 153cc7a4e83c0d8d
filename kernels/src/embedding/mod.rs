//! Rows of a table by their numbers.

mod add;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod gradient;
mod put;
mod row;
mod two_bytes;

pub use add::add_rows;
pub use gradient::RowGradient;
pub use put::put_rows;
pub use row::copy_row;
pub use two_bytes::{RoundedRows, is_two_bytes, two_byte_table};

use crate::backend::Backend;
use crate::error::Result;
use candle_core::{Shape, Tensor};

/// Rows of `table` `(rows, width)` by `ids` (u32, of any shape): the shape of `ids` with `width` behind it; numbers of a
/// vector: the shape of `ids`.
///
/// Rows of a table of f16 on the CPU ([`is_two_bytes`]) come in f32, and their gradient with them.
///
/// Row `blank`, if there is one, needs no gradient: a GPU then skips its positions, of which a padded table has many.
pub fn lookup(table: &Tensor, ids: &Tensor, blank: Option<u32>) -> Result<Tensor> {
    let width = table.dims().get(1);
    let shape = Shape::from([ids.dims(), width.map_or(&[][..], std::slice::from_ref)].concat());
    #[cfg(feature = "cuda")]
    if table.device().is_cuda() && table.rank() == 2 {
        return Ok(crate::embedding::cuda::lookup(table, ids, blank)?.reshape(shape)?);
    }
    let _ = blank; // elsewhere every gradient is computed
    if Backend::of(table) == Backend::Cpu || is_two_bytes(table) {
        return Ok(cpu::lookup(table, &ids.flatten_all()?, shape)?);
    }
    Ok(table.index_select(&ids.flatten_all()?, 0)?.reshape(shape)?)
}
