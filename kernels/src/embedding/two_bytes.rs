//! Tables whose numbers take two bytes: bf16, the upper half of an f32.
//!
//! What is computed from their rows is computed in f32. A step changes most numbers by less than half of what lies between two
//! neighbours in bf16 (one part in 256), so that rounding to the nearest would leave them where they are for good. They are
//! rounded at random instead, up with the probability that makes the mean right (Gupta et al., 2015, arXiv 1502.02551):
//!
//! ```text
//! x lies between neighbours a < b:   b with probability (x − a) / (b − a), else a
//! ```

use crate::cpu::pool;
use crate::cpu::real;
use crate::cpu::shared::Shared;
use crate::error::{Error, Result};
use crate::rng::Rng;
use candle_core::{
    CpuStorage, DType, Device, InplaceOp2, Layout, Result as CandleResult, Shape, Tensor, Var,
};
use half::bf16;

/// Numbers that are rounded by the bits of one uniform number of a stream.
const TOGETHER: usize = 4;

/// Whether the numbers of `table` take two bytes, on the CPU.
pub fn is_two_bytes(table: &Tensor) -> bool {
    table.dtype() == DType::BF16 && table.device().is_cpu()
}

/// A table of bf16 on the CPU, as a variable, of numbers that are rounded to the nearest.
pub fn two_byte_table(numbers: impl Iterator<Item = f32>, shape: &Shape) -> Result<Tensor> {
    let numbers: Vec<bf16> = numbers.map(bf16::from_f32).collect();
    Ok(Var::from_vec(numbers, shape.clone(), &Device::Cpu)?.into_inner())
}

/// The numbers of a contiguous tensor of bf16.
fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> CandleResult<&'a [bf16]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::BF16(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("a kernel wants a contiguous tensor of bf16"),
    }
}

/// The rows `ids` of a table, `(rows, width)`, one behind the other.
pub(super) fn rows(storage: &CpuStorage, layout: &Layout, ids: &[u32]) -> CandleResult<Vec<f32>> {
    let table = numbers(storage, layout)?;
    let dims = layout.dims();
    let width = dims.get(1).copied().unwrap_or(1);
    let mut out = Vec::with_capacity(ids.len() * width);
    for &id in ids {
        match table.get(id as usize * width..(id as usize + 1) * width) {
            Some(row) => out.extend(row.iter().map(|number| number.to_f32())),
            None => candle_core::bail!("row {id} of a table of {}", dims[0]),
        }
    }
    Ok(out)
}

/// Rows that go back into a table of bf16, rounded at random by a stream of their own.
pub struct RoundedRows<'a> {
    /// The numbers of the rows, which rise.
    pub ids: &'a [u32],
    /// What the numbers are rounded by: those of row `r` by the stream's from `r` times the row's need on, whatever other rows
    /// go in with it.
    pub stream: Rng,
}

impl RoundedRows<'_> {
    /// Puts `rows`, `(count, width)` of f32, into `table`, `(rows, width)` of bf16.
    ///
    /// # Errors
    /// If the tensors are not such ones, or a row is not in the table.
    pub fn put(&self, table: &Var, rows: &Tensor) -> Result<()> {
        if !self.ids.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(Error::setting("rows of a table must rise"));
        }
        Ok(table.inplace_op2(&rows.contiguous()?, self)?)
    }

    /// Rounds one row.
    fn round(&self, id: u32, row: &[f32], to: &mut [bf16]) {
        let mut stream = self.stream.clone();
        stream.skip_to(u64::from(id) * row.len().div_ceil(TOGETHER) as u64);
        for (row, to) in row.chunks(TOGETHER).zip(to.chunks_mut(TOGETHER)) {
            let mut bits = stream.bits();
            for (&x, to) in row.iter().zip(to) {
                *to = round(x, bits as u16);
                bits >>= 16;
            }
        }
    }
}

/// One of the two numbers of bf16 around `x`, the upper one in size for as many of the 2¹⁶ `bits` as `x` lies above the
/// lower one; what is not finite stays so, and what is finite too.
fn round(x: f32, bits: u16) -> bf16 {
    let upper = |bits: u32| bf16::from_bits((bits >> 16) as u16);
    let below = upper(x.to_bits());
    if !x.is_finite() {
        return bf16::from_f32(x);
    }
    let rounded = upper(x.to_bits() + u32::from(bits));
    if rounded.is_finite() { rounded } else { below }
}

