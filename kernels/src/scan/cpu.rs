//! A recurrence forward on the CPU: for every step and sublayer one product, and the cell's pointwise part while the
//! product's sums are in the cache.
//!
//! A group of panels holds all gates of the same units side by side, so that its sums are all that these units need.
//! Threads own units; they wait for each other once a sublayer step.

use super::cell::{Cell, MOST_STATES, MOST_VALUES, Values};
use crate::cpu::chunk::{CHUNK, Chunk, load, multiply, store, sum};
use crate::cpu::packed::{OperandBuffers, PackedWeights, SharedOperands};
use crate::cpu::panels::View;
use crate::cpu::pool::{self, Worker};
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, Work};
use crate::cpu::workspace::{self, Buffer};
use std::marker::PhantomData;
use std::ops::Range;

/// Sizes of a window.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) time: usize,
    pub(crate) batch: usize,
    pub(crate) depth: usize,
    pub(crate) hidden: usize,
}

impl Sizes {
    /// Sublayer steps.
    pub(crate) fn steps(&self) -> usize {
        self.time * self.depth
    }
}

/// What a window reads, row-major; shapes as in [`super::scan`].
pub(crate) struct Inputs<'a, T> {
    pub(crate) projected: &'a [T],
    pub(crate) bias: &'a [T],
    /// The state's parts.
    pub(crate) state: [&'a [T]; MOST_STATES],
    pub(crate) mask: Option<&'a [T]>,
    pub(crate) sizes: Sizes,
}

/// Where a window's results go.
pub(crate) struct Outputs<'a, T> {
    /// `(time, batch, hidden)`: the state's first part after each time step.
    pub(crate) hidden: &'a mut [T],
    /// `(parts − 1, batch, hidden)`: its other parts after the last one.
    pub(crate) last: &'a mut [T],
}

/// Values of every sublayer step, for the backward pass, laid out as [`Layout`] says.
pub(crate) struct Record<T: Real> {
    pub(crate) sizes: Sizes,
    pub(crate) mask: Option<Vec<T>>,
    pub(crate) layout: Layout,
    /// The state that enters each sublayer step: a vector of units for each part.
    pub(crate) states: Buffer<T>,
    /// What the cell saved: a vector for each value.
    pub(crate) saved: Buffer<T>,
}

/// Where values of units are kept: a vector of units together, for these the batch rows of all steps in order, then
/// the next units, then the next sublayer. So a panel's values of a step lie side by side, whatever the sizes are.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Vectors that cover the units.
    pub(crate) vectors: usize,
    /// Batch rows of all steps.
    pub(crate) rows: usize,
}

impl Layout {
    /// The position of a vector, in vectors.
    #[inline(always)]
    pub(crate) fn vector(&self, sublayer: usize, vector: usize, row: usize) -> usize {
        (sublayer * self.vectors + vector) * self.rows + row
    }
}

/// Vectors of units whose gates fill whole panels, of two vectors each.
const fn vectors_together<C: Cell>() -> usize {
    if C::GATES % 2 == 0 { 1 } else { 2 }
}

/// The recurrent weights `(depth, hidden, gates · hidden)` packed for [`forward`].
pub(crate) struct Packed<K: Kernel, C> {
    weights: PackedWeights<K>,
    cell: PhantomData<C>,
}

impl<K: Kernel, C: Cell> Packed<K, C> {
    /// Packs them.
    pub(crate) fn new(recurrent: &[K::Element], depth: usize, hidden: usize) -> Self {
        let width = C::GATES * hidden;
        let together = vectors_together::<C>();
        let panels = C::GATES * together / 2;
        let part = |sublayer: usize, panel: usize, _section: usize, half: usize| {
            let matrix = View::new(&recurrent[sublayer * hidden * width..][..hidden * width], hidden, width);
            let index = panel % panels * 2 + half;
            let vector = panel / panels * together + index / C::GATES;
            let start = (vector * K::LANES).min(hidden);
            matrix.columns(index % C::GATES * hidden + start, K::LANES.min(hidden - start))
        };
        let groups = hidden.div_ceil(K::LANES).div_ceil(together);
        let weights = PackedWeights::pack(depth, groups * panels, &[hidden], part).finished_together(panels);
        Self { weights, cell: PhantomData }
    }
}

