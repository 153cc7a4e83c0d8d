//! A recurrence forward on the CPU: for every step and sublayer one product, and the cell's pointwise part while the
//! product's sums are in the cache.
//!
//! Threads own groups of panels, that is units; they wait for each other once a sublayer step. Where all weights stay in a
//! core's own cache they own batch rows instead, and wait for nobody.

use super::cell::{MOST_STATES, MOST_UNIT_WEIGHTS, MOST_VALUES, Pointwise, States, UnitWeights, Values};
use super::packed::vectors_together;
use super::window::{
    WindowInputs, WindowLayout, WindowOutputs, WindowRecord, WindowSizes, load_vectors, store_vectors,
};
use crate::cpu::chunk::{Chunk, fetch, load, multiply, store, sum};
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
    match K::LANES {
        16 => by_vectors::<K, C, 16>(weights, inputs, records, outputs),
        _ => by_vectors::<K, C, 8>(weights, inputs, records, outputs),
    }
}

/// With `N` = `K::LANES`, which no array's length can name.
fn by_vectors<K: Kernel, C: Pointwise, const N: usize>(
    weights: &dyn Weights<K>,
    inputs: &WindowInputs<'_, K::Element>,
    records: bool,
    outputs: WindowOutputs<'_, K::Element>,
) -> Option<WindowRecord<K::Element>> {
    assert_eq!(N, K::LANES, "units of a vector");
    let WindowSizes { time, batch, depth, hidden } = inputs.sizes;
    let (slots, steps) = if records { (depth, time) } else { (2, 1) };
    let layout = WindowLayout { vectors: hidden.div_ceil(K::LANES), rows: steps * batch };
    let len = layout.vector(slots, 0, 0) * K::LANES;
    let mut states = workspace::take::<K::Element>(C::STATES * len);
    let mut saved = workspace::take::<K::Element>(if records { C::SAVED * len } else { 0 });
    let mut operands = OperandBuffers::<K>::new(batch, weights.steps());
    let pass = Forward::<K, C, N> {
        weights,
        inputs,
        layout,
        states: Shared::new(&mut states),
        saved: records.then(|| Shared::new(&mut saved)),
        outputs: Shared::new(outputs.hidden),
        last: Shared::new(outputs.last),
        first_row: 0,
        operands: operands.shared(),
        cell: PhantomData,
    };
    pool::run(|worker| {
        if !owns_rows::<K, C>(inputs.sizes, worker) {
            return pass.run(worker);
        }
        let rows = worker.share(batch);
        let mut operands = OperandBuffers::<K>::new(rows.len(), weights.steps());
        let pass = Forward { first_row: rows.start, operands: operands.shared(), ..pass };
        worker.alone(|worker| pass.run(worker));
    });
    records.then(|| {
        let mask = inputs.mask.map(<[_]>::to_vec);
        WindowRecord { sizes: inputs.sizes, mask, layout, states, entered: Vec::new(), saved }
    })
}

/// Whether a worker takes batch rows of its own through all units: enough of them, all weights in a core's own cache, and no
/// gradient that sums over rows but those that can be summed up later.
pub(super) fn owns_rows<K: Kernel, C: Pointwise>(sizes: WindowSizes, worker: Worker<'_>) -> bool {
    /// Bytes of packed weights that stay in a core's second cache, 1 MiB on Zen 4.
    const NEAR: usize = 768 << 10;
    /// Batch rows that fill a register tile well.
    const ROWS: usize = 8;
    let WindowSizes { batch, depth, hidden, .. } = sizes;
    let weights = depth * K::steps(hidden) * C::GATES * hidden * size_of::<K::Column>();
    worker.count > 1 && weights <= NEAR && batch >= ROWS * worker.count && C::UNIT_WEIGHTS == 0
}

struct Forward<'a, K: Kernel, C, const N: usize> {
    weights: &'a dyn Weights<K>,
    inputs: &'a WindowInputs<'a, K::Element>,
    layout: WindowLayout,
    states: Shared<'a, K::Element>,
    saved: Option<Shared<'a, K::Element>>,
    outputs: Shared<'a, K::Element>,
    last: Shared<'a, K::Element>,
    /// The first of the batch rows that are taken through the window; there are as many as the operands have.
    first_row: usize,
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

