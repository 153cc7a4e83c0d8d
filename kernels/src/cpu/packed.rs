//! Packed weights, and products whose sums are used before they leave the cache.
//!
//! Weights lie in panels for every sublayer. The operands of a product are read by all threads while those of the
//! next product are written, so there are two buffers of them.

use crate::cpu::chunk::Chunk;
use crate::cpu::panels::{View, pack_half};
use crate::cpu::pool::{self, Worker};
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, Operands, Sums, Tiling, even_part};
use crate::cpu::workspace::{self, Buffer};
use num_traits::Zero;
use std::ops::Range;

/// Bytes of a panel that stay in a core's L1 cache (32 KiB or more) while the tiles of all batch rows pass; the rest
/// of L1 holds their operands and sums.
const L1_PART: usize = 18 << 10;

/// Panels that are multiplied with one part of the operands while that is in a core's L2 cache, at most.
const GROUP: usize = 4;

/// Weights of every sublayer, packed; in a panel, a vector of columns of one matrix beside a vector of another's.
pub(crate) struct PackedWeights<K: Kernel> {
    panels: Buffer<K::Column>,
    /// Steps along the inner dimension.
    steps: usize,
    /// Panels of a sublayer.
    count: usize,
    /// Panels that are finished together.
    beside: usize,
}

/// Weights of every sublayer, as the passes over a window multiply with them. The passes know them by this alone, so that they
/// are compiled once for each kernel and cell.
pub(crate) trait Weights<K: Kernel>: Sync {
    /// Steps along the inner dimension.
    fn steps(&self) -> usize;

    /// Parts of a sublayer's sums that are finished one after the other; a worker has its share of them.
    fn parts(&self) -> usize;

    /// How many finished parts ahead of the present one data can usefully be prefetched.
    fn ahead(&self) -> usize;

    /// A buffer for the sums of [`Weights::multiply`].
    fn sums(&self, rows: usize) -> Buffer<K::Element>;

    /// Multiplies all rows' operands with this worker's parts of a sublayer, and hands the sums of each to `finish`, a
    /// panel after the other, `rows × K::columns()` each. What comes after is fetched meanwhile, at the end that of
    /// sublayer `then`.
    fn multiply(
        &self,
        sublayer: usize,
        then: usize,
        operands: &[K::Row],
        worker: Worker<'_>,
        sums: &mut [K::Element],
        finish: &mut dyn FnMut(usize, &[K::Element]),
    );
}

impl<K: Kernel> PackedWeights<K> {
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

    /// So many panels side by side are finished together; `count` is a multiple of them.
    pub(crate) fn finished_together(self, beside: usize) -> Self {
        assert_eq!(self.count % beside, 0, "{} panels, {beside} together", self.count);
        Self { beside, ..self }
    }

    /// Panels that a worker multiplies before it finishes them, a multiple of those that are finished together.
    fn group(&self) -> usize {
        self.beside * (GROUP / self.beside).max(1)
    }

    /// The packed values of a panel.
    pub(crate) fn panel(&self, sublayer: usize, panel: usize) -> &[K::Column] {
        let len = self.steps * K::columns();
        &self.panels[(sublayer * self.count + panel) * len..][..len]
    }

