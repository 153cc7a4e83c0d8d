//! A window on the CPU: its sizes, what it reads and writes, and where the values of its steps lie.

use super::cell::MOST_STATES;
use crate::cpu::chunk::{Chunk, load, store};
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use crate::cpu::workspace::Buffer;
use candle_core::{Result as CandleResult, Tensor};

/// Sizes of a window.
#[derive(Clone, Copy)]
pub(crate) struct WindowSizes {
    pub(crate) time: usize,
    pub(crate) batch: usize,
    pub(crate) depth: usize,
    pub(crate) hidden: usize,
}

impl WindowSizes {
    /// Sublayer steps.
    pub(crate) fn steps(&self) -> usize {
        self.time * self.depth
    }
}

/// What a window reads, row-major; shapes as in [`super::scan`].
pub struct WindowInputs<'a, T> {
    pub(crate) projected: &'a [T],
    pub(crate) bias: &'a [T],
    /// The state's parts.
    pub(crate) state: [&'a [T]; MOST_STATES],
    pub(crate) mask: Option<&'a [T]>,
    pub(crate) sizes: WindowSizes,
}

/// Where a window's results go.
pub struct WindowOutputs<'a, T> {
    /// `(time, batch, outputs · hidden)`: the state's first parts after each time step.
    pub(crate) hidden: &'a mut [T],
    /// `(parts − 1, batch, hidden)`: its other parts after the last one.
    pub(crate) last: &'a mut [T],
}

/// The first part of the state after the last step, from all `outputs`.
pub(super) fn last_hidden(outputs: &Tensor, hidden: usize) -> CandleResult<Tensor> {
    let last = outputs.get(outputs.dim(0)? - 1)?;
    if last.dim(1)? == hidden { Ok(last) } else { last.narrow(1, 0, hidden)?.contiguous() }
}

/// Values of every sublayer step, for the backward pass, laid out as [`WindowLayout`] says.
pub struct WindowRecord<T: Real> {
    pub(crate) sizes: WindowSizes,
    pub(crate) mask: Option<Vec<T>>,
    pub(crate) layout: WindowLayout,
    /// The state that enters each sublayer step: a vector of units for each part. Empty where `entered` is not.
    pub(crate) states: Buffer<T>,
    /// The state before the first step, `(parts, batch, hidden)`, where the others are computed again; else empty.
    pub(crate) entered: Vec<T>,
    /// What the cell saved: a vector for each value.
    pub(crate) saved: Buffer<T>,
}

/// Where values of units are kept: a vector of units together, for these the batch rows of all steps in order, then
/// the next units, then the next sublayer. So a panel's values of a step lie side by side, whatever the sizes are.
#[derive(Clone, Copy)]
pub(crate) struct WindowLayout {
    /// Vectors that cover the units.
    pub(crate) vectors: usize,
    /// Batch rows of all steps.
    pub(crate) rows: usize,
}

impl WindowLayout {
    /// The position of a vector, in vectors.
    #[inline(always)]
    pub(crate) fn vector(&self, sublayer: usize, vector: usize, row: usize) -> usize {
        (sublayer * self.vectors + vector) * self.rows + row
    }
}

/// `count` vectors that follow one another, the first of them at `start`; the others are zero.
///
/// # Safety
/// As for [`Shared::read`].
#[inline(always)]
pub(super) unsafe fn load_vectors<K: Kernel, const N: usize, const COUNT: usize>(
    from: Shared<'_, K::Element>,
    start: usize,
    count: usize,
) -> [Chunk<K::Element, N>; COUNT] {
    let mut chunks = [[K::Element::default(); N]; COUNT];
    for (index, chunk) in chunks.iter_mut().enumerate().take(count) {
        // SAFETY: as the caller promises.
        *chunk = load(unsafe { from.read(start + index * N, N) }, 0, N);
    }
    chunks
}

/// Stores the first `count` chunks where [`load_vectors`] finds them.
///
/// # Safety
/// As for [`Shared::part`].
#[inline(always)]
pub(super) unsafe fn store_vectors<K: Kernel, const N: usize, const COUNT: usize>(
    to: Shared<'_, K::Element>,
    start: usize,
    count: usize,
    chunks: &[Chunk<K::Element, N>; COUNT],
) {
    for (index, chunk) in chunks.iter().enumerate().take(count) {
        // SAFETY: as the caller promises.
        store(unsafe { to.part(start + index * N, N) }, chunk);
    }
}
