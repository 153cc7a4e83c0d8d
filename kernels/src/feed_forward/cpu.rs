//! The stack forward on the CPU: a thread takes its rows through all layers, with the layers' weights in panels.

use super::layer::{Layer, MOST_GATES};
use crate::cpu::chunk::{CHUNK, load, store, sum};
use crate::cpu::instruction_set::WithKernel;
use crate::cpu::packed::{OperandBuffers, PackedWeights, SharedOperands};
use crate::cpu::panels::View;
use crate::cpu::pool::{self, Worker};
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, even_part};
use crate::cpu::workspace::{self, Buffer};
use num_traits::Zero;
use std::ops::Range;

/// Rows that go through all layers together at most: their values of a layer stay in a core's nearest caches.
const ROWS: usize = 96;

/// Sizes of a stack and its input.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) layers: usize,
    pub(super) rows: usize,
    /// Units of a layer.
    pub(super) size: usize,
    /// Products of a layer.
    pub(super) gates: usize,
}

impl Sizes {
    /// From one row's values of a gate to the next: whole chunks.
    pub(super) fn stride(&self) -> usize {
        self.size.next_multiple_of(CHUNK)
    }

    /// A worker's rows, in blocks.
    pub(super) fn blocks(&self, worker: Worker<'_>) -> impl Iterator<Item = Range<usize>> {
        let own = worker.share(self.rows);
        let part = if own.is_empty() { 1 } else { even_part(own.len(), ROWS) };
        let end = own.end;
        own.step_by(part).map(move |start| start..end.min(start + part))
    }
}

/// What the backward pass needs; each row's values of a gate begin at a multiple of [`Sizes::stride`].
pub(super) struct Record<T: Real> {
    /// What enters each layer: `(layers, rows, stride)`.
    pub(super) xs: Buffer<T>,
    /// h, t and c: `(layers, rows, gates · stride)`.
    pub(super) values: Buffer<T>,
}

/// The forward pass on whatever kernel is chosen; shapes as in [`super::feed_forward`].
pub(super) struct Forward<'a, T> {
    pub(super) xs: &'a [T],
    pub(super) weights: &'a [T],
    pub(super) bias: &'a [T],
    pub(super) sizes: Sizes,
    pub(super) layer: Layer,
    pub(super) records: bool,
}

impl<T: Real> WithKernel<T> for Forward<'_, T> {
    type Output = (Vec<T>, Option<Record<T>>);

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        let Sizes { layers, rows, size, gates } = self.sizes;
        if layers == 0 || rows == 0 || size == 0 {
            return (self.xs.to_vec(), None);
        }
        let packed = self.pack::<K>();
        let stride = self.sizes.stride();
        let slots = if self.records { layers } else { 2 };
        let mut xs = workspace::take(slots * rows * stride);
        let mut values = workspace::take(if self.records { layers * rows * gates * stride } else { 0 });
        let mut out = vec![T::zero(); rows * size];
        let pass = Pass::<K> {
            inputs: &self,
            packed,
            together: together(gates),
            slots,
            xs: Shared::new(&mut xs),
            values: self.records.then(|| Shared::new(&mut values)),
            out: Shared::new(&mut out),
        };
        pool::run(|worker| pass.sizes().blocks(worker).for_each(|rows| pass.block(rows, worker)));
        drop(pass);
        (out, self.records.then_some(Record { xs, values }))
    }
}

/// Vectors of units whose gates fill whole panels, of two vectors each.
fn together(gates: usize) -> usize {
    if gates.is_multiple_of(2) { 1 } else { 2 }
}

impl<T: Real> Forward<'_, T> {
    /// A group of panels holds all gates of the same units side by side, so that its sums are all that they need.
    fn pack<K: Kernel<Element = T>>(&self) -> PackedWeights<K> {
        let Sizes { layers, size, gates, .. } = self.sizes;
        let width = gates * size;
        let together = together(gates);
        let panels = gates * together / 2;
        let part = |layer: usize, panel: usize, _section: usize, half: usize| {
            let matrix = View::new(&self.weights[layer * size * width..][..size * width], size, width);
            let index = panel % panels * 2 + half;
            let vector = panel / panels * together + index / gates;
            let start = (vector * K::LANES).min(size);
            matrix.columns(index % gates * size + start, K::LANES.min(size - start))
        };
        let groups = size.div_ceil(K::LANES).div_ceil(together);
        PackedWeights::pack(layers, groups * panels, &[size], part).finished_together(panels)
    }
}

struct Pass<'a, K: Kernel> {
    inputs: &'a Forward<'a, K::Element>,
    packed: PackedWeights<K>,
    together: usize,
    /// Layers whose inputs are kept.
    slots: usize,
    xs: Shared<'a, K::Element>,
    values: Option<Shared<'a, K::Element>>,
    out: Shared<'a, K::Element>,
}