/// Writes the outputs, and returns the record if it is wanted.
pub(crate) fn forward<K: Kernel, C: Cell>(
    Packed { weights, .. }: &Packed<K, C>,
    inputs: &Inputs<'_, K::Element>,
    records: bool,
    outputs: Outputs<'_, K::Element>,
) -> Option<Record<K::Element>> {
    let Sizes { time, batch, depth, hidden } = inputs.sizes;
    let (slots, steps) = if records { (depth, time) } else { (2, 1) };
    let layout = Layout { vectors: hidden.div_ceil(K::LANES), rows: steps * batch };
    let len = layout.vector(slots, 0, 0) * K::LANES;
    let mut states = workspace::take::<K::Element>(C::STATES * len);
    let mut saved = workspace::take::<K::Element>(if records { C::SAVED * len } else { 0 });
    let mut operands = OperandBuffers::<K>::new(batch, weights.steps);
    let pass = Forward::<K, C> {
        weights,
        inputs,
        layout,
        states: Shared::new(&mut states),
        saved: records.then(|| Shared::new(&mut saved)),
        outputs: Shared::new(outputs.hidden),
        last: Shared::new(outputs.last),
        operands: operands.shared(),
        cell: PhantomData,
    };
    pool::run(|worker| pass.run(worker));
    records.then(|| {
        let mask = inputs.mask.map(<[_]>::to_vec);
        Record { sizes: inputs.sizes, mask, layout, states, saved }
    })
}

struct Forward<'a, K: Kernel, C> {
    weights: &'a PackedWeights<K>,
    inputs: &'a Inputs<'a, K::Element>,
    layout: Layout,
    states: Shared<'a, K::Element>,
    saved: Option<Shared<'a, K::Element>>,
    outputs: Shared<'a, K::Element>,
    last: Shared<'a, K::Element>,
    operands: SharedOperands<'a, K>,
    cell: PhantomData<C>,
}

/// A sublayer step of a window.
#[derive(Clone, Copy)]
struct Step {
    time: usize,
    sublayer: usize,
    /// How many came before it.
    index: usize,
}

/// What is done with the sums of a group of panels.
struct Finish<'a, K: Kernel, C> {
    pass: &'a Forward<'a, K, C>,
    step: Step,
    group: usize,
    sums: &'a [K::Element],
}

impl<K: Kernel, C: Cell> Work for Finish<'_, K, C> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.pass.finish(self.step, self.group, self.sums);
    }
}

