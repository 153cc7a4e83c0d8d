//! Rows added to those of a table, in place.

use crate::cpu::real::{self, by_float};
use crate::error::Result;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result as CandleResult, Tensor};

/// Adds each of `rows`, `(count, width)`, to that row of `table`, `(rows, width)`, which its number in `ids`, `(count)` of
/// u32, names, one after the other. The table is changed in place where it is contiguous and on the CPU; what is returned
/// is the table after it either way. Vectors are tables of rows of one number.
pub fn add_rows(table: Tensor, ids: &Tensor, rows: &Tensor) -> Result<Tensor> {
    if !table.device().is_cpu() || !table.is_contiguous() {
        return Ok(table.index_add(ids, rows, 0)?);
    }
    table.inplace_op2(&rows.contiguous()?, &AddRows { ids: ids.to_vec1()? })?;
    Ok(table)
}

struct AddRows {
    ids: Vec<u32>,
}

impl InplaceOp2 for AddRows {
    fn name(&self) -> &'static str {
        "add-rows"
    }

    fn cpu_fwd(
        &self,
        table: &mut CpuStorage,
        layout: &Layout,
        rows: &CpuStorage,
        rows_layout: &Layout,
    ) -> CandleResult<()> {
        let (count, width) = as_table(layout)?;
        let (added, row_width) = as_table(rows_layout)?;
        if row_width != width || added != self.ids.len() {
            candle_core::bail!(
                "{added} rows of {row_width} for {} numbers and rows of {width}",
                self.ids.len()
            );
        }
        by_float!(rows.dtype(), T => {
            let rows = real::elements::<T>(rows, rows_layout)?;
            let table = real::elements_mut::<T>(table, layout)?;
            for (&id, row) in self.ids.iter().zip(rows.chunks_exact(width)) {
                let Some(to) = table.get_mut(id as usize * width..(id as usize + 1) * width) else {
                    candle_core::bail!("row {id} of a table of {count}");
                };
                to.iter_mut().zip(row).for_each(|(to, &x)| *to += x);
            }
        });
        Ok(())
    }
}

/// Rows, and the numbers of each.
fn as_table(layout: &Layout) -> CandleResult<(usize, usize)> {
    match *layout.shape().dims() {
        [rows] => Ok((rows, 1)),
        _ => layout.shape().dims2(),
    }
}

#[cfg(test)]
mod tests {
    use super::add_rows;
    use candle_core::{Device, Tensor};

    #[test]
    fn rows_of_one_number_add_up_and_the_others_stay() {
        let table = || Tensor::new(&[[1f64, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu).unwrap();
        let ids = Tensor::new(&[2u32, 0, 2], &Device::Cpu).unwrap();
        let rows = Tensor::new(&[[10f64, 0.0], [0.5, 0.5], [1.0, 2.0]], &Device::Cpu).unwrap();
        let wanted = vec![vec![1.5, 2.5], vec![3.0, 4.0], vec![16.0, 8.0]];
        assert_eq!(add_rows(table(), &ids, &rows).unwrap().to_vec2::<f64>().unwrap(), wanted);
        let transposed = table().t().unwrap().contiguous().unwrap().t().unwrap();
        assert_eq!(add_rows(transposed, &ids, &rows).unwrap().to_vec2::<f64>().unwrap(), wanted);
    }

    #[test]
    fn a_row_that_the_table_lacks_is_an_error() {
        let table = Tensor::new(&[[1f32, 2.0]], &Device::Cpu).unwrap();
        let ids = Tensor::new(&[1u32], &Device::Cpu).unwrap();
        assert!(add_rows(table.copy().unwrap(), &ids, &table).is_err());
    }
}
