//! The loss over a large vocabulary, some words at a time: their logits are still in the cache when the sums of their
//! exponentials are taken, and when all gradients that they have a part in are made of their own. Nothing of the size of the
//! logits is packed, and where few numbers make a logit, none are kept: they are made again for the gradient.
//!
//! The words are the rows of the weight. Over blocks of words, each with its share of a row's sum,
//!
//! ```text
//! m ← max(m, max l)      s ← s e^(m before − m) + Σ e^(l − m)      at the end ln Σ e^l = m + ln s
//! ```

use super::cpu::{add, highest, softmax, sum_exp};
use super::op::Layer;
use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::panels::View;
use crate::cpu::pool;
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use crate::cpu::workspace::{self, Buffer};
use std::ops::Range;

/// How the words are cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    /// Logits of a block at most, if it has more than the fewest words.
    pub(super) logits: usize,
    /// Words of a block at least.
    pub(super) fewest: usize,
}

impl Default for Blocks {
    /// 2 MiB of f32, which caches hold; with fewer words than 64, packing the rows would cost too much.
    fn default() -> Self {
        Self { logits: 1 << 19, fewest: 64 }
    }
}

impl Blocks {
    /// The words of each block, for so many rows.
    fn each(self, rows: usize, vocabulary: usize) -> impl Iterator<Item = Range<usize>> {
        let fewest = self.fewest;
        let words = (self.logits / rows.max(1) / fewest).max(1) * fewest;
        (0..vocabulary).step_by(words).map(move |start| start..vocabulary.min(start + words))
    }
}

/// Units from which on a logit is kept for the gradient, if all fit; of fewer it is made again faster than it is read.
const UNITS: usize = 64;

/// Logits that are kept in any case: 8 MiB of f32.
const FEW: usize = 1 << 21;

/// What the forward pass leaves for the backward pass.
pub(super) struct Saved<T: Copy + Default + Send + 'static> {
    /// `ln Σ e^(x + b)` of each row.
    normalisers: Vec<T>,
    /// The logits block by block, the bias not added.
    logits: Option<Buffer<T>>,
}

/// The words of a block as a layer of their own.
fn part<'a, T: Computed>(layer: &Layer<'a, T>, words: &Range<usize>) -> Layer<'a, T> {
    let weight = &layer.weight[words.start * layer.hidden..words.end * layer.hidden];
    Layer { weight, bias: &layer.bias[words.clone()], ..*layer }
}

/// The nats of all rows, and what is saved: of the logits at most `most`.
pub(super) fn forward<T: Computed>(
    layer: &Layer<'_, T>,
    blocks: Blocks,
    ys: &[T],
    targets: &[u32],
    most: usize,
) -> (Vec<T>, Saved<T>) {
    let rows = targets.len();
    let vocabulary = layer.bias.len();
    let all = rows * vocabulary;
    let keeps = all <= most && (layer.hidden >= UNITS || all <= FEW);
    let mut kept = keeps.then(|| workspace::take::<T>(all));
    let mut found = vec![Found { highest: T::neg_infinity(), sum: T::zero(), wanted: T::zero() }; rows];
    for words in blocks.each(rows, vocabulary) {
        let part = part(layer, &words);
        let mut own = kept.is_none().then(|| workspace::take::<T>(rows * words.len()));
        let logits = match (&mut kept, &mut own) {
            (Some(kept), _) => &mut kept[rows * words.start..rows * words.end],
            (None, Some(own)) => own,
            (None, None) => unreachable!("one of both is there"),
        };
        let ys = View::new(ys, rows, layer.hidden);
        product(Target::new(logits, rows, words.len()), ys, part.view(), false, layer.bf16);
        let work = Reduce { logits, bias: part.bias, targets, start: words.start, found: &mut found };
        T::with_kernel(false, work);
    }
    let normalisers: Vec<T> = found.iter().map(|row| row.highest + row.sum.ln()).collect();
    let nats = normalisers.iter().zip(&found).map(|(&all, row)| all - row.wanted).collect();
    (nats, Saved { normalisers, logits: kept })
}

