//! Rows of a table's gradient as the bytes that ranks exchange.

use super::number::Summable;
use crate::error::Result;
use candle_core::{Device, Tensor, Var};
use rhn_kernels::gradients::Gradient;

/// Numbers of a row of `var`; a vector is a table of rows of one number.
fn width(var: &Var) -> usize {
    var.dims().get(1).copied().unwrap_or(1)
}

/// The numbers of the rows, each followed by its row.
pub(super) fn encode<T: Summable>(var: &Var, gradient: Option<Gradient>) -> Result<Vec<u8>> {
    let (ids, rows) = match gradient {
        None => return Ok(Vec::new()),
        Some(Gradient::Rows(rows)) => rows.summed()?,
        Some(gradient) => ((0..var.dims()[0] as u32).collect(), gradient.dense()?),
    };
    let numbers = rows.flatten_all()?.to_vec1::<T>()?;
    let mut bytes = Vec::with_capacity(ids.len() * 4 + numbers.len() * size_of::<T>());
    for (id, row) in ids.iter().zip(numbers.chunks(width(var))) {
        bytes.extend(id.to_le_bytes());
        row.iter().for_each(|number| number.write(&mut bytes));
    }
    Ok(bytes)
}

/// The rows that [`encode`] wrote: their numbers `(count)`, and `(count, width)`; `None` if there are none.
pub(super) fn decode<T: Summable>(var: &Var, bytes: &[u8]) -> Result<Option<(Tensor, Tensor)>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let length = 4 + width(var) * size_of::<T>();
    let mut ids = Vec::with_capacity(bytes.len() / length);
    let mut rows = Vec::with_capacity(bytes.len() / size_of::<T>());
    for row in bytes.chunks_exact(length) {
        let (id, numbers) = row.split_at(4);
        ids.push(u32::from_le_bytes(id.try_into().expect("four")));
        rows.extend(numbers.chunks_exact(size_of::<T>()).map(T::read));
    }
    let count = ids.len();
    let rows = Tensor::from_vec(rows, (count, width(var)), &Device::Cpu)?;
    Ok(Some((Tensor::from_vec(ids, count, &Device::Cpu)?, rows)))
}