/// A vector of units in a sublayer step, and what all batch rows share.
struct Units<T, const N: usize> {
    step: Step,
    /// The first unit.
    start: usize,
    /// How many there are.
    width: usize,
    /// Where the first batch row's values of this step are, in vectors, and those of the next if there is one.
    position: usize,
    next: Option<usize>,
    bias: Values<T, N>,
    weights: UnitWeights<T, N>,
}

impl<K: Kernel, C: Pointwise, const N: usize> Forward<'_, K, C, N> {
    fn run(&self, worker: Worker<'_>) {
        let depth = self.inputs.sizes.depth;
        let mut sums = self.weights.sums(self.operands.tiling.rows);
        self.first_state(worker);
        worker.barrier();
        for index in 0..self.inputs.sizes.steps() {
            let step = Step { time: index / depth, sublayer: index % depth, index };
            // SAFETY: they were written before the barrier, and are not written again before the next one.
            let operands = unsafe { self.operands.read(index) };
            let next_sublayer = (step.sublayer + 1) % depth;
            worker
                .share(self.weights.parts())
                .take(self.weights.ahead())
                .for_each(|group| self.prefetch(step, group));
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
            for place in tile.clone() {
                let row = self.first_row + place;
                for (vector, start) in (0..hidden).step_by(N).enumerate() {
                    let width = N.min(hidden - start);
                    let position = self.layout.vector(0, vector, row);
                    for part in 0..C::STATES {
                        let state: Chunk<_, N> = load(self.inputs.state[part], row * hidden + start, width);
                        // SAFETY: workers' tiles are disjoint, and are read only after a barrier.
                        store(unsafe { self.states.part((C::STATES * position + part) * N, N) }, &state);
                        if part == 0 {
                            self.write_operands(0, &tile, place, start, width, state);
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
        self.prefetch(step, group + self.weights.ahead());
        for (within, vector) in (group * together..self.layout.vectors).take(together).enumerate() {
            let units = self.units(step, vector);
            for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
                for place in tile.clone() {
                    let mut products = [[K::Element::default(); N]; MOST_VALUES];
                    for (gate, products) in products.iter_mut().enumerate().take(C::GATES) {
                        let index = within * C::GATES + gate;
                        let line = index / 2 * tiling.rows + place;
                        *products = load(sums, line * K::columns() + index % 2 * N, N);
                    }
                    self.row(&units, &tile, place, products);
                }
            }
        }
    }

    /// What all batch rows of a vector of units share in a step.
    #[inline(always)]
    fn units(&self, step: Step, vector: usize) -> Units<K::Element, N> {
        let hidden = self.inputs.sizes.hidden;
        let start = vector * N;
        let width = N.min(hidden - start);
        let vectors = step.sublayer * (C::GATES + C::UNIT_WEIGHTS);
        let mut bias = [[K::Element::default(); N]; MOST_VALUES];
        for (gate, bias) in bias.iter_mut().enumerate().take(C::GATES) {
            *bias = load(self.inputs.bias, (vectors + gate) * hidden + start, width);
        }
        let mut weights = [[K::Element::default(); N]; MOST_UNIT_WEIGHTS];
        for (index, weight) in weights.iter_mut().enumerate().take(C::UNIT_WEIGHTS) {
            *weight = load(self.inputs.bias, (vectors + C::GATES + index) * hidden + start, width);
        }
        let position = self.vector(step.index, vector);
        let last = step.index + 1 == self.inputs.sizes.steps();
        let next = (!last).then(|| self.vector(step.index + 1, vector));
        Units { step, start, width, position, next, bias, weights }
    }

    /// Prefetches what will be read and written of a group of panels that comes later.
    #[inline(always)]
    fn prefetch(&self, step: Step, group: usize) {
        let together = vectors_together::<C>();
        let WindowSizes { batch, hidden, .. } = self.inputs.sizes;
        let rows = self.operands.tiling.rows;
        for vector in (group * together..self.layout.vectors).take(together) {
            if let Some(saved) = self.saved {
                let now = self.vector(step.index, vector) + self.first_row;
                saved.fetch(C::SAVED * now * N, C::SAVED * rows * N);
                let next = self.vector(step.index + 1, vector) + self.first_row;
                self.states.fetch(C::STATES * next * N, C::STATES * rows * N);
            }
            for row in self.first_row..self.first_row + rows {
                if step.sublayer == 0 {
                    let first = (step.time * batch + row) * C::INPUTS;
                    (first..first + C::INPUTS)
                        .for_each(|line| fetch(self.inputs.projected, line * hidden + vector * N));
                }
                self.inputs.mask.inspect(|mask| fetch(mask, row * hidden + vector * N));
            }
            self.operands.fetch_for_writing(step.index + 1, vector * N / K::DEPTH, N / K::DEPTH);
        }
    }

    /// The position of a sublayer step's values of a vector of units and the first batch row, in vectors; the other rows'
    /// follow.
    #[inline(always)]
    fn vector(&self, index: usize, vector: usize) -> usize {
        let WindowSizes { batch, depth, .. } = self.inputs.sizes;
        let (slot, time) = if self.saved.is_some() { (index % depth, index / depth) } else { (index % 2, 0) };
        self.layout.vector(slot, vector, time * batch)
    }

    /// A vector of units of one batch row, which is at `place` among those of the operands.
    #[inline(always)]
    fn row(
        &self,
        units: &Units<K::Element, N>,
        tile: &Range<usize>,
        place: usize,
        mut products: Values<K::Element, N>,
    ) {
        let WindowSizes { batch, hidden, .. } = self.inputs.sizes;
        let row = self.first_row + place;
        for (z, bias) in products.iter_mut().zip(units.bias).take(C::GATES) {
            *z = sum(*z, bias);
        }
        let line = units.step.time * batch + row;
        let projected = (units.step.sublayer == 0).then(|| {
            let mut projected = [[K::Element::default(); N]; MOST_VALUES];
            for (input, x) in projected.iter_mut().enumerate().take(C::INPUTS) {
                let at = (line * C::INPUTS + input) * hidden + units.start;
                *x = load(self.inputs.projected, at, units.width);
            }
            projected
        });
        let entered = C::STATES * (units.position + row) * N;
        // SAFETY: this worker's units; the state was written before the barrier.
        let mut state = unsafe { load_vectors::<K, N, MOST_STATES>(self.states, entered, C::STATES) };
        let saved = if K::FUSED {
            C::forward::<_, N, true>(products, projected, &units.weights, &mut state)
        } else {
            C::forward::<_, N, false>(products, projected, &units.weights, &mut state)
        };
        self.store(units, row, &saved, &state);
        if units.next.is_some() {
            self.write_operands(units.step.index + 1, tile, place, units.start, units.width, state[0]);
        }
    }

    /// Stores what the cell saved and the state after the step.
    #[inline(always)]
    fn store(
        &self,
        units: &Units<K::Element, N>,
        row: usize,
        saved: &Values<K::Element, N>,
        state: &States<K::Element, N>,
    ) {
        let WindowSizes { batch, hidden, depth, .. } = self.inputs.sizes;
        let &Units { step, start, width, .. } = units;
        // SAFETY: this worker's units, which no other touches.
        unsafe {
            if let Some(record) = self.saved {
                let at = C::SAVED * (units.position + row) * N;
                store_vectors::<K, N, MOST_VALUES>(record, at, C::SAVED, saved);
            }
            if step.sublayer + 1 == depth {
                for (part, state) in state[..C::OUTPUTS].iter().enumerate() {
                    let at = ((step.time * batch + row) * C::OUTPUTS + part) * hidden + start;
                    store(self.outputs.part(at, width), state);
                }
            }
            if let Some(next) = units.next {
                let next = C::STATES * (next + row) * N;
                return store_vectors::<K, N, MOST_STATES>(self.states, next, C::STATES, state);
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
        place: usize,
        start: usize,
        width: usize,
        mut state: Chunk<K::Element, N>,
    ) {
        if let Some(mask) = self.inputs.mask {
            let row = self.first_row + place;
            state = multiply(state, load(mask, row * self.inputs.sizes.hidden + start, width));
        }
        // SAFETY: this worker's units, or tiles before the first product.
        unsafe { self.operands.write(index, tile, place, start / K::DEPTH, &state, width) };
    }
}