/// The gradients of the rows and of the biases; `each` gets the words of a block and the gradients of their logits,
/// `(rows, words)`.
pub(super) fn backward<T: Computed>(
    layer: &Layer<'_, T>,
    blocks: Blocks,
    [ys, grad]: [&[T]; 2],
    targets: &[u32],
    saved: Saved<T>,
    mut each: impl FnMut(Range<usize>, &[T]),
) -> [Vec<T>; 2] {
    let rows = targets.len();
    let [mut ys_grad, mut bias_grad] = [ys, layer.bias].map(|values| vec![T::zero(); values.len()]);
    let mut of_block = workspace::take(ys.len());
    let Saved { normalisers, logits: mut kept } = saved;
    for words in blocks.each(rows, layer.bias.len()) {
        let part = part(layer, &words);
        let mut again = kept.is_none().then(|| part.products(ys));
        let logits = match (&mut kept, &mut again) {
            (Some(kept), _) => &mut kept[rows * words.start..rows * words.end],
            (None, Some(again)) => again,
            (None, None) => unreachable!("one of both is there"),
        };
        let sums = &mut bias_grad[words.clone()];
        let normalisers = &normalisers;
        let work = Grad { logits, bias: part.bias, targets, start: words.start, normalisers, grad, sums };
        T::with_kernel(false, work);
        let of_logits = View::new(logits, rows, words.len());
        // Each block has a sum of its own: one sum over all words, one after the other, would lose two digits.
        let to = Target::new(&mut of_block, rows, layer.hidden);
        product(to, of_logits, part.view().t(), false, layer.bf16);
        add_all(&mut ys_grad, &of_block);
        each(words, logits);
    }
    [ys_grad, bias_grad]
}

/// `sums += values`, by all threads.
fn add_all<T: Real>(sums: &mut [T], values: &[T]) {
    let shared = Shared::new(sums);
    pool::run(|worker| {
        let own = worker.share(values.len());
        // SAFETY: workers' shares are disjoint.
        let sums = unsafe { shared.part(own.start, own.len()) };
        add(sums, &values[own]);
    });
}

/// What is known of a row after some blocks.
#[derive(Clone, Copy)]
struct Found<T> {
    highest: T,
    /// Σ e^(l − highest)
    sum: T,
    /// The target's logit.
    wanted: T,
}

/// Takes the logits of a block's words into what is known of each row.
struct Reduce<'a, T> {
    logits: &'a [T],
    bias: &'a [T],
    targets: &'a [u32],
    /// The block's first word.
    start: usize,
    found: &'a mut [Found<T>],
}

/// The position of a row's target in a block of `words` words from `start` on, if it is there.
fn within(target: u32, start: usize, words: usize) -> Option<usize> {
    (target as usize).checked_sub(start).filter(|&at| at < words)
}

impl<T: Real> WithKernel<T> for Reduce<'_, T> {
    type Output = ();

    fn run<K: Kernel<Element = T>>(self) {
        let Self { logits, bias, targets, start, found } = self;
        let found = Shared::new(found);
        pool::run(|worker| {
            for row in worker.share(targets.len()) {
                let x = &logits[row * bias.len()..][..bias.len()];
                // SAFETY: workers' rows are disjoint.
                let found = &mut unsafe { found.part(row, 1) }[0];
                K::vectorized(
                    #[inline(always)]
                    || {
                        let before = found.highest;
                        let here = highest(x, bias);
                        found.highest = if here > before { here } else { before };
                        let earlier = if start == 0 {
                            T::zero()
                        } else {
                            found.sum * (before - found.highest).fast_exp()
                        };
                        found.sum = earlier + sum_exp(x, bias, found.highest);
                    },
                );
                if let Some(at) = within(targets[row], start, bias.len()) {
                    found.wanted = x[at] + bias[at];
                }
            }
        });
    }
}

/// The logits of a block's words become `(softmax − onehot) · grad`, whose sums over the rows are `sums`.
struct Grad<'a, T> {
    logits: &'a mut [T],
    bias: &'a [T],
    targets: &'a [u32],
    start: usize,
    normalisers: &'a [T],
    grad: &'a [T],
    sums: &'a mut [T],
}

impl<T: Real> WithKernel<T> for Grad<'_, T> {
    type Output = ();

    fn run<K: Kernel<Element = T>>(self) {
        let Self { logits, bias, targets, start, normalisers, grad, sums } = self;
        let words = bias.len();
        let logits = Shared::new(logits);
        let sums = Shared::new(sums);
        pool::run(|worker| {
            for row in worker.share(targets.len()) {
                // SAFETY: workers' rows are disjoint.
                let values = unsafe { logits.part(row * words, words) };
                K::vectorized(
                    #[inline(always)]
                    || softmax(values, bias, normalisers[row], grad[row]),
                );
                if let Some(at) = within(targets[row], start, words) {
                    values[at] -= grad[row];
                }
            }
            worker.barrier();
            let columns = worker.share(words);
            // SAFETY: workers' columns are disjoint, and after the barrier no worker writes logits.
            let sums = unsafe { sums.part(columns.start, columns.len()) };
            for row in 0..targets.len() {
                // SAFETY: as above.
                let values = unsafe { logits.read(row * words + columns.start, columns.len()) };
                K::vectorized(
                    #[inline(always)]
                    || add(sums, values),
                );
            }
        });
    }
}

#[cfg(test)]
mod tests;
