//! The walk of a backward pass on the CPU: from the last sublayer step to the first, one product each, and the cell's
//! gradients of the step before it while the product's sums are in the cache.

use super::cell::{MOST_STATES, MOST_UNIT_WEIGHTS, MOST_VALUES, Pointwise, States, UnitWeights, Values};
use super::cpu::owns_rows;
use super::window::{WindowLayout, WindowRecord, WindowSizes, load_vectors, store_vectors};
use crate::cpu::chunk::{Chunk, fetch, load, multiply, store, sum};
use crate::cpu::packed::{OperandBuffers, SharedOperands, Weights};
use crate::cpu::pool::{self, Worker};
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use num_traits::Zero;
use std::marker::PhantomData;
use std::ops::Range;

/// Saved values become gradients, and the states that entered sublayers what entered their products; `carried`, the gradient
/// of the state after the last step but for that of its output, becomes what goes back unit by unit to the state before the
/// first step. Adds to `bias_grad`, that of the biases.
pub(super) fn walk_back<K: Kernel, C: Pointwise>(
    record: &mut WindowRecord<K::Element>,
    weights: &dyn Weights<K>,
    bias: &[K::Element],
    grad: &[K::Element],
    carried: &mut [K::Element],
    bias_grad: &mut [K::Element],
) {
    match K::LANES {
        16 => walk_by_vectors::<K, C, 16>(record, weights, bias, grad, carried, bias_grad),
        _ => walk_by_vectors::<K, C, 8>(record, weights, bias, grad, carried, bias_grad),
    }
}

/// With `N` = `K::LANES`, which no array's length can name.
fn walk_by_vectors<K: Kernel, C: Pointwise, const N: usize>(
    record: &mut WindowRecord<K::Element>,
    weights: &dyn Weights<K>,
    bias: &[K::Element],
    grad: &[K::Element],
    carried: &mut [K::Element],
    bias_grad: &mut [K::Element],
) {
    assert_eq!(N, K::LANES, "units of a vector");
    let batch = record.sizes.batch;
    let mut operands = OperandBuffers::<K>::new(batch, weights.steps());
    let pass = Backward::<K, C, N> {
        weights,
        sizes: record.sizes,
        layout: record.layout,
        mask: record.mask.as_deref(),
        bias,
        grad,
        states: Shared::new(&mut record.states),
        saved: Shared::new(&mut record.saved),
        carried: Shared::new(carried),
        bias_grad: Some(Shared::new(bias_grad)),
        first_row: 0,
        operands: operands.shared(),
        cell: PhantomData,
    };
    pool::run(|worker| {
        if !owns_rows::<K, C>(pass.sizes, worker) {
            return pass.run(worker);
        }
        let rows = worker.share(batch);
        let mut operands = OperandBuffers::<K>::new(rows.len(), weights.steps());
        let of_rows =
            Backward { bias_grad: None, first_row: rows.start, operands: operands.shared(), ..pass };
        worker.alone(|worker| of_rows.run(worker));
        worker.barrier();
        pass.sum_bias_grads(worker);
    });
}

struct Backward<'a, K: Kernel, C, const N: usize> {
    weights: &'a dyn Weights<K>,
    sizes: WindowSizes,
    layout: WindowLayout,
    mask: Option<&'a [K::Element]>,
    bias: &'a [K::Element],
    grad: &'a [K::Element],
    states: Shared<'a, K::Element>,
    saved: Shared<'a, K::Element>,
    /// `(parts, batch, hidden)`: the gradient of the state that goes back unit by unit.
    carried: Shared<'a, K::Element>,
    /// Where the biases' gradients go; none where they are summed up later, from the record.
    bias_grad: Option<Shared<'a, K::Element>>,
    /// The first of the batch rows that are taken through the window; there are as many as the operands have.
    first_row: usize,
    operands: SharedOperands<'a, K>,
    cell: PhantomData<C>,
}

