//! A recurrence forward on the CPU: for every step and sublayer one product, and the cell's pointwise part while the
//! product's sums are in the cache.
//!
//! Threads own groups of panels, that is units; they wait for each other once a sublayer step.

use super::cell::{MOST_STATES, MOST_UNIT_WEIGHTS, MOST_VALUES, Pointwise, States, UnitWeights, Values};
use super::packed::vectors_together;
use super::window::{
    WindowInputs, WindowLayout, WindowOutputs, WindowRecord, WindowSizes, load_vectors, store_vectors,
};
use crate::cpu::chunk::{CHUNK, Chunk, load, multiply, store, sum};
use crate::cpu::packed::{OperandBuffers, SharedOperands, Weights};
use crate::cpu::pool::{self, Worker};
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use crate::cpu::workspace;
use std::marker::PhantomData;
use std::ops::Range;

/// Writes the outputs, and returns the record if it is wanted.
pub(super) fn forward<K: Kernel, C: Pointwise>(
    weights: &dyn Weights<K>,
    inputs: &WindowInputs<'_, K::Element>,
    records: bool,
    outputs: WindowOutputs<'_, K::Element>,
) -> Option<WindowRecord<K::Element>> {
    let WindowSizes { time, batch, depth, hidden } = inputs.sizes;
    let (slots, steps) = if records { (depth, time) } else { (2, 1) };
    let layout = WindowLayout { vectors: hidden.div_ceil(K::LANES), rows: steps * batch };
    let len = layout.vector(slots, 0, 0) * K::LANES;
    let mut states = workspace::take::<K::Element>(C::STATES * len);
    let mut saved = workspace::take::<K::Element>(if records { C::SAVED * len } else { 0 });
    let mut operands = OperandBuffers::<K>::new(batch, weights.steps());
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
        WindowRecord { sizes: inputs.sizes, mask, layout, states, saved }
    })
}

struct Forward<'a, K: Kernel, C> {
    weights: &'a dyn Weights<K>,
    inputs: &'a WindowInputs<'a, K::Element>,
    layout: WindowLayout,
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

impl<K: Kernel, C: Pointwise> Forward<'_, K, C> {
    fn run(&self, worker: Worker<'_>) {
        let WindowSizes { batch, depth, .. } = self.inputs.sizes;
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
                &mut |group, sums| {
                    K::vectorized(
                        #[inline(always)]
                        || self.finish(step, group, sums),
                    )
                },
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
        let WindowSizes { batch, depth, .. } = self.inputs.sizes;
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
        let WindowSizes { batch, hidden, .. } = self.inputs.sizes;
        let start = vector * K::LANES + offset;
        if start >= hidden {
            return; // the last vector's second half
        }
        let width = CHUNK.min(hidden - start);
        let vectors = step.sublayer * (C::GATES + C::UNIT_WEIGHTS);
        for (gate, z) in products.iter_mut().enumerate().take(C::GATES) {
            *z = sum(*z, load(self.inputs.bias, (vectors + gate) * hidden + start, width));
        }
        let mut weights: UnitWeights<_> = [[K::Element::default(); CHUNK]; MOST_UNIT_WEIGHTS];
        for (index, weight) in weights.iter_mut().enumerate().take(C::UNIT_WEIGHTS) {
            *weight = load(self.inputs.bias, (vectors + C::GATES + index) * hidden + start, width);
        }
        let line = step.time * batch + row;
        let projected = (step.sublayer == 0).then(|| {
            let mut projected = [[K::Element::default(); CHUNK]; MOST_VALUES];
            for (input, x) in projected.iter_mut().enumerate().take(C::INPUTS) {
                *x = load(self.inputs.projected, (line * C::INPUTS + input) * hidden + start, width);
            }
            projected
        });
        let entered = C::STATES * self.vector(step.index, vector, row) * K::LANES + offset;
        // SAFETY: this worker's units; the state was written before the barrier.
        let mut state = unsafe { load_vectors::<K, MOST_STATES>(self.states, entered, C::STATES) };
        let saved = if K::FUSED {
            C::forward::<_, true>(products, projected, &weights, &mut state)
        } else {
            C::forward::<_, false>(products, projected, &weights, &mut state)
        };
        self.store(step, row, vector, offset, &saved, &state);
        if step.index + 1 < self.inputs.sizes.steps() {
            self.write_operands(step.index + 1, tile, row, start, width, state[0]);
        }
    }

    /// Stores what the cell saved and the state after the step.
    #[inline(always)]
    fn store(
        &self,
        step: Step,
        row: usize,
        vector: usize,
        offset: usize,
        saved: &Values<K::Element>,
        state: &States<K::Element>,
    ) {
        let WindowSizes { batch, hidden, depth, .. } = self.inputs.sizes;
        let start = vector * K::LANES + offset;
        let width = CHUNK.min(hidden - start);
        // SAFETY: this worker's units, which no other touches.
        unsafe {
            if let Some(record) = self.saved {
                let at = C::SAVED * self.vector(step.index, vector, row) * K::LANES + offset;
                store_vectors::<K, MOST_VALUES>(record, at, C::SAVED, saved);
            }
            if step.sublayer + 1 == depth {
                for (part, state) in state[..C::OUTPUTS].iter().enumerate() {
                    let at = ((step.time * batch + row) * C::OUTPUTS + part) * hidden + start;
                    store(self.outputs.part(at, width), state);
                }
            }
            if step.index + 1 < self.inputs.sizes.steps() {
                let next = C::STATES * self.vector(step.index + 1, vector, row) * K::LANES + offset;
                return store_vectors::<K, MOST_STATES>(self.states, next, C::STATES, state);
            }
            for (part, state) in state[1..C::STATES].iter().enumerate() {
                store(self.last.part((part * batch + row) * hidden + start, width), state);
            }
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