impl InplaceOp2 for RoundedRows<'_> {
    fn name(&self) -> &'static str {
        "rounded-rows"
    }

    fn cpu_fwd(
        &self,
        table: &mut CpuStorage,
        layout: &Layout,
        rows: &CpuStorage,
        rows_layout: &Layout,
    ) -> CandleResult<()> {
        let (count, width) = layout.shape().dims2()?;
        let rows = real::elements::<f32>(rows, rows_layout)?;
        let fits = rows_layout.shape().dims2()? == (self.ids.len(), width);
        if !fits || self.ids.last().is_some_and(|&last| last as usize >= count) {
            candle_core::bail!("{} rows of {rows_layout:?} do not fit a table of {layout:?}", self.ids.len());
        }
        let (CpuStorage::BF16(table), Some((start, end))) = (table, layout.contiguous_offsets()) else {
            candle_core::bail!("a kernel wants a contiguous table of bf16");
        };
        let table = Shared::new(&mut table[start..end]);
        pool::run(|worker| {
            for at in worker.share(self.ids.len()) {
                // SAFETY: rows are disjoint, for their numbers rise.
                let to = unsafe { table.part(self.ids[at] as usize * width, width) };
                self.round(self.ids[at], &rows[at * width..][..width], to);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::lookup;
    use super::{RoundedRows, round};
    use crate::cpu::pool::with_threads;
    use crate::gradients::Gradients;
    use crate::rng::Rng;
    use candle_core::{DType, Device, Tensor, Var};
    use half::bf16;

    fn stream() -> Rng {
        Rng::keyed(3, "rounding", 7)
    }

    #[test]
    fn a_number_of_bf16_stays_and_all_others_go_to_a_neighbour_as_often_as_they_are_near_it() {
        for x in [0.0, -0.0, 1.0, -1.5, 3.0e38, f32::INFINITY, f32::NEG_INFINITY] {
            let exact = bf16::from_f32(x);
            let kept = bf16::from_bits((x.to_bits() >> 16) as u16);
            for bits in [0, 1, u16::MAX] {
                let x = kept.to_f32();
                assert_eq!(round(x, bits), kept, "{x} and {exact}");
            }
        }
        assert!(round(f32::NAN, 9).is_nan());
        // 1 + 3/1024 is three eighths of the way from 1 to 1 + 1/128.
        for sign in [1.0f32, -1.0] {
            let up =
                (0..=u16::MAX).filter(|&bits| round(sign * (1.0 + 3.0 / 1024.0), bits).to_f32().abs() > 1.0);
            assert_eq!(up.count(), 3 << 13);
        }
        assert!(round(f32::MAX, u16::MAX).is_finite());
    }

    #[test]
    fn small_steps_add_up_in_the_mean() {
        let table = Var::from_tensor(&Tensor::ones((1, 4096), DType::BF16, &Device::Cpu).unwrap()).unwrap();
        for step in 0..64 {
            let row = lookup(&table, &Tensor::new(&[0u32], &Device::Cpu).unwrap(), None).unwrap();
            let row = (row + 1.0 / 2048.0).unwrap(); // a sixteenth of the way to the next number of bf16
            let rows = RoundedRows { ids: &[0], stream: Rng::keyed(3, "rounding", step) };
            rows.put(&table, &row).unwrap();
        }
        let mean = table.to_dtype(DType::F64).unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap();
        assert!((mean - 1.0 - 64.0 / 2048.0).abs() < 1e-3, "{mean}");
    }

    #[test]
    fn a_row_is_rounded_the_same_whatever_goes_with_it_and_on_any_number_of_threads() {
        let values: Vec<f32> = (0..7 * 5).map(|index| 1.0 + index as f32 / 3000.0).collect();
        let rows = Tensor::from_vec(values, (7, 5), &Device::Cpu).unwrap();
        let put = |ids: &[u32], rows: &Tensor| {
            let table = Var::zeros((9, 5), DType::BF16, &Device::Cpu).unwrap();
            RoundedRows { ids, stream: stream() }.put(&table, rows).unwrap();
            table.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap()
        };
        let ids = [0, 1, 3, 4, 5, 7, 8];
        let all = with_threads(1, || put(&ids, &rows));
        assert_eq!(with_threads(3, || put(&ids, &rows)), all);
        let one = put(&[4], &rows.narrow(0, 3, 1).unwrap());
        assert_eq!(one[4], all[4]);
        assert_eq!([&one[0], &all[2]], [&vec![0.0; 5]; 2]);
    }

    #[test]
    fn looked_up_rows_and_their_gradient_are_of_f32() {
        let whole = Var::new(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu).unwrap();
        let half = Var::from_tensor(&whole.to_dtype(DType::BF16).unwrap()).unwrap();
        let ids = Tensor::new(&[2u32, 0, 2], &Device::Cpu).unwrap();
        let run = |table: &Var| {
            let rows = lookup(table, &ids, None).unwrap();
            let loss = rows.sqr().unwrap().sum_all().unwrap();
            let gradient = Gradients::of(&loss).unwrap().remove(table).unwrap().unwrap();
            [rows, gradient].map(|tensor| tensor.to_vec2::<f32>().unwrap())
        };
        assert_eq!(run(&half), run(&whole));
    }

    #[test]
    fn rows_that_do_not_fit_are_errors() {
        let table = Var::zeros((3, 2), DType::BF16, &Device::Cpu).unwrap();
        let put = |ids: &[u32], shape: (usize, usize)| {
            let rows = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
            RoundedRows { ids, stream: stream() }.put(&table, &rows)
        };
        assert!(put(&[0, 2], (2, 2)).is_ok());
        for (ids, shape) in [(&[0u32, 3][..], (2, 2)), (&[1, 1], (2, 2)), (&[0], (2, 2)), (&[0], (1, 3))] {
            assert!(put(ids, shape).is_err(), "{ids:?} {shape:?}");
        }
        let ids = Tensor::new(&[3u32], &Device::Cpu).unwrap();
        assert!(lookup(&table, &ids, None).is_err());
    }
}
