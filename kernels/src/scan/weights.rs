//! What the recurrences share: weights in panels for every sublayer, operands that all threads read while the next
//! ones are written, and tiles whose sums are used before they leave the cache.

use crate::cpu::panels::{View, pack_half};
use crate::cpu::pool::{self, Worker};
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, Operands, Sums, Tiling, even_part};
use crate::cpu::workspace::{self, Buffer};
use num_traits::Zero;
use std::ops::Range;

/// Bytes of a panel that stay in a core's nearest cache while the lanes' tiles pass.
const NEAR: usize = 18 << 10;

/// Panels that are multiplied with one part of the operands while that is in a core's own cache; even.
pub(crate) const GROUP: usize = 4;

/// Weights of every sublayer, packed; in a panel, a vector of columns of one matrix beside a vector of another's.
pub(crate) struct Weights<K: Kernel> {
    panels: Buffer<K::Column>,
    /// Steps along the inner dimension.
    pub(crate) steps: usize,
    /// Panels of a sublayer.
    pub(crate) count: usize,
    /// Panels that are finished together.
    beside: usize,
}

impl<K: Kernel> Weights<K> {
    /// Packs `count` panels for each of `sublayers`. The inner dimension has sections of `inner` values, each padded
    /// to whole steps; `part(sublayer, panel, section, half)` is what goes there, inner × columns.
    pub(crate) fn pack<'a>(
        sublayers: usize,
        count: usize,
        inner: &[usize],
        part: impl Fn(usize, usize, usize, usize) -> View<'a, K::Element> + Sync,
    ) -> Self {
        let steps: usize = inner.iter().map(|&inner| K::steps(inner)).sum();
        let len = steps * K::columns();
        let mut panels = workspace::take::<K::Column>(sublayers * count * len);
        let shared = Shared::new(&mut panels);
        pool::run(|worker| {
            for index in worker.share(sublayers * count) {
                // SAFETY: workers' shares are disjoint.
                let mut panel = unsafe { shared.part(index * len, len) };
                for (section, &inner) in inner.iter().enumerate() {
                    let (lines, rest) = panel.split_at_mut(K::steps(inner) * K::columns());
                    for half in 0..2 {
                        let view = part(index / count, index % count, section, half);
                        pack_half::<K>(&mut lines[half * K::LANES..], view);
                    }
                    panel = rest;
                }
            }
        });
        Self { panels, steps, count, beside: 1 }
    }

    /// Two panels side by side are finished together: `count` is even.
    pub(crate) fn in_pairs(self) -> Self {
        Self { beside: 2, ..self }
    }

    fn panel(&self, sublayer: usize, panel: usize) -> &[K::Column] {
        let len = self.steps * K::columns();
        &self.panels[(sublayer * self.count + panel) * len..][..len]
    }

    /// Room for the sums of [`Weights::multiply`].
    pub(crate) fn sums(&self, lanes: usize) -> Buffer<K::Element> {
        workspace::take(GROUP * lanes * K::columns())
    }

    /// Multiplies all lanes' operands with this worker's panels of a sublayer, and hands each panel's sums to
    /// `finish`, `lanes × K::columns()` of them, or each pair's, one panel after the other. The panels after them are
    /// fetched meanwhile, the first ones of sublayer `then` at the end.
    pub(crate) fn multiply(
        &self,
        sublayer: usize,
        then: usize,
        operands: &[K::Row],
        worker: Worker<'_>,
        sums: &mut [K::Element],
        mut finish: impl FnMut(usize, &[K::Element]),
    ) {
        let lanes = operands.len() / self.steps;
        let (own, len) = (worker.share(self.count / self.beside), lanes * K::columns());
        let own = own.start * self.beside..own.end * self.beside;
        let block = even_part(self.steps, NEAR / (K::columns() * size_of::<K::Column>()));
        for start in own.clone().step_by(GROUP) {
            let group = start..own.end.min(start + GROUP);
            for first in (0..self.steps).step_by(block) {
                let steps = first..self.steps.min(first + block);
                for (panel, sums) in group.clone().zip(sums.chunks_exact_mut(len)) {
                    let next = if panel + GROUP < own.end {
                        self.panel(sublayer, panel + GROUP)
                    } else {
                        self.panel(then, own.start + panel % GROUP % own.len())
                    };
                    let both = [self.panel(sublayer, panel), next]
                        .map(|panel| &panel[steps.start * K::columns()..steps.end * K::columns()]);
                    self.block(operands, both, steps.clone(), lanes, sums);
                }
            }
            for (panel, sums) in group.step_by(self.beside).zip(sums.chunks_exact(self.beside * len)) {
                finish(panel / self.beside, sums);
            }
        }
    }

    /// One panel's part that stays near while all lanes' tiles pass, `next` is brought nearer; `steps` is where.
    #[inline(always)]
    fn block(
        &self,
        operands: &[K::Row],
        [columns, next]: [&[K::Column]; 2],
        steps: Range<usize>,
        lanes: usize,
        sums: &mut [K::Element],
    ) {
        let tiling = Tiling::new::<K>(lanes);
        let advance = K::columns() * size_of::<K::Column>() / tiling.count;
        for (index, rows) in (0..tiling.count).map(|index| (index, tiling.tile(index))) {
            let start = rows.start * self.steps + steps.start * rows.len();
            let operands = &operands[start..start + steps.len() * rows.len()];
            let sums = &mut sums[rows.start * K::columns()..rows.end * K::columns()];
            let operands = Operands {
                rows: operands.as_ptr(),
                panel: columns.as_ptr(),
                steps: steps.len(),
                ahead: next.as_ptr().cast::<u8>().wrapping_add(index * advance * steps.len()),
                advance,
            };
            let to = Sums { out: sums.as_mut_ptr(), stride: K::columns(), add: steps.start > 0 };
            // SAFETY: `with_kernel` chose a kernel that the processor has; the slices are as long as wanted.
            unsafe { K::TILES[rows.len() - 1](operands, to) };
        }
    }
}

