//! The losses of rows of sampled logits, and the logits' gradient in their place.

use super::Kind;
use crate::cpu::instruction_set::WithKernel;
use crate::cpu::pool;
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;

/// The loss of each row; the logits get their offsets, and −∞ where a sample is the row's target in a softmax.
pub(super) struct Forward<'a, T> {
    pub(super) kind: Kind,
    pub(super) logits: &'a mut [T],
    pub(super) offsets: &'a [T],
    pub(super) targets: &'a [T],
    pub(super) hits: &'a [Option<usize>],
    pub(super) nats: &'a mut [T],
}

impl<T: Real> WithKernel<T> for Forward<'_, T> {
    type Output = ();

    fn run<K: Kernel<Element = T>>(self) {
        let Self { kind, logits, offsets, targets, hits, nats } = self;
        let count = offsets.len();
        let logits = Shared::new(logits);
        let nats = Shared::new(nats);
        pool::run(|worker| {
            for row in worker.share(targets.len()) {
                // SAFETY: workers' rows are disjoint.
                let (values, nats) = unsafe { (logits.part(row * count, count), nats.part(row, 1)) };
                let remove = hits[row].filter(|_| kind == Kind::Softmax);
                nats[0] = K::vectorized(
                    #[inline(always)]
                    || {
                        offset(values, offsets, remove);
                        match kind {
                            Kind::Softmax => log_sum_exp(values, targets[row]) - targets[row],
                            Kind::Nce => {
                                softplus(-targets[row]) + values.iter().map(|&x| softplus(x)).sum::<T>()
                            }
                        }
                    },
                );
            }
        });
    }
}

#[inline(always)]
fn offset<T: Real>(values: &mut [T], offsets: &[T], remove: Option<usize>) {
    values.iter_mut().zip(offsets).for_each(|(x, &offset)| *x += offset);
    remove.into_iter().for_each(|at| values[at] = T::neg_infinity());
}

/// `ln (e^first + Σ e^x)`, safe from overflow. Sixteen sums run side by side, whatever the instruction set.
#[inline(always)]
fn log_sum_exp<T: Real>(row: &[T], first: T) -> T {
    const LANES: usize = 16;
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut highest = [first; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            highest[i] = if chunk[i] > highest[i] { chunk[i] } else { highest[i] };
        }
    }
    let highest =
        highest.into_iter().chain(rest.iter().copied()).fold(first, |a, b| if b > a { b } else { a });
    let mut sums = [T::zero(); LANES];
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += (chunk[i] - highest).fast_exp();
        }
    }
    let rest = rest.iter().chain([&first]).map(|&x| (x - highest).fast_exp());
    let sum: T = sums.into_iter().chain(rest).sum();
    highest + sum.ln()
}

/// ln(1 + e^x), safe from overflow.
#[inline(always)]
fn softplus<T: Real>(x: T) -> T {
    let positive = if x > T::zero() { x } else { T::zero() };
    positive + (-x.abs()).exp().ln_1p()
}

/// Logits become their gradient, whose sums over the rows are added to `sums`; that of the targets' goes to `target_grads`.
pub(super) struct Backward<'a, T> {
    pub(super) kind: Kind,
    pub(super) logits: &'a mut [T],
    /// What the logits lack, if anything.
    pub(super) offsets: Option<&'a [T]>,
    pub(super) targets: &'a [T],
    pub(super) hits: &'a [Option<usize>],
    pub(super) nats: &'a [T],
    pub(super) grad: &'a [T],
    pub(super) target_grads: &'a mut [T],
    pub(super) sums: &'a mut [T],
}

impl<T: Real> WithKernel<T> for Backward<'_, T> {
    type Output = ();

    fn run<K: Kernel<Element = T>>(self) {
        let Self { kind, logits, offsets, targets, hits, nats, grad, target_grads, sums } = self;
        let count = sums.len();
        let logits = Shared::new(logits);
        let sums = Shared::new(sums);
        let target_grads = Shared::new(target_grads);
        pool::run(|worker| {
            for row in worker.share(targets.len()) {
                // SAFETY: workers' rows are disjoint.
                let (values, to_target) =
                    unsafe { (logits.part(row * count, count), target_grads.part(row, 1)) };
                let remove = hits[row].filter(|_| kind == Kind::Softmax);
                K::vectorized(
                    #[inline(always)]
                    || {
                        if let Some(offsets) = offsets {
                            offset(values, offsets, remove);
                        }
                        let normaliser = nats[row] + targets[row];
                        match kind {
                            Kind::Softmax => softmax(values, normaliser, grad[row]),
                            Kind::Nce => values.iter_mut().for_each(|x| *x = sigmoid(*x) * grad[row]),
                        }
                    },
                );
                remove.into_iter().for_each(|at| values[at] = T::zero());
                to_target[0] = match kind {
                    // p − 1, of which p = e^−nats
                    Kind::Softmax => grad[row] * (-nats[row]).exp_m1(),
                    Kind::Nce => -grad[row] * sigmoid(-targets[row]),
                };
            }
            worker.barrier();
            let columns = worker.share(count);
            // SAFETY: workers' columns are disjoint, and after the barrier no worker writes logits.
            let sums = unsafe { sums.part(columns.start, columns.len()) };
            for row in 0..targets.len() {
                // SAFETY: as above.
                let values = unsafe { logits.read(row * count + columns.start, columns.len()) };
                K::vectorized(
                    #[inline(always)]
                    || sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += value),
                );
            }
        });
    }
}

/// A row's logits become `softmax · grad`.
#[inline(always)]
fn softmax<T: Real>(row: &mut [T], normaliser: T, grad: T) {
    for x in row {
        let nats = *x - normaliser;
        let nats = if nats > T::zero() { T::zero() } else { nats }; // rounding of huge logits; NaN passes
        *x = nats.fast_exp() * grad;
    }
}

/// 1 / (1 + e^−x), safe from overflow.
#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    let e = (-x.abs()).fast_exp();
    (if x < T::zero() { e } else { T::one() }) / (T::one() + e)
}