impl<K: Kernel> Pass<'_, K> {
    fn sizes(&self) -> Sizes {
        self.inputs.sizes
    }

    /// Some rows through all layers.
    fn block(&self, rows: Range<usize>, worker: Worker<'_>) {
        let Sizes { layers, .. } = self.sizes();
        let mut buffers = OperandBuffers::<K>::new(rows.len(), self.packed.steps);
        let operands = buffers.shared();
        let mut sums = self.packed.sums(rows.len());
        self.first(&rows, &operands);
        for layer in 0..layers {
            // SAFETY: only this worker has the buffers, and writes those of the next layer meanwhile.
            let read = unsafe { operands.read(layer) };
            let next = (layer + 1) % layers;
            self.packed.multiply(layer, next, read, worker.alone(), &mut sums, |group, sums| {
                K::vectorized(
                    #[inline(always)]
                    || self.finish(layer, group, &rows, sums, &operands),
                )
            });
        }
    }

    /// What enters the first layer.
    fn first(&self, rows: &Range<usize>, operands: &SharedOperands<'_, K>) {
        let Sizes { size, .. } = self.sizes();
        let tiling = operands.tiling;
        for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
            for row in tile.clone() {
                for start in (0..size).step_by(CHUNK) {
                    let width = CHUNK.min(size - start);
                    let line = rows.start + row;
                    let x = load(self.inputs.xs, line * size + start, width);
                    // SAFETY: this worker's rows.
                    unsafe {
                        store(self.xs.part(self.x_at(0, line, start), CHUNK), &x);
                        operands.write(0, &tile, row, start / K::DEPTH, &x, width);
                    }
                }
            }
        }
    }

    /// Where a row's inputs of a layer are from unit `start` on.
    fn x_at(&self, layer: usize, line: usize, start: usize) -> usize {
        (layer % self.slots * self.sizes().rows + line) * self.sizes().stride() + start
    }

    /// The units of a group of panels: the layer's values, and the operands of the next.
    #[inline(always)]
    fn finish(
        &self,
        layer: usize,
        group: usize,
        rows: &Range<usize>,
        sums: &[K::Element],
        operands: &SharedOperands<'_, K>,
    ) {
        let Sizes { size, gates, .. } = self.sizes();
        let tiling = operands.tiling;
        for within in 0..self.together {
            let vector = group * self.together + within;
            for offset in (0..K::LANES).step_by(CHUNK) {
                let start = vector * K::LANES + offset;
                if start >= size {
                    break; // past the last unit
                }
                let width = CHUNK.min(size - start);
                let mut bias = [[K::Element::zero(); CHUNK]; MOST_GATES];
                for (gate, bias) in bias.iter_mut().enumerate().take(gates) {
                    *bias = load(self.inputs.bias, (layer * gates + gate) * size + start, width);
                }
                for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
                    for row in tile.clone() {
                        let mut values = bias;
                        for (gate, values) in values.iter_mut().enumerate().take(gates) {
                            let index = within * gates + gate;
                            let line = index / 2 * rows.len() + row;
                            let at = line * K::columns() + index % 2 * K::LANES + offset;
                            *values = sum(*values, load(sums, at, CHUNK));
                        }
                        self.chunk(layer, &tile, row, rows.start + row, start, values, operands);
                    }
                }
            }
        }
    }

    /// Some units of one row.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "where the units are, in the block and in all")]
    fn chunk(
        &self,
        layer: usize,
        tile: &Range<usize>,
        row: usize,
        line: usize,
        start: usize,
        mut values: [[K::Element; CHUNK]; MOST_GATES],
        operands: &SharedOperands<'_, K>,
    ) {
        let Sizes { layers, rows, size, gates } = self.sizes();
        let width = CHUNK.min(size - start);
        // SAFETY: this worker's rows, here and below.
        let x = load(unsafe { self.xs.read(self.x_at(layer, line, start), CHUNK) }, 0, CHUNK);
        let y = if K::FUSED {
            self.inputs.layer.forward::<_, true>(&mut values, x)
        } else {
            self.inputs.layer.forward::<_, false>(&mut values, x)
        };
        if let Some(record) = self.values {
            for (gate, values) in values.iter().enumerate().take(gates) {
                let at = ((layer * rows + line) * gates + gate) * self.sizes().stride() + start;
                // SAFETY: as above.
                store(unsafe { record.part(at, CHUNK) }, values);
            }
        }
        // SAFETY: as above.
        unsafe {
            if layer + 1 == layers {
                store(self.out.part(line * size + start, width), &y);
            } else {
                store(self.xs.part(self.x_at(layer + 1, line, start), CHUNK), &y);
                operands.write(layer + 1, tile, row, start / K::DEPTH, &y, width);
            }
        }
    }
}
