//! AdaGrad (Duchi et al., 2011), as `torch.optim.Adagrad` has it: of all numbers, or of the rows of a table that have a
//! gradient. A row without one stays as it is either way, so both are the same; only the second takes no time for it.
//!
//! ```text
//! g = scale · (gradient + decay · θ)       s ← s + g²       θ ← θ − rate · g / (√(initial + s) + ε)
//! ```
//!
//! The sum starts at `initial`, which is added where the sum is read: what was never touched is zero, and an operating
//! system needs no memory for pages of zeros that nobody wrote.

use super::plain;
use super::spans::{Spans, Touched};
use crate::cpu::in_vectors;
use crate::cpu::real::{self, Real, by_float};
use crate::cpu::shared::Shared;
use crate::error::Result;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result as CandleResult, Tensor, Var};
use pulp::Arch;
use std::sync::{Mutex, PoisonError};

/// Numbers of one step of AdaGrad.
#[derive(Clone, Copy, Debug)]
pub struct AdagradStep {
    /// The learning rate.
    pub rate: f64,
    /// What the gradient is multiplied by: what clipping leaves of it.
    pub scale: f64,
    /// The decay that is part of the gradient; 0 where rows alone are touched.
    pub decay: f64,
    /// The guard against division by zero.
    pub epsilon: f64,
    /// What the sums of squares start from.
    pub initial: f64,
}

/// The same in the elements' type.
#[derive(Clone, Copy)]
pub(super) struct Numbers<T> {
    rate: T,
    scale: T,
    decay: T,
    epsilon: T,
    initial: T,
}

impl<T: Real> Numbers<T> {
    pub(super) fn new(step: &AdagradStep) -> Self {
        let [rate, scale, decay, epsilon, initial] =
            [step.rate, step.scale, step.decay, step.epsilon, step.initial].map(T::from_f64);
        Self { rate, scale, decay, epsilon, initial }
    }

    /// What the gradient is after decay and clipping.
    #[inline(always)]
    pub(super) fn gradient(&self, g: T, p: T) -> T {
        (g + self.decay * p) * self.scale
    }

    /// What a step is divided by, from the sum after it.
    #[inline(always)]
    pub(super) fn root(&self, sum: T) -> T {
        (self.initial + sum).sqrt() + self.epsilon
    }

    /// The step that is taken from θ.
    #[inline(always)]
    pub(super) fn step(&self, g: T, p: T, root: T) -> T {
        self.rate * self.gradient(g, p) / root
    }

    #[inline(always)]
    fn sum(&self, sum: T, g: T, p: T) -> T {
        let g = self.gradient(g, p);
        sum + g * g
    }

    /// θ after the step, from the sum after it.
    #[inline(always)]
    fn parameter(&self, p: T, sum: T, g: T) -> T {
        p - self.step(g, p, self.root(sum))
    }
}

/// One step of `parameter` and of its `sums`, `(1, …)`, by `gradient`, which is of what is `touched`. Elsewhere than on the
/// CPU by plain operations, and of all numbers.
pub fn adagrad(
    parameter: &Var,
    sums: &Var,
    gradient: &Tensor,
    touched: Touched<'_>,
    step: AdagradStep,
) -> Result<()> {
    let old = parameter.as_detached_tensor();
    if !old.device().is_cpu() {
        let [after, moved] = plain::adagrad(&old, &sums.as_detached_tensor(), gradient, step)?;
        parameter.set(&moved)?;
        return Ok(sums.set(&after)?);
    }
    let spans = Spans::new(old.shape(), touched)?;
    Ok(sums.inplace_op2(&gradient.contiguous()?, &Op { step, spans, parameter })?)
}

/// Whether [`adagrad`] would write finite numbers alone.
pub fn is_finite(
    parameter: &Tensor,
    sums: &Tensor,
    gradient: &Tensor,
    touched: Touched<'_>,
    step: AdagradStep,
) -> Result<bool> {
    if !parameter.device().is_cpu() {
        let [after, moved] = plain::adagrad(parameter, sums, gradient, step)?;
        return Ok(plain::is_finite(&after)? && plain::is_finite(&moved)?);
    }
    let spans = Spans::new(parameter.shape(), touched)?;
    let tensors = [&parameter.contiguous()?, &sums.contiguous()?, &gradient.contiguous()?];
    Ok(by_float!(parameter.dtype(), T => {
        let numbers = Numbers::<T>::new(&step);
        real::with_elements(tensors, |[p, s, g]| all_finite(&numbers, &spans, [p, s, g]))?
    }))
}

fn all_finite<T: Real>(numbers: &Numbers<T>, spans: &Spans, [p, s, g]: [&[T]; 3]) -> bool {
    const LANES: usize = 16;
    let arch = Arch::new();
    spans.all(|span, of_gradient| {
        let parts =
            p[span.clone()].chunks(LANES).zip(s[span].chunks(LANES)).zip(g[of_gradient].chunks(LANES));
        in_vectors!(arch, {
            let mut zeros = [T::zero(); LANES];
            for ((p, s), g) in parts {
                for (zero, ((&p, &s), &g)) in zeros.iter_mut().zip(p.iter().zip(s).zip(g)) {
                    let sum = numbers.sum(s, g, p);
                    // x · 0 is 0 for every finite x and no number for any other.
                    *zero += sum * T::zero() + numbers.parameter(p, sum, g) * T::zero();
                }
            }
            zeros.into_iter().all(|zero| zero == T::zero())
        })
    })
}

/// The step on the sums; it changes the parameter too, in the same pass over both.
struct Op<'a> {
    step: AdagradStep,
    spans: Spans,
    parameter: &'a Var,
}

