//! Tables whose numbers take two bytes: f16, of which numbers like a table's have three bits more than of bf16.
//!
//! What is computed from their rows is computed in f32. A step changes most numbers by less than half of what lies between two
//! neighbours in f16 (one part in 1,024), so that rounding to the nearest would leave them where they are for good. They are
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
use half::f16;

/// Numbers that are rounded by the bits of one uniform number of a stream.
const TOGETHER: usize = 4;

/// Whether the numbers of `table` take two bytes, on the CPU.
pub fn is_two_bytes(table: &Tensor) -> bool {
    table.dtype() == DType::F16 && table.device().is_cpu()
}

/// A table of f16 on the CPU, as a variable, of numbers that are rounded to the nearest.
pub fn two_byte_table(numbers: impl Iterator<Item = f32>, shape: &Shape) -> Result<Tensor> {
    let numbers: Vec<f16> = numbers.map(f16::from_f32).collect();
    Ok(Var::from_vec(numbers, shape.clone(), &Device::Cpu)?.into_inner())
}

/// The numbers of a contiguous tensor of f16.
fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> CandleResult<&'a [f16]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F16(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("a kernel wants a contiguous tensor of f16"),
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

/// Rows that go back into a table of f16, rounded at random by a stream of their own.
pub struct RoundedRows<'a> {
    /// The numbers of the rows, which rise.
    pub ids: &'a [u32],
    /// What the numbers are rounded by: those of row `r` by the stream's from `r` times the row's need on, whatever other rows
    /// go in with it.
    pub stream: Rng,
}

impl RoundedRows<'_> {
    /// Puts `rows`, `(count, width)` of f32, into `table`, `(rows, width)` of f16.
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
    fn round(&self, id: u32, row: &[f32], to: &mut [f16]) {
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

/// One of the two numbers of f16 around `x`, the one that is larger in size for as many of the 2¹³ values of the upper `bits` as
/// `x` is past the other. What is not finite stays so; what is, and beyond all of them, becomes the largest, 65,504.
fn round(x: f32, bits: u16) -> f16 {
    /// Bits of an f32 that an f16 has not.
    const LOST: u32 = 13;
    /// The least number that has all of its bits, and what lies between two numbers below it.
    const NORMAL: f32 = 1.0 / 16_384.0;
    const BETWEEN: f32 = 1.0 / 16_777_216.0;
    if !x.is_finite() {
        return f16::from_f32(x);
    }
    let random = u32::from(bits >> 3);
    let rounded = if x.abs() < NORMAL {
        let past = random as f32 / (1 << LOST) as f32;
        ((x.abs() / BETWEEN + past).floor() * BETWEEN).copysign(x)
    } else {
        f32::from_bits((x.to_bits() + random) >> LOST << LOST)
    };
    let largest = f16::MAX.to_f32();
    f16::from_f32(rounded.clamp(-largest, largest))
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
        let (CpuStorage::F16(table), Some((start, end))) = (table, layout.contiguous_offsets()) else {
            candle_core::bail!("a kernel wants a contiguous table of f16");
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
    use half::f16;

    fn stream() -> Rng {
        Rng::keyed(3, "rounding", 7)
    }

    #[test]
    fn a_number_of_f16_stays_and_all_others_go_to_a_neighbour_as_often_as_they_are_near_it() {
        let least = f16::from_bits(1).to_f32();
        for x in [0.0, -0.0, 1.0, -1.5, 65_504.0, least, -3.0 * least, f32::INFINITY, f32::NEG_INFINITY] {
            for bits in [0, 1, u16::MAX] {
                assert_eq!(round(x, bits).to_f32().to_bits(), x.to_bits(), "{x}");
            }
        }
        assert!(round(f32::NAN, 9).is_nan());
        assert_eq!([round(f32::MAX, u16::MAX), round(-70_000.0, 0)], [f16::MAX, f16::MIN]);
        // Three eighths of the way from one number to the next.
        for (low, next) in [(1.0, 1.0 + 1.0 / 1024.0), (2.0 * least, 3.0 * least), (0.0, least)] {
            let x = low + (next - low) * 0.375;
            for sign in [1.0f32, -1.0] {
                let rounded = (0..=u16::MAX).map(|bits| round(sign * x, bits).to_f32() * sign);
                let (up, down): (Vec<f32>, Vec<f32>) = rounded.partition(|&number| number == next);
                assert_eq!(up.len(), 3 << 13, "{sign} {x}");
                assert!(down.iter().all(|&number| number == low));
            }
        }
    }

    #[test]
    fn small_steps_add_up_in_the_mean() {
        let table = Var::from_tensor(&Tensor::ones((1, 4096), DType::F16, &Device::Cpu).unwrap()).unwrap();
        for step in 0..64 {
            let row = lookup(&table, &Tensor::new(&[0u32], &Device::Cpu).unwrap(), None).unwrap();
            let row = (row + 1.0 / 16_384.0).unwrap(); // a sixteenth of the way to the next number of f16
            let rows = RoundedRows { ids: &[0], stream: Rng::keyed(3, "rounding", step) };
            rows.put(&table, &row).unwrap();
        }
        let mean = table.to_dtype(DType::F64).unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap();
        assert!((mean - 1.0 - 64.0 / 16_384.0).abs() < 1e-4, "{mean}");
    }

    #[test]
    fn a_row_is_rounded_the_same_whatever_goes_with_it_and_on_any_number_of_threads() {
        let values: Vec<f32> = (0..7 * 5).map(|index| 1.0 + index as f32 / 30_000.0).collect();
        let rows = Tensor::from_vec(values, (7, 5), &Device::Cpu).unwrap();
        let put = |ids: &[u32], rows: &Tensor| {
            let table = Var::zeros((9, 5), DType::F16, &Device::Cpu).unwrap();
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
        let half = Var::from_tensor(&whole.to_dtype(DType::F16).unwrap()).unwrap();
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
        let table = Var::zeros((3, 2), DType::F16, &Device::Cpu).unwrap();
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
