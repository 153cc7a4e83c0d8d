//! Rows of a table by their numbers on the CPU; the table's gradient is summed in the order of the positions.

use super::two_bytes;
use crate::cpu::real::{self, by_float};
use crate::gradients::hand_over_rows;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};

/// Rows of `table` `(rows, width)` of f32, f64 or f16, or numbers of a vector, by `ids` `(count)` of u32, put in `shape`; those
/// of f16 are f32, and so is their gradient.
pub(super) fn lookup(table: &Tensor, ids: &Tensor, shape: Shape) -> Result<Tensor> {
    let numbers = ids.to_vec1()?;
    table.contiguous()?.apply_op1(Lookup { ids: ids.clone(), numbers, shape })
}

struct Lookup {
    ids: Tensor,
    numbers: Vec<u32>,
    /// Of what is found.
    shape: Shape,
}

impl CustomOp1 for Lookup {
    fn name(&self) -> &'static str {
        "lookup"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = match *layout.shape().dims() {
            [rows] => (rows, 1),
            _ => layout.shape().dims2()?,
        };
        let storage = match table {
            CpuStorage::F16(_) => f32::to_cpu_storage_owned(two_bytes::rows(table, layout, &self.numbers)?),
            _ => by_float!(table.dtype(), T => {
                let table = real::elements::<T>(table, layout)?;
                let mut out = Vec::with_capacity(self.shape.elem_count());
                for &id in &self.numbers {
                    match table.get(id as usize * width..(id as usize + 1) * width) {
                        Some(row) => out.extend_from_slice(row),
                        None => candle_core::bail!("row {id} of a table of {rows}"),
                    }
                }
                T::to_cpu_storage_owned(out)
            }),
        };
        Ok((storage, self.shape.clone()))
    }

    fn bwd(&self, table: &Tensor, _rows: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let rows: Vec<usize> = [&[self.numbers.len()], &table.dims()[1..]].concat();
        hand_over_rows(table, &self.ids, grad.contiguous()?.reshape(rows)?)
    }
}

#[cfg(test)]
mod tests {
    use crate::embedding::lookup;
    use candle_core::{Device, Tensor, Var};

    #[test]
    fn rows_and_gradient_are_those_of_candles_index_select() {
        let table = Var::new(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu).unwrap();
        let ids = Tensor::new(&[2u32, 0, 2], &Device::Cpu).unwrap();
        let weights = Tensor::new(&[[1f32, 2.0], [0.5, -1.0], [3.0, 0.25]], &Device::Cpu).unwrap();
        let run = |rows: Tensor| {
            let grads = (&rows * &weights).unwrap().sum_all().unwrap().backward().unwrap();
            [&rows, grads.get(&table).unwrap()].map(|tensor| tensor.to_vec2::<f32>().unwrap())
        };
        let wanted = run(table.index_select(&ids, 0).unwrap());
        assert_eq!(run(lookup(&table, &ids, None).unwrap()), wanted);
        let ids = ids.reshape((3, 1)).unwrap();
        let rows = lookup(&table, &ids, None).unwrap();
        assert_eq!(rows.dims(), [3, 1, 2]);
        assert_eq!(run(rows.squeeze(1).unwrap()), wanted);
    }

    #[test]
    fn a_row_that_the_table_lacks_is_an_error() {
        let table = Tensor::new(&[[1f32, 2.0]], &Device::Cpu).unwrap();
        assert!(lookup(&table, &Tensor::new(&[1u32], &Device::Cpu).unwrap(), None).is_err());
    }
}
