//! Rows of what is remembered of a table, put back in place.

use crate::cpu::real::{self, by_float};
use crate::error::Result;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result as CandleResult, Tensor, Var};

/// Puts `rows`, `(parts, count, …)`, in the place of the rows `ids` of each part of `memory`, `(parts, rows, …)`, on the CPU.
///
/// # Errors
/// If the tensors are not such ones, or a row is not there.
pub fn put_rows(memory: &Var, ids: &[u32], rows: &Tensor) -> Result<()> {
    Ok(memory.inplace_op2(&rows.contiguous()?, &PutRows { ids })?)
}

struct PutRows<'a> {
    ids: &'a [u32],
}

impl InplaceOp2 for PutRows<'_> {
    fn name(&self) -> &'static str {
        "put-rows"
    }

    fn cpu_fwd(
        &self,
        memory: &mut CpuStorage,
        layout: &Layout,
        rows: &CpuStorage,
        rows_layout: &Layout,
    ) -> CandleResult<()> {
        let (&[parts, count, ref rest @ ..], &[of_parts, of_count, ref of_rest @ ..]) =
            (layout.dims(), rows_layout.dims())
        else {
            candle_core::bail!("rows of {layout:?} by those of {rows_layout:?}");
        };
        let is_there = self.ids.iter().all(|&id| (id as usize) < count);
        if (of_parts, of_count, of_rest) != (parts, self.ids.len(), rest) || !is_there {
            candle_core::bail!("{} rows of {rows_layout:?} do not fit {layout:?}", self.ids.len());
        }
        let width: usize = rest.iter().product();
        by_float!(rows.dtype(), T => {
            let rows = real::elements::<T>(rows, rows_layout)?;
            let memory = real::elements_mut::<T>(memory, layout)?;
            for part in 0..parts {
                for (at, &id) in self.ids.iter().enumerate() {
                    let from = (part * of_count + at) * width;
                    let to = (part * count + id as usize) * width;
                    memory[to..to + width].copy_from_slice(&rows[from..from + width]);
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::put_rows;
    use candle_core::{DType, Device, Tensor, Var};

    #[test]
    fn rows_take_the_place_of_those_of_their_numbers_in_every_part() {
        for rest in [&[][..], &[3]] {
            let memory = Var::zeros([&[2, 5], rest].concat(), DType::F32, &Device::Cpu).unwrap();
            let rows = Tensor::ones([&[2, 2], rest].concat(), DType::F32, &Device::Cpu).unwrap();
            put_rows(&memory, &[1, 4], &rows).unwrap();
            let ids = Tensor::new(&[1u32, 4], &Device::Cpu).unwrap();
            let (found, all) = (memory.index_select(&ids, 1).unwrap(), memory.as_tensor());
            let sums = [&found, all].map(|tensor| tensor.sum_all().unwrap().to_scalar::<f32>().unwrap());
            let wanted = 4.0 * rest.iter().product::<usize>() as f32;
            assert_eq!(sums, [wanted; 2]);
            assert!(put_rows(&memory, &[1, 5], &rows).is_err() && put_rows(&memory, &[1], &rows).is_err());
        }
    }
}