    /// One panel's part that stays in L1 while all rows' tiles pass, `next` is prefetched; `steps` is where.
    #[inline(always)]
    fn block(
        &self,
        operands: &[K::Row],
        [columns, next]: [&[K::Column]; 2],
        steps: Range<usize>,
        batch: usize,
        sums: &mut [K::Element],
    ) {
        let tiling = Tiling::new::<K>(batch);
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

impl<K: Kernel> Weights<K> for PackedWeights<K> {
    fn steps(&self) -> usize {
        self.steps
    }

    fn parts(&self) -> usize {
        self.count / self.beside
    }

    fn ahead(&self) -> usize {
        self.group() / self.beside
    }

    fn sums(&self, rows: usize) -> Buffer<K::Element> {
        workspace::take(self.group() * rows * K::columns())
    }

    fn multiply(
        &self,
        sublayer: usize,
        then: usize,
        operands: &[K::Row],
        worker: Worker<'_>,
        sums: &mut [K::Element],
        finish: &mut dyn FnMut(usize, &[K::Element]),
    ) {
        let rows = operands.len() / self.steps;
        let group_size = self.group();
        let own = worker.share(self.count / self.beside);
        let len = rows * K::columns();
        let own = own.start * self.beside..own.end * self.beside;
        let block = even_part(self.steps, L1_PART / (K::columns() * size_of::<K::Column>()));
        for start in own.clone().step_by(group_size) {
            let group = start..own.end.min(start + group_size);
            for first in (0..self.steps).step_by(block) {
                let steps = first..self.steps.min(first + block);
                for (panel, sums) in group.clone().zip(sums.chunks_exact_mut(len)) {
                    let next = if panel + group_size < own.end {
                        self.panel(sublayer, panel + group_size)
                    } else {
                        self.panel(then, own.start + panel % group_size % own.len())
                    };
                    let both = [self.panel(sublayer, panel), next]
                        .map(|panel| &panel[steps.start * K::columns()..steps.end * K::columns()]);
                    self.block(operands, both, steps.clone(), rows, sums);
                }
            }
            for (panel, sums) in group.step_by(self.beside).zip(sums.chunks_exact(self.beside * len)) {
                finish(panel / self.beside, sums);
            }
        }
    }
}

/// Operands of the rows for the products of one sublayer step, and a buffer for the next one's.
pub(crate) struct OperandBuffers<K: Kernel> {
    buffers: [Buffer<K::Row>; 2],
    steps: usize,
    rows: usize,
}

impl<K: Kernel> OperandBuffers<K> {
    /// For `rows` rows of `steps` operands.
    pub(crate) fn new(rows: usize, steps: usize) -> Self {
        Self { buffers: [0, 1].map(|_| workspace::take(rows * steps)), steps, rows }
    }

    pub(crate) fn shared(&mut self) -> SharedOperands<'_, K> {
        let tiling = Tiling::new::<K>(self.rows);
        SharedOperands {
            buffers: self.buffers.each_mut().map(|buffer| Shared::new(buffer)),
            steps: self.steps,
            tiling,
        }
    }
}

/// [`OperandBuffers`] as all workers see them.
pub(crate) struct SharedOperands<'a, K: Kernel> {
    buffers: [Shared<'a, K::Row>; 2],
    steps: usize,
    /// How the rows are cut.
    pub(crate) tiling: Tiling,
}

impl<'a, K: Kernel> SharedOperands<'a, K> {
    /// What was written for product number `product`.
    ///
    /// # Safety
    /// There was a barrier since it was written, and there is one before it is overwritten.
    pub(crate) unsafe fn read(&self, product: usize) -> &[K::Row] {
        // SAFETY: as the caller promises.
        unsafe { self.buffers[product % 2].read(0, self.tiling.rows * self.steps) }
    }

    /// The buffer for all operands of a tile.
    ///
    /// # Safety
    /// No other worker touches the tile until the next barrier.
    pub(crate) unsafe fn tile(&self, product: usize, tile: &Range<usize>) -> &'a mut [K::Row] {
        // SAFETY: as the caller promises.
        unsafe { self.buffers[product % 2].part(tile.start * self.steps, tile.len() * self.steps) }
    }

    /// Prefetches the operands of all rows from step `step` on, `count` steps of them, to be written.
    #[inline(always)]
    pub(crate) fn fetch_for_writing(&self, product: usize, step: usize, count: usize) {
        for tile in (0..self.tiling.count).map(|index| self.tiling.tile(index)) {
            let start = tile.start * self.steps + step * tile.len();
            self.buffers[product % 2].fetch_for_writing(start, count * tile.len());
        }
    }

    /// Writes the first `width` of `values` as a row's operands from step `step` on.
    ///
    /// # Safety
    /// No other worker writes these steps of any row of the same tile.
    #[inline(always)]
    pub(crate) unsafe fn write<const N: usize>(
        &self,
        product: usize,
        tile: &Range<usize>,
        row: usize,
        step: usize,
        values: &Chunk<K::Element, N>,
        width: usize,
    ) {
        let start = tile.start * self.steps + step * tile.len();
        let steps = K::steps(width);
        // SAFETY: as the caller promises.
        let operands = unsafe { self.buffers[product % 2].part(start, steps * tile.len()) };
        let packed = pack_chunk::<K, N>(values, width);
        let own = operands[row - tile.start..].iter_mut().step_by(tile.len());
        own.zip(packed).for_each(|(to, operand)| *to = operand);
    }
}

/// A chunk as steps of a row; past `width` values the operands are zero.
#[inline(always)]
fn pack_chunk<K: Kernel, const N: usize>(values: &Chunk<K::Element, N>, width: usize) -> [K::Row; N] {
    let mut values = *values;
    if width < N {
        values[width..].fill(K::Element::zero());
    }
    let mut packed = [K::Row::default(); N];
    for step in 0..N / K::DEPTH {
        packed[step] = K::row([values[step * K::DEPTH], values[step * K::DEPTH + K::DEPTH - 1]]);
    }
    packed
}