/// Operands of the lanes for the products of one sublayer step, and room for the next one's.
pub(crate) struct Turns<K: Kernel> {
    buffers: [Buffer<K::Row>; 2],
    steps: usize,
    lanes: usize,
}

impl<K: Kernel> Turns<K> {
    /// For `lanes` rows of `steps` operands.
    pub(crate) fn new(lanes: usize, steps: usize) -> Self {
        Self { buffers: [0, 1].map(|_| workspace::take(lanes * steps)), steps, lanes }
    }

    pub(crate) fn shared(&mut self) -> SharedTurns<'_, K> {
        let tiling = Tiling::new::<K>(self.lanes);
        SharedTurns {
            buffers: self.buffers.each_mut().map(|buffer| Shared::new(buffer)),
            steps: self.steps,
            tiling,
        }
    }
}

/// [`Turns`] as all workers see them.
pub(crate) struct SharedTurns<'a, K: Kernel> {
    buffers: [Shared<'a, K::Row>; 2],
    steps: usize,
    /// How the lanes are cut.
    pub(crate) tiling: Tiling,
}

impl<'a, K: Kernel> SharedTurns<'a, K> {
    /// What was written for turn number `turn`.
    ///
    /// # Safety
    /// All workers have met since it was written, and meet again before it is overwritten.
    pub(crate) unsafe fn read(&self, turn: usize) -> &[K::Row] {
        // SAFETY: as the caller vouches.
        unsafe { self.buffers[turn % 2].read(0, self.tiling.rows() * self.steps) }
    }

    /// Room for all operands of a tile.
    ///
    /// # Safety
    /// No other worker touches the tile until all meet.
    pub(crate) unsafe fn tile(&self, turn: usize, tile: &Range<usize>) -> &'a mut [K::Row] {
        // SAFETY: as the caller vouches.
        unsafe { self.buffers[turn % 2].part(tile.start * self.steps, tile.len() * self.steps) }
    }

    /// Writes the first `width` of `values` as a lane's operands from step `step` on.
    ///
    /// # Safety
    /// No other worker writes these steps of any lane of the same tile.
    #[inline(always)]
    pub(crate) unsafe fn write(
        &self,
        turn: usize,
        tile: &Range<usize>,
        lane: usize,
        step: usize,
        values: &Chunk<K::Element>,
        width: usize,
    ) {
        if width == 0 {
            return; // past the last unit, in the second chunk of a long vector
        }
        let (start, steps) = (tile.start * self.steps + step * tile.len(), K::steps(width));
        // SAFETY: as the caller vouches.
        let operands = unsafe { self.buffers[turn % 2].part(start, steps * tile.len()) };
        let packed = pack_chunk::<K>(values, width);
        for (step, &operand) in packed[..steps].iter().enumerate() {
            operands[step * tile.len() + lane - tile.start] = operand;
        }
    }
}

/// Units that are finished together: a vector, or half of a long one.
pub(crate) type Chunk<T> = [T; CHUNK];
pub(crate) const CHUNK: usize = 8;

/// The chunk at `start`; past `width` values it is zero, and with none `start` may be anywhere.
#[inline(always)]
pub(crate) fn load<T: Real>(from: &[T], start: usize, width: usize) -> Chunk<T> {
    let mut chunk = [T::zero(); CHUNK];
    if width == CHUNK {
        chunk.copy_from_slice(&from[start..][..CHUNK]);
    } else if width > 0 {
        chunk[..width].copy_from_slice(&from[start..][..width]);
    }
    chunk
}

/// The first `to.len()` values of a chunk.
#[inline(always)]
pub(crate) fn store<T: Real>(to: &mut [T], chunk: &Chunk<T>) {
    match <&mut Chunk<T>>::try_from(&mut *to) {
        Ok(to) => *to = *chunk,
        Err(_) => to.copy_from_slice(&chunk[..to.len()]),
    }
}

#[inline(always)]
pub(crate) fn sum<T: Real>(mut a: Chunk<T>, b: Chunk<T>) -> Chunk<T> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

#[inline(always)]
pub(crate) fn multiply<T: Real>(mut a: Chunk<T>, b: Chunk<T>) -> Chunk<T> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
    a
}

/// A chunk as steps of a row; past `width` values the operands are zero.
#[inline(always)]
fn pack_chunk<K: Kernel>(values: &Chunk<K::Element>, width: usize) -> [K::Row; CHUNK] {
    let mut values = *values;
    if width < CHUNK {
        values[width..].fill(K::Element::zero());
    }
    let mut packed = [K::Row::default(); CHUNK];
    for step in 0..CHUNK / K::DEPTH {
        packed[step] = K::row([values[step * K::DEPTH], values[step * K::DEPTH + K::DEPTH - 1]]);
    }
    packed
}
