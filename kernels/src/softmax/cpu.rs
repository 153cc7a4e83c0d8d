//! Softmax cross-entropy of rows of logits, and the logits' gradient in their place.

use crate::cpu::instruction_set::WithKernel;
use crate::cpu::pool;
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;

/// `ln Σ e^(x + b) − (x + b)[target]` of each row, on whatever kernel is chosen.
pub(crate) struct Forward<'a, T> {
    pub(crate) logits: &'a [T],
    pub(crate) bias: &'a [T],
    pub(crate) targets: &'a [u32],
    pub(crate) nats: &'a mut [T],
}

impl<T: Real> WithKernel<T> for Forward<'_, T> {
    type Output = ();

    fn run<K: Kernel<Element = T>>(self) {
        let Self { logits, bias, targets, nats } = self;
        let nats = Shared::new(nats);
        pool::run(|worker| {
            for row in worker.share(targets.len()) {
                let x = &logits[row * bias.len()..][..bias.len()];
                let target = targets[row] as usize;
                let normaliser = K::vectorized(
                    #[inline(always)]
                    || log_sum_exp(x, bias),
                );
                // SAFETY: workers' rows are disjoint.
                let nats = unsafe { nats.part(row, 1) };
                nats[0] = normaliser - (x[target] + bias[target]);
            }
        });
    }
}

/// `ln Σ e^(x + b)`, safe from overflow.
#[inline(always)]
fn log_sum_exp<T: Real>(row: &[T], bias: &[T]) -> T {
    let highest = highest(row, bias);
    highest + sum_exp(row, bias, highest).ln()
}

/// Sums and maxima that run side by side, whatever the instruction set.
const LANES: usize = 16;

/// The highest `x + b`; what is no number is passed over.
#[inline(always)]
pub(super) fn highest<T: Real>(row: &[T], bias: &[T]) -> T {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let (bias_chunks, bias_rest) = bias.as_chunks::<LANES>();
    let mut highest = [T::neg_infinity(); LANES];
    for (chunk, bias) in chunks.iter().zip(bias_chunks) {
        for i in 0..LANES {
            let x = chunk[i] + bias[i];
            highest[i] = if x > highest[i] { x } else { highest[i] };
        }
    }
    let rest = rest.iter().zip(bias_rest).map(|(&x, &b)| x + b);
    highest.into_iter().chain(rest).fold(T::neg_infinity(), |a, b| if b > a { b } else { a })
}

/// `Σ e^(x + b − highest)`, where no number is above `highest`.
#[inline(always)]
pub(super) fn sum_exp<T: Real>(row: &[T], bias: &[T], highest: T) -> T {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let (bias_chunks, bias_rest) = bias.as_chunks::<LANES>();
    let mut sums = [T::zero(); LANES];
    for (chunk, bias) in chunks.iter().zip(bias_chunks) {
        for i in 0..LANES {
            sums[i] += (chunk[i] + bias[i] - highest).fast_exp();
        }
    }
    let rest = rest.iter().zip(bias_rest).map(|(&x, &b)| (x + b - highest).fast_exp());
    sums.into_iter().chain(rest).sum()
}

/// Logits become `(softmax − onehot) · grad`, whose sums over the rows are added to `sums`.
pub(crate) struct Backward<'a, T> {
    pub(crate) logits: &'a mut [T],
    pub(crate) bias: &'a [T],
    pub(crate) targets: &'a [u32],
    pub(crate) nats: &'a [T],
    pub(crate) grad: &'a [T],
    pub(crate) sums: &'a mut [T],
}

impl<T: Real> WithKernel<T> for Backward<'_, T> {
    type Output = ();

    fn run<K: Kernel<Element = T>>(self) {
        let Self { logits, bias, targets, nats, grad, sums } = self;
        let vocabulary = bias.len();
        let logits = Shared::new(logits);
        let sums = Shared::new(sums);
        pool::run(|worker| {
            for row in worker.share(targets.len()) {
                let target = targets[row] as usize;
                // SAFETY: workers' rows are disjoint.
                let values = unsafe { logits.part(row * vocabulary, vocabulary) };
                let normaliser = nats[row] + values[target] + bias[target];
                K::vectorized(
                    #[inline(always)]
                    || softmax(values, bias, normaliser, grad[row]),
                );
                values[target] -= grad[row];
            }
            worker.barrier();
            let columns = worker.share(vocabulary);
            // SAFETY: workers' columns are disjoint, and after the barrier no worker writes logits.
            let sums = unsafe { sums.part(columns.start, columns.len()) };
            for row in 0..targets.len() {
                // SAFETY: as above.
                let values = unsafe { logits.read(row * vocabulary + columns.start, columns.len()) };
                K::vectorized(
                    #[inline(always)]
                    || add(sums, values),
                );
            }
        });
    }
}

/// A row's logits become its gradient, but for the target's −1.
#[inline(always)]
pub(super) fn softmax<T: Real>(row: &mut [T], bias: &[T], normaliser: T, grad: T) {
    for (x, &b) in row.iter_mut().zip(bias) {
        let nats = *x + b - normaliser;
        let nats = if nats > T::zero() { T::zero() } else { nats }; // rounding of huge logits; NaN passes
        *x = nats.fast_exp() * grad;
    }
}

#[inline(always)]
pub(super) fn add<T: Real>(sums: &mut [T], values: &[T]) {
    sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += value);
}
