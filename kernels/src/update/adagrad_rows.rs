//! AdaGrad with one sum for each row of a table: of the row's mean squared gradient, as the row-wise AdaGrad of FBGEMM and
//! TorchRec has it. What is remembered of a table of V words is V numbers.
//!
//! ```text
//! g = scale · (gradient + decay · θ)     s ← s + mean over the row of g²     θ ← θ − rate · g / (√(initial + s) + ε)
//! ```

use super::adagrad::{AdagradStep, Numbers};
use super::plain;
use super::spans::{Spans, Touched};
use crate::cpu::in_vectors;
use crate::cpu::pool;
use crate::cpu::real::{self, Real, by_float};
use crate::cpu::shared::Shared;
use crate::error::Result;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, InplaceOp3, Layout, Result as CandleResult, Tensor, Var};
use pulp::Arch;
use std::sync::atomic::{AtomicBool, Ordering};

/// One step of `parameter`, `(rows, columns)`, and of its `sums`, `(1, rows)`, by `gradient`, which is of what is `touched`.
/// Elsewhere than on the CPU by plain operations, and of all rows.
pub fn adagrad_by_row(
    parameter: &Var,
    sums: &Var,
    gradient: &Tensor,
    touched: Touched<'_>,
    step: AdagradStep,
) -> Result<()> {
    let old = parameter.as_detached_tensor();
    if !old.device().is_cpu() {
        let [after, moved] = plain::adagrad_by_row(&old, &sums.as_detached_tensor(), gradient, step)?;
        parameter.set(&moved)?;
        return Ok(sums.set(&after)?);
    }
    let table = Table::new(&old, touched)?;
    let gradient = gradient.contiguous()?;
    sums.inplace_op3(&gradient, &old, &Op { step, table: table.clone(), of_parameter: false })?;
    let op = Op { step, table, of_parameter: true };
    Ok(parameter.inplace_op3(&sums.as_detached_tensor(), &gradient, &op)?)
}

/// Whether [`adagrad_by_row`] would write finite numbers alone.
pub fn is_finite(
    parameter: &Tensor,
    sums: &Tensor,
    gradient: &Tensor,
    touched: Touched<'_>,
    step: AdagradStep,
) -> Result<bool> {
    if !parameter.device().is_cpu() {
        let [after, moved] = plain::adagrad_by_row(parameter, sums, gradient, step)?;
        return Ok(plain::is_finite(&after)? && plain::is_finite(&moved)?);
    }
    let table = Table::new(parameter, touched)?;
    let tensors = [&parameter.contiguous()?, &sums.contiguous()?, &gradient.contiguous()?];
    Ok(by_float!(parameter.dtype(), T => {
        let numbers = Numbers::<T>::new(&step);
        real::with_elements(tensors, |[p, s, g]| all_finite(&numbers, &table, [p, s, g]))?
    }))
}

/// The rows of a table that are touched.
#[derive(Clone)]
struct Table {
    /// The numbers of the rows, which rise; `None` for all.
    ids: Option<Vec<u32>>,
    rows: usize,
    columns: usize,
}

impl Table {
    /// Fails if `parameter` is no table, or a row is not in it.
    fn new(parameter: &Tensor, touched: Touched<'_>) -> CandleResult<Self> {
        let (rows, columns) = parameter.dims2()?;
        Spans::new(parameter.shape(), touched)?; // refuses rows that are not there
        let ids = match touched {
            Touched::All => None,
            Touched::Rows(ids) => Some(ids.to_vec()),
        };
        Ok(Self { ids, rows, columns })
    }

    /// Rows of the gradient.
    fn touched(&self) -> usize {
        self.ids.as_ref().map_or(self.rows, Vec::len)
    }

    /// Calls `work` with the number of each touched row in the table, and in the gradient, on any thread.
    fn for_each(&self, work: impl Fn(usize, usize) + Sync) {
        pool::run(|worker| {
            for at in worker.share(self.touched()) {
                work(self.ids.as_ref().map_or(at, |ids| ids[at] as usize), at);
            }
        });
    }