impl InplaceOp2 for Op<'_> {
    fn name(&self) -> &'static str {
        "adagrad"
    }

    fn cpu_fwd(
        &self,
        sums: &mut CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> CandleResult<()> {
        by_float!(gradient.dtype(), T => {
            let gradient = real::elements::<T>(gradient, gradient_layout)?;
            let sums = real::elements_mut::<T>(sums, layout)?;
            if gradient.len() != self.spans.touched() {
                candle_core::bail!("{} numbers of a gradient of {}", gradient.len(), self.spans.touched());
            }
            let inner = Both { numbers: Numbers::new(&self.step), spans: &self.spans, gradient, sums: Mutex::new(sums) };
            self.parameter.inplace_op1(&inner)
        })
    }
}

/// The pass over parameter and sums.
struct Both<'a, T> {
    numbers: Numbers<T>,
    spans: &'a Spans,
    gradient: &'a [T],
    /// Behind a lock, as an operation of candle is shared; it runs once.
    sums: Mutex<&'a mut [T]>,
}

impl<T: Real> InplaceOp1 for Both<'_, T> {
    fn name(&self) -> &'static str {
        "adagrad"
    }

    fn cpu_fwd(&self, parameter: &mut CpuStorage, layout: &Layout) -> CandleResult<()> {
        let parameter = real::elements_mut::<T>(parameter, layout)?;
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.len() != parameter.len() {
            candle_core::bail!("{} sums for {} numbers", sums.len(), parameter.len());
        }
        let sums = Shared::new(&mut sums);
        let arch = Arch::new();
        let numbers = self.numbers;
        self.spans.for_each_mut(parameter, |parameter, span, of_gradient| {
            // SAFETY: ranges are disjoint.
            let sums = unsafe { sums.part(span.start, span.len()) };
            let all = parameter.iter_mut().zip(sums).zip(&self.gradient[of_gradient]);
            in_vectors!(arch, {
                all.for_each(|((p, sum), &g)| {
                    *sum = numbers.sum(*sum, g, *p);
                    *p = numbers.parameter(*p, *sum, g);
                });
            });
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{AdagradStep, adagrad, is_finite};
    use crate::update::Touched;
    use candle_core::{Device, Tensor, Var};

    const STEP: AdagradStep = AdagradStep { rate: 0.5, scale: 2.0, decay: 0.0, epsilon: 0.0, initial: 7.0 };

    fn table(values: &[[f64; 2]]) -> Var {
        Var::from_tensor(&Tensor::from_slice(values.as_flattened(), (values.len(), 2), &Device::Cpu).unwrap())
            .unwrap()
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_step_divides_by_the_root_of_all_squares_so_far() {
        let parameter = table(&[[1.0, 2.0]]);
        let sums = Var::new(&[[[5.0f64, 0.0]]], &Device::Cpu).unwrap();
        adagrad(&parameter, &sums, &table(&[[1.0, -1.5]]), Touched::All, STEP).unwrap();
        assert_eq!(numbers(&sums), [9.0, 9.0]); // 5 + 2², 0 + 3²
        assert_eq!(numbers(&parameter), [1.0 - 0.5 * 2.0 / 4.0, 2.0 + 0.5 * 3.0 / 4.0]); // √(7 + 9)
    }

    #[test]
    fn rows_move_as_they_do_with_zeros_for_the_others() {
        let run = |gradient: &Tensor, touched| {
            let parameter = table(&[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
            let sums =
                Var::from_tensor(&Tensor::zeros((1, 3, 2), candle_core::DType::F64, &Device::Cpu).unwrap());
            let sums = sums.unwrap();
            for _ in 0..3 {
                adagrad(&parameter, &sums, gradient, touched, STEP).unwrap();
            }
            [numbers(&parameter), numbers(&sums)]
        };
        let rows = table(&[[0.25, -3.0], [1e-3, 7.0]]);
        let all = table(&[[0.25, -3.0], [0.0, 0.0], [1e-3, 7.0]]);
        assert_eq!(run(&rows, Touched::Rows(&[0, 2])), run(&all, Touched::All));
    }

    #[test]
    fn rows_that_do_not_rise_or_are_not_there_are_an_error() {
        let parameter = table(&[[1.0, 2.0], [3.0, 4.0]]);
        let sums = Var::from_tensor(&parameter.zeros_like().unwrap().unsqueeze(0).unwrap()).unwrap();
        for ids in [&[1u32, 1][..], &[1, 0], &[0, 2], &[0]] {
            let rows = table(&[[1.0, 1.0], [1.0, 1.0]]);
            assert!(adagrad(&parameter, &sums, &rows, Touched::Rows(ids), STEP).is_err(), "{ids:?}");
        }
    }

    #[test]
    fn what_would_not_be_finite_is_seen_in_the_rows_that_move_alone() {
        let parameter = table(&[[1.0, f64::NAN], [3.0, 4.0]]);
        let sums = parameter.zeros_like().unwrap().unsqueeze(0).unwrap();
        let row = |values: [f64; 2]| table(&[values]);
        let finite =
            |row: &Tensor, id: u32| is_finite(&parameter, &sums, row, Touched::Rows(&[id]), STEP).unwrap();
        assert!(finite(&row([1.0, 2.0]), 1));
        assert!(!finite(&row([1.0, 2.0]), 0)); // θ is not
        assert!(!finite(&row([1e200, 2.0]), 1)); // its square is not
        assert!(!finite(&row([f64::NAN, 2.0]), 1));
    }
}