/// A vector of units in a sublayer step, and what all batch rows share.
struct Units<T, const N: usize> {
    index: usize,
    time: usize,
    sublayer: usize,
    /// The first unit.
    start: usize,
    /// How many there are.
    width: usize,
    /// Where the first batch row's values of this step are, in vectors.
    position: usize,
    weights: UnitWeights<T, N>,
    /// The gradients of the biases and of the weights, so far.
    bias_grad: Values<T, N>,
    weight_grads: UnitWeights<T, N>,
}

impl<K: Kernel, C: Pointwise, const N: usize> Backward<'_, K, C, N> {
    fn run(&self, worker: Worker<'_>) {
        let depth = self.sizes.depth;
        let last = self.sizes.steps() - 1;
        let mut sums = self.weights.sums(self.operands.tiling.rows);
        self.last_step(last, worker);
        worker.barrier();
        for index in (1..=last).rev() {
            // SAFETY: they were written before the barrier, and are not written again before the next one.
            let operands = unsafe { self.operands.read(index) };
            let next_sublayer = (index - 1) % depth;
            let first = worker.share(self.weights.parts()).take(self.weights.ahead());
            first.for_each(|panel| self.prefetch(index - 1, panel));
            self.weights.multiply(
                index % depth,
                next_sublayer,
                operands,
                worker,
                &mut sums,
                &mut |panel, sums| {
                    K::vectorized(
                        #[inline(always)]
                        || self.finish(index - 1, panel, sums),
                    )
                },
            );
            worker.barrier();
        }
    }

    /// The last sublayer step, by this worker's panels.
    fn last_step(&self, last: usize, worker: Worker<'_>) {
        let zeros = vec![K::Element::zero(); self.operands.tiling.rows * K::columns()];
        for panel in worker.share(self.weights.parts()) {
            K::vectorized(
                #[inline(always)]
                || self.finish(last, panel, &zeros),
            );
        }
    }

    /// A panel's units, at sublayer step `index`: `sums` is what the product after it sends back.
    #[inline(always)]
    fn finish(&self, index: usize, panel: usize, sums: &[K::Element]) {
        self.prefetch(index, panel + self.weights.ahead());
        let tiling = self.operands.tiling;
        for (half, vector) in (2 * panel..self.layout.vectors).take(2).enumerate() {
            let mut units = self.units(index, vector);
            for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
                for place in tile.clone() {
                    let sums = load(sums, place * K::columns() + half * N, N);
                    self.row(&mut units, &tile, place, sums);
                }
            }
            self.store_bias_grads(&units);
        }
    }

    /// Prefetches what will be read of a panel that comes later.
    #[inline(always)]
    fn prefetch(&self, index: usize, panel: usize) {
        let WindowSizes { batch, depth, hidden, .. } = self.sizes;
        let line = index / depth * batch;
        let rows = self.operands.tiling.rows;
        for vector in (2 * panel..self.layout.vectors).take(2) {
            let at = self.layout.vector(index % depth, vector, line + self.first_row);
            self.states.fetch(C::STATES * at * N, C::STATES * rows * N);
            self.saved.fetch(C::SAVED * at * N, C::SAVED * rows * N);
            for row in self.first_row..self.first_row + rows {
                if index % depth + 1 == depth {
                    let first = (line + row) * C::OUTPUTS;
                    (first..first + C::OUTPUTS).for_each(|line| fetch(self.grad, line * hidden + vector * N));
                }
                self.mask.inspect(|mask| fetch(mask, row * hidden + vector * N));
            }
            for gate in 0..C::GATES {
                let step = gate * K::steps(hidden) + vector * N / K::DEPTH;
                self.operands.fetch_for_writing(index, step, N / K::DEPTH);
            }
        }
    }

    /// What all batch rows of a vector of units share in a step.
    #[inline(always)]
    fn units(&self, index: usize, vector: usize) -> Units<K::Element, N> {
        let WindowSizes { batch, depth, hidden, .. } = self.sizes;
        let time = index / depth;
        let sublayer = index % depth;
        let start = vector * N;
        let width = N.min(hidden - start);
        let position = self.layout.vector(sublayer, vector, time * batch);
        let at = |vector: usize| ((C::GATES + C::UNIT_WEIGHTS) * sublayer + vector) * hidden + start;
        let mut weights = [[K::Element::zero(); N]; MOST_UNIT_WEIGHTS];
        let mut weight_grads = weights;
        let mut bias_grad = [[K::Element::zero(); N]; MOST_VALUES];
        for (index, weights) in weights.iter_mut().enumerate().take(C::UNIT_WEIGHTS) {
            *weights = load(self.bias, at(C::GATES + index), width);
        }
        if let Some(so_far) = self.bias_grad {
            // SAFETY: this worker's units, which no other touches until all have finished.
            let so_far = |vector: usize| load(unsafe { so_far.part(at(vector), width) }, 0, width);
            for (gate, grad) in bias_grad.iter_mut().enumerate().take(C::GATES) {
                *grad = so_far(gate);
            }
            for (index, grad) in weight_grads.iter_mut().enumerate().take(C::UNIT_WEIGHTS) {
                *grad = so_far(C::GATES + index);
            }
        }
        Units { index, time, sublayer, start, width, position, weights, bias_grad, weight_grads }
    }

    /// Gives back the gradients of the biases and unit weights, with all batch rows' share in them.
    #[inline(always)]
    fn store_bias_grads(&self, units: &Units<K::Element, N>) {
        let Some(bias_grad) = self.bias_grad else { return };
        let first = (C::GATES + C::UNIT_WEIGHTS) * units.sublayer;
        let grads = units.bias_grad[..C::GATES].iter().chain(&units.weight_grads[..C::UNIT_WEIGHTS]);
        for (vector, grad) in grads.enumerate() {
            let at = (first + vector) * self.sizes.hidden + units.start;
            // SAFETY: this worker's units, which no other touches until all have finished.
            store(unsafe { bias_grad.part(at, units.width) }, grad);
        }
    }

    /// The biases' gradients from those of all steps in the record, in the order in which [`Backward::row`] adds them.
    fn sum_bias_grads(&self, worker: Worker<'_>) {
        let WindowSizes { time, batch, depth, .. } = self.sizes;
        let vectors = self.layout.vectors;
        for (sublayer, vector) in worker.share(depth * vectors).map(|at| (at / vectors, at % vectors)) {
            let mut units = self.units(sublayer, vector);
            for line in (0..time).rev().flat_map(|time| time * batch..(time + 1) * batch) {
                let at = C::SAVED * self.layout.vector(sublayer, vector, line) * N;
                K::vectorized(
                    #[inline(always)]
                    || {
                        // SAFETY: after the barrier no worker writes them.
                        let grads = unsafe { load_vectors::<K, N, MOST_VALUES>(self.saved, at, C::GATES) };
                        let totals = units.bias_grad.iter_mut().zip(grads).take(C::GATES);
                        totals.for_each(|(total, grad)| *total = sum(*total, grad));
                    },
                );
            }
            self.store_bias_grads(&units);
        }
    }

    /// A vector of units of one batch row, which is at `place` among those of the operands.
    #[inline(always)]
    fn row(
        &self,
        units: &mut Units<K::Element, N>,
        tile: &Range<usize>,
        place: usize,
        sums: Chunk<K::Element, N>,
    ) {
        let WindowSizes { batch, depth, hidden, .. } = self.sizes;
        let row = self.first_row + place;
        let &mut Units { index, time, sublayer, start, width, position, .. } = units;
        let at = row * hidden + start;
        let state_at = C::STATES * (position + row) * N;
        let saved_at = C::SAVED * (position + row) * N;
        let mask = self.mask.map(|mask| load(mask, at, width));
        let mut grads = self.sent_back(index, at, width, sums, mask);
        // SAFETY: this worker's units, which no other touches until all have finished.
        let state = unsafe { load_vectors::<K, N, MOST_STATES>(self.states, state_at, C::STATES) };
        // SAFETY: as above.
        let mut saved = unsafe { load_vectors::<K, N, MOST_VALUES>(self.saved, saved_at, C::SAVED) };
        if sublayer + 1 == depth {
            for (part, sent) in grads[..C::OUTPUTS].iter_mut().enumerate() {
                let line = (time * batch + row) * C::OUTPUTS + part;
                *sent = sum(*sent, load(self.grad, line * hidden + start, width));
            }
        }
        let mut weights = units.weights;
        let carried = if K::FUSED {
            C::backward::<_, N, true>(grads, state, &mut weights, &mut saved, sublayer == 0)
        } else {
            C::backward::<_, N, false>(grads, state, &mut weights, &mut saved, sublayer == 0)
        };
        // SAFETY: as above.
        unsafe {
            store_vectors::<K, N, MOST_VALUES>(self.saved, saved_at, C::SAVED, &saved);
            if let Some(mask) = mask {
                store(self.states.part(state_at, N), &multiply(state[0], mask));
            }
        }
        self.pass_on(units, tile, place, &carried, &saved);
        for (total, grad) in units.weight_grads.iter_mut().zip(weights).take(C::UNIT_WEIGHTS) {
            *total = sum(*total, grad);
        }
    }

    /// The gradient of the state after sublayer step `index`, but for that of the outputs: what was carried back unit
    /// by unit, and `sums` of the product after the step. After the last step all of it was carried.
    #[inline(always)]
    fn sent_back(
        &self,
        index: usize,
        at: usize,
        width: usize,
        sums: Chunk<K::Element, N>,
        mask: Option<Chunk<K::Element, N>>,
    ) -> States<K::Element, N> {
        let mut grads = [[K::Element::zero(); N]; MOST_STATES];
        let is_last = index + 1 == self.sizes.steps();
        for (part, grad) in grads.iter_mut().enumerate().take(C::STATES) {
            if is_last || carries::<C>(part) {
                // SAFETY: this worker's units, which no other touches until all have finished.
                *grad = load(unsafe { self.carried.part(self.carried_at(part, at), width) }, 0, width);
            }
        }
        if !is_last {
            let sent = mask.map_or(sums, |mask| multiply(sums, mask));
            grads[0] = if C::CARRIES_OUTPUT { sum(grads[0], sent) } else { sent };
        }
        grads
    }

    /// What a step's units give to the step before: the gradient carried back unit by unit, the operands of the next
    /// product, and their share of the biases' gradient.
    #[inline(always)]
    fn pass_on(
        &self,
        units: &mut Units<K::Element, N>,
        tile: &Range<usize>,
        place: usize,
        carried: &States<K::Element, N>,
        grads: &Values<K::Element, N>,
    ) {
        let hidden = self.sizes.hidden;
        let &mut Units { index, start, width, .. } = units;
        let at = (self.first_row + place) * hidden + start;
        // SAFETY: this worker's units, which no other touches until all have finished.
        unsafe {
            for (part, carried) in
                carried.iter().enumerate().take(C::STATES).filter(|(p, _)| carries::<C>(*p))
            {
                store(self.carried.part(self.carried_at(part, at), width), carried);
            }
            for (gate, grad) in grads.iter().enumerate().take(C::GATES) {
                units.bias_grad[gate] = sum(units.bias_grad[gate], *grad);
                let step = gate * K::steps(hidden) + start / K::DEPTH;
                self.operands.write(index, tile, place, step, grad, width);
            }
        }
    }

    /// The position of element `at` of `(batch, hidden)` in a part of `carried`.
    #[inline(always)]
    fn carried_at(&self, part: usize, at: usize) -> usize {
        part * self.sizes.batch * self.sizes.hidden + at
    }
}

/// Whether a part of the state reaches the next step unit by unit.
#[inline(always)]
fn carries<C: Pointwise>(part: usize) -> bool {
    part > 0 || C::CARRIES_OUTPUT
}