    /// The elements of a row.
    fn row<'a, T>(&self, values: &'a [T], row: usize) -> &'a [T] {
        &values[row * self.columns..][..self.columns]
    }
}

/// Sums that run side by side.
const LANES: usize = 16;

/// The mean over a row of g²; sixteen sums run side by side, whatever the processor.
#[inline(always)]
fn mean_square<T: Real>(numbers: &Numbers<T>, gradient: &[T], parameter: &[T]) -> T {
    let mut sums = [T::zero(); LANES];
    for (gs, ps) in gradient.chunks(LANES).zip(parameter.chunks(LANES)) {
        for (sum, (&g, &p)) in sums.iter_mut().zip(gs.iter().zip(ps)) {
            let g = numbers.gradient(g, p);
            *sum += g * g;
        }
    }
    sums.into_iter().sum::<T>() / T::from_f64(gradient.len().max(1) as f64)
}

fn all_finite<T: Real>(numbers: &Numbers<T>, table: &Table, [p, s, g]: [&[T]; 3]) -> bool {
    let arch = Arch::new();
    let all = AtomicBool::new(true);
    table.for_each(|row, at| {
        let [p, g] = [table.row(p, row), table.row(g, at)];
        let finite = in_vectors!(arch, {
            let sum = s[row] + mean_square(numbers, g, p);
            let root = numbers.root(sum);
            let mut zeros = [T::zero(); LANES];
            for (ps, gs) in p.chunks(LANES).zip(g.chunks(LANES)) {
                for (zero, (&p, &g)) in zeros.iter_mut().zip(ps.iter().zip(gs)) {
                    // x · 0 is 0 for every finite x and no number for any other.
                    *zero += (p - numbers.step(g, p, root)) * T::zero();
                }
            }
            sum.is_finite() && zeros.into_iter().all(|zero| zero == T::zero())
        });
        if !finite {
            all.store(false, Ordering::Relaxed);
        }
    });
    all.into_inner()
}

/// One of the two passes.
struct Op {
    step: AdagradStep,
    table: Table,
    /// Whether the operand is θ, with the sums and g beside it; else it is the sums, with g and θ.
    of_parameter: bool,
}

impl InplaceOp3 for Op {
    fn name(&self) -> &'static str {
        "adagrad-by-row"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> CandleResult<()> {
        by_float!(first.dtype(), T => {
            let first = real::elements::<T>(first, first_layout)?;
            let second = real::elements::<T>(second, second_layout)?;
            let target = real::elements_mut::<T>(target, layout)?;
            let (gradient, sums) = if self.of_parameter { (second, first.len()) } else { (first, target.len()) };
            if gradient.len() != self.table.touched() * self.table.columns || sums != self.table.rows {
                let Table { rows, columns, .. } = self.table;
                candle_core::bail!(
                    "{} numbers of a gradient and {sums} sums for {} of a table of {rows} × {columns}",
                    gradient.len(),
                    self.table.touched()
                );
            }
            self.run(target, first, second);
        });
        Ok(())
    }
}