impl<K: Kernel, C: Cell> Forward<'_, K, C> {
    fn run(&self, worker: Worker<'_>) {
        let Sizes { batch, depth, .. } = self.inputs.sizes;
        let mut sums = self.weights.sums(batch);
        self.first_state(worker);
        worker.barrier();
        for index in 0..self.inputs.sizes.steps() {
            let step = Step { time: index / depth, sublayer: index % depth, index };
            // SAFETY: they were written before the barrier, and are not written again before the next one.
            let operands = unsafe { self.operands.read(index) };
            let next_sublayer = (step.sublayer + 1) % depth;
            self.weights.multiply(
                step.sublayer,
                next_sublayer,
                operands,
                worker,
                &mut sums,
                |group, sums| K::vectorized(Finish { pass: self, step, group, sums }),
            );
            worker.barrier();
        }
    }

    /// The state that enters the window, and its operands.
    fn first_state(&self, worker: Worker<'_>) {
        let hidden = self.inputs.sizes.hidden;
        let tiling = self.operands.tiling;
        for tile in worker.share(tiling.count).map(|index| tiling.tile(index)) {
            for row in tile.clone() {
                for start in (0..hidden).step_by(CHUNK) {
                    let width = CHUNK.min(hidden - start);
                    let position = self.layout.vector(0, start / K::LANES, row);
                    for part in 0..C::STATES {
                        let state = load(self.inputs.state[part], row * hidden + start, width);
                        let at = (C::STATES * position + part) * K::LANES + start % K::LANES;
                        // SAFETY: workers' tiles are disjoint, and are read only after a barrier.
                        store(unsafe { self.states.part(at, CHUNK) }, &state);
                        if part == 0 {
                            self.write_operands(0, &tile, row, start, width, state);
                        }
                    }
                }
            }
        }
    }

    /// The units of a group of panels: the cell's step, and the next product's operands.
    #[inline(always)]
    fn finish(&self, step: Step, group: usize, sums: &[K::Element]) {
        let together = vectors_together::<C>();
        let tiling = self.operands.tiling;
        for (within, vector) in (group * together..self.layout.vectors).take(together).enumerate() {
            self.prefetch(step, vector + self.weights.ahead() * together);
            for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
                for row in tile.clone() {
                    for offset in (0..K::LANES).step_by(CHUNK) {
                        let mut products = [[K::Element::default(); CHUNK]; MOST_VALUES];
                        for (gate, products) in products.iter_mut().enumerate().take(C::GATES) {
                            let index = within * C::GATES + gate;
                            let line = index / 2 * self.batch() + row;
                            let at = line * K::columns() + index % 2 * K::LANES + offset;
                            *products = load(sums, at, CHUNK);
                        }
                        self.chunk(step, &tile, row, vector, offset, products);
                    }
                }
            }
        }
    }

    /// Prefetches what will be written of a vector of units that comes later.
    #[inline(always)]
    fn prefetch(&self, step: Step, vector: usize) {
        if let Some(saved) = self.saved.filter(|_| vector < self.layout.vectors) {
            let vectors = self.batch() * K::LANES;
            saved.fetch(C::SAVED * self.vector(step.index, vector, 0) * K::LANES, C::SAVED * vectors);
            let next = self.vector(step.index + 1, vector, 0);
            self.states.fetch(C::STATES * next * K::LANES, C::STATES * vectors);
        }
    }

    fn batch(&self) -> usize {
        self.inputs.sizes.batch
    }

    /// The position of a sublayer step's values of a vector of units and a batch row, in vectors.
    #[inline(always)]
    fn vector(&self, index: usize, vector: usize, row: usize) -> usize {
        let Sizes { batch, depth, .. } = self.inputs.sizes;
        let (slot, time) = if self.saved.is_some() { (index % depth, index / depth) } else { (index % 2, 0) };
        self.layout.vector(slot, vector, time * batch + row)
    }

    /// Some units of one batch row, `offset` after the vector's first.
    #[inline(always)]
    fn chunk(
        &self,
        step: Step,
        tile: &Range<usize>,
        row: usize,
        vector: usize,
        offset: usize,
        mut products: Values<K::Element>,
    ) {
        let Sizes { batch, hidden, depth, .. } = self.inputs.sizes;
        let start = vector * K::LANES + offset;
        if start >= hidden {
            return; // the last vector's second half
        }
        let width = CHUNK.min(hidden - start);
        let line = step.time * batch + row;
        for (gate, z) in products.iter_mut().enumerate().take(C::GATES) {
            *z = sum(*z, load(self.inputs.bias, (step.sublayer * C::GATES + gate) * hidden + start, width));
        }
        let projected = (step.sublayer == 0).then(|| {
            let mut projected = [[K::Element::default(); CHUNK]; MOST_VALUES];
            for (gate, x) in projected.iter_mut().enumerate().take(C::GATES) {
                *x = load(self.inputs.projected, (line * C::GATES + gate) * hidden + start, width);
            }
            projected
        });
        let entered = C::STATES * self.vector(step.index, vector, row) * K::LANES + offset;
        let mut state = [[K::Element::default(); CHUNK]; MOST_STATES];
        for (part, state) in state.iter_mut().enumerate().take(C::STATES) {
            // SAFETY: this worker's units; the state was written before the barrier.
            *state = load(unsafe { self.states.read(entered + part * K::LANES, CHUNK) }, 0, CHUNK);
        }
        let saved = if K::FUSED {
            C::forward::<_, true>(products, projected, &mut state)
        } else {
            C::forward::<_, false>(products, projected, &mut state)
        };
        let is_last = step.index + 1 == self.inputs.sizes.steps();
        // SAFETY: this worker's units, which no other touches.
        unsafe {
            if let Some(record) = &self.saved {
                let at = C::SAVED * self.vector(step.index, vector, row) * K::LANES + offset;
                for (value, saved) in saved.iter().enumerate().take(C::SAVED) {
                    store(record.part(at + value * K::LANES, CHUNK), saved);
                }
            }
            if step.sublayer + 1 == depth {
                store(self.outputs.part(line * hidden + start, width), &state[0]);
            }
            let next = C::STATES * self.vector(step.index + 1, vector, row) * K::LANES + offset;
            for (part, state) in state.iter().enumerate().take(C::STATES) {
                if !is_last {
                    store(self.states.part(next + part * K::LANES, CHUNK), state);
                } else if part > 0 {
                    let at = ((part - 1) * batch + row) * hidden + start;
                    store(self.last.part(at, width), state);
                }
            }
        }
        if !is_last {
            self.write_operands(step.index + 1, tile, row, start, width, state[0]);
        }
    }

    /// The masked state as operands of the product of sublayer step `index`.
    #[inline(always)]
    fn write_operands(
        &self,
        index: usize,
        tile: &Range<usize>,
        row: usize,
        start: usize,
        width: usize,
        mut state: Chunk<K::Element>,
    ) {
        if let Some(mask) = self.inputs.mask {
            state = multiply(state, load(mask, row * self.inputs.sizes.hidden + start, width));
        }
        // SAFETY: this worker's units, or tiles before the first product.
        unsafe { self.operands.write(index, tile, row, start / K::DEPTH, &state, width) };
    }
}
