//! Work on the pieces of tensors, shared out among the threads of the kernels' pool.
//!
//! A step's updates are many and short, so the threads that computed the gradients, which are awake, make them; a tensor of
//! one piece is not shared out at all.

use super::element::PIECE;
use crate::cpu::pool;
use crate::cpu::shared::Shared;
use std::ops::Range;

/// Calls `work` with the elements of each piece of `len` elements, on any thread.
pub(super) fn for_each(len: usize, work: impl Fn(Range<usize>) + Sync) {
    let piece = |index: usize| index * PIECE..len.min((index + 1) * PIECE);
    let count = len.div_ceil(PIECE);
    if count <= 1 {
        return (0..count).for_each(|index| work(piece(index)));
    }
    pool::run(|worker| worker.share(count).for_each(|index| work(piece(index))));
}

/// The sum of what `work` gives for each piece, added in the order of the pieces.
pub(super) fn sum(len: usize, work: impl Fn(Range<usize>) -> f64 + Sync) -> f64 {
    let mut parts = vec![0.0; len.div_ceil(PIECE)];
    let shared = Shared::new(&mut parts);
    for_each(len, |piece| {
        // SAFETY: each piece has a part of its own.
        let part = unsafe { shared.part(piece.start / PIECE, 1) };
        part[0] = work(piece);
    });
    parts.into_iter().sum()
}

/// Whether `work` holds of every piece.
pub(super) fn all(len: usize, work: impl Fn(Range<usize>) -> bool + Sync) -> bool {
    sum(len, |piece| if work(piece) { 0.0 } else { 1.0 }) == 0.0
}

/// Calls `work` with each piece of `target` and its elements.
pub(super) fn for_each_mut<T: Send>(target: &mut [T], work: impl Fn(&mut [T], Range<usize>) + Sync) {
    let len = target.len();
    let shared = Shared::new(target);
    // SAFETY: pieces are disjoint.
    for_each(len, |piece| work(unsafe { shared.part(piece.start, piece.len()) }, piece));
}