impl Op {
    fn run<T: Real>(&self, target: &mut [T], first: &[T], second: &[T]) {
        let arch = Arch::new();
        let numbers = Numbers::new(&self.step);
        let table = &self.table;
        let target = Shared::new(target);
        table.for_each(|row, at| {
            if self.of_parameter {
                // SAFETY: rows are disjoint, as their numbers rise.
                let parameter = unsafe { target.part(row * table.columns, table.columns) };
                let root = numbers.root(first[row]);
                let both = parameter.iter_mut().zip(table.row(second, at));
                in_vectors!(arch, both.for_each(|(p, &g)| *p = *p - numbers.step(g, *p, root)));
            } else {
                // SAFETY: as above.
                let sum = unsafe { target.part(row, 1) };
                let [gradient, parameter] = [table.row(first, at), table.row(second, row)];
                sum[0] += in_vectors!(arch, mean_square(&numbers, gradient, parameter));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{AdagradStep, adagrad_by_row, is_finite};
    use crate::cpu::pool::with_threads;
    use crate::update::Touched;
    use candle_core::{DType, Device, Tensor, Var};

    const STEP: AdagradStep = AdagradStep { rate: 0.5, scale: 2.0, decay: 0.0, epsilon: 0.0, initial: 6.0 };

    fn table(values: &[[f64; 2]]) -> Var {
        Var::from_tensor(&Tensor::from_slice(values.as_flattened(), (values.len(), 2), &Device::Cpu).unwrap())
            .unwrap()
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_row_divides_by_the_root_of_its_mean_squares_so_far() {
        let parameter = table(&[[1.0, 2.0], [3.0, 4.0]]);
        let sums = Var::new(&[[5.0f64, 1.0]], &Device::Cpu).unwrap();
        adagrad_by_row(&parameter, &sums, &table(&[[1.0, -1.0]]), Touched::Rows(&[0]), STEP).unwrap();
        assert_eq!(numbers(&sums), [9.0, 1.0]); // 5 + (2² + 2²) / 2
        let root = 15f64.sqrt(); // of 6 + 9
        assert_eq!(numbers(&parameter), [1.0 - 0.5 * 2.0 / root, 2.0 + 0.5 * 2.0 / root, 3.0, 4.0]);
    }

    #[test]
    fn rows_move_as_they_do_with_zeros_for_the_others_on_any_number_of_threads() {
        let run = |gradient: &Tensor, touched, decay| {
            let parameter = table(&[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
            let sums = Var::zeros((1, 3), DType::F64, &Device::Cpu).unwrap();
            for _ in 0..3 {
                adagrad_by_row(&parameter, &sums, gradient, touched, AdagradStep { decay, ..STEP }).unwrap();
            }
            [numbers(&parameter), numbers(&sums)]
        };
        let rows = table(&[[0.25, -3.0], [1e-3, 7.0]]);
        let all = table(&[[0.25, -3.0], [0.0, 0.0], [1e-3, 7.0]]);
        assert_eq!(run(&rows, Touched::Rows(&[0, 2]), 0.0), run(&all, Touched::All, 0.0));
        let decayed = run(&all, Touched::All, 0.1);
        assert!(decayed[0][2] < 3.0); // it has no gradient but the decay
        assert_eq!(
            with_threads(3, || run(&all, Touched::All, 0.1)),
            with_threads(1, || run(&all, Touched::All, 0.1))
        );
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let parameter = table(&[[1.0, 2.0], [3.0, 4.0]]);
        let run = |sums: usize, ids: &[u32], rows: &Tensor| {
            let sums = Var::zeros((1, sums), DType::F64, &Device::Cpu).unwrap();
            adagrad_by_row(&parameter, &sums, rows, Touched::Rows(ids), STEP).is_err()
        };
        assert!(run(2, &[1, 0], &parameter) && run(2, &[0, 2], &parameter));
        assert!(run(3, &[0, 1], &parameter) && run(2, &[0], &parameter));
    }

    #[test]
    fn what_would_not_be_finite_is_seen_in_the_rows_that_move_alone() {
        let parameter = table(&[[1.0, f64::NAN], [3.0, 4.0]]);
        let sums = Tensor::zeros((1, 2), DType::F64, &Device::Cpu).unwrap();
        let finite = |row: [f64; 2], id: u32| {
            is_finite(&parameter, &sums, &table(&[row]), Touched::Rows(&[id]), STEP).unwrap()
        };
        assert!(finite([1.0, 2.0], 1));
        assert!(!finite([1.0, 2.0], 0)); // θ is not
        assert!(!finite([1e200, 2.0], 1)); // its square is not
        assert!(!finite([f64::NAN, 2.0], 1));
    }
}
