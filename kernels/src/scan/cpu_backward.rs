//! A recurrence backward on the CPU: from the last sublayer step to the first, one product each, and the cell's
//! gradients of the step before it while the product's sums are in the cache; at the end one large product a sublayer
//! for all weights of the window.

use super::cell::{MOST_STATES, MOST_UNIT_WEIGHTS, MOST_VALUES, Pointwise, States, UnitWeights, Values};
use super::cpu_grads::{RecurrentGrad, gather, weight_grads, weight_products};
use super::in_place::{self, InPlace, Transposed};
use super::window::{WindowLayout, WindowRecord, WindowSizes, load_vectors, store_vectors};
use crate::cpu::chunk::{CHUNK, Chunk, load, multiply, store, sum};
use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::Computed;
use crate::cpu::packed::{OperandBuffers, PackedWeights, SharedOperands, Weights};
use crate::cpu::panels::View;
use crate::cpu::pool::{self, Worker};
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use crate::cpu::workspace;
use num_traits::Zero;
use std::marker::PhantomData;
use std::ops::Range;

/// The gradients of a window.
pub(crate) struct Grads<T> {
    pub(super) projected: Vec<T>,
    pub(super) recurrent: RecurrentGrad<T>,
    pub(super) bias: Vec<T>,
    /// Of the state before the first step, `(parts, batch, hidden)`, if it is wanted.
    pub(super) state: Option<Vec<T>>,
}

/// Which gradients of a window are wanted, and how.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// That of the recurrent weights as a product.
    pub(super) in_parts: bool,
    /// That of the state before the first step.
    pub(super) state: bool,
}

/// The gradients of the projected input, the weights and the biases, from that of the outputs, `(time, batch, outputs ·
/// hidden)`; `recurrent` is `(depth, hidden, gates · hidden)`, `bias` `(depth, (gates + unit weights) · hidden)`.
pub(crate) fn backward<K: Kernel<Element: Computed>, C: Pointwise>(
    mut record: WindowRecord<K::Element>,
    recurrent: &[K::Element],
    bias: &[K::Element],
    grad: &[K::Element],
    wanted: Wanted,
) -> Grads<K::Element> {
    let WindowSizes { time, batch, depth, hidden } = record.sizes;
    let mut carried = workspace::take(C::STATES * batch * hidden);
    carried.fill(K::Element::zero());
    let bias = if in_place::fits::<K>(time, batch) {
        let weights = Transposed(InPlace::new::<C>(recurrent, hidden));
        walk_back::<K, C>(&mut record, &weights, bias, grad, &mut carried)
    } else {
        let weights = pack_transposed::<K, C>(recurrent, depth, hidden);
        walk_back::<K, C>(&mut record, &weights, bias, grad, &mut carried)
    };
    let mut projected = vec![K::Element::zero(); time * batch * C::INPUTS * hidden];
    gather::<K>(&record.saved, C::SAVED, &C::PROJECTED[..C::INPUTS], &record, 0, &mut projected);
    let state = wanted.state.then(|| {
        add_first_product::<K, C>(&record, recurrent, &mut carried);
        carried.to_vec()
    });
    let recurrent = if wanted.in_parts {
        RecurrentGrad::Product(weight_products::<K, C>(&record))
    } else {
        RecurrentGrad::Whole(weight_grads::<K, C>(&record, &projected))
    };
    Grads { projected, recurrent, bias, state }
}

/// Adds to the gradient of the state before the first step, `carried` unit by unit, what the first product sends back.
fn add_first_product<K: Kernel<Element: Computed>, C: Pointwise>(
    record: &WindowRecord<K::Element>,
    recurrent: &[K::Element],
    carried: &mut [K::Element],
) {
    let WindowSizes { batch, hidden, .. } = record.sizes;
    let width = C::GATES * hidden;
    let gates: Vec<usize> = (0..C::GATES).collect();
    let mut grads = workspace::take(record.layout.rows * width);
    gather::<K>(&record.saved, C::SAVED, &gates, record, 0, &mut grads);
    let mut sent = vec![K::Element::zero(); batch * hidden];
    product(
        Target::new(&mut sent, batch, hidden),
        View::new(&grads[..batch * width], batch, width),
        View::new(&recurrent[..hidden * width], hidden, width).t(),
        false,
        K::DEPTH == 2,
    );
    for (at, (carried, sent)) in carried.iter_mut().zip(sent).enumerate() {
        *carried += record.mask.as_ref().map_or(sent, |mask| sent * mask[at]);
    }
}

/// The recurrent weights, packed for products with their transposes.
fn pack_transposed<K: Kernel, C: Pointwise>(
    recurrent: &[K::Element],
    depth: usize,
    hidden: usize,
) -> PackedWeights<K> {
    let width = C::GATES * hidden;
    let part = |sublayer: usize, panel: usize, gate: usize, half: usize| {
        let matrix = View::new(&recurrent[sublayer * hidden * width..][..hidden * width], hidden, width).t();
        let start = (panel * K::columns() + half * K::LANES).min(hidden);
        matrix.rows(gate * hidden, hidden).columns(start, K::LANES.min(hidden - start))
    };
    let inner = &[hidden; MOST_VALUES][..C::GATES];
    PackedWeights::pack(depth, hidden.div_ceil(K::columns()), inner, part)
}

/// Saved values become gradients, and the states that entered sublayers what entered their products; `carried`, zero
/// before, becomes what goes back unit by unit to the state before the first step. Returns the gradient of the biases.
fn walk_back<K: Kernel, C: Pointwise>(
    record: &mut WindowRecord<K::Element>,
    weights: &dyn Weights<K>,
    bias: &[K::Element],
    grad: &[K::Element],
    carried: &mut [K::Element],
) -> Vec<K::Element> {
    let WindowSizes { batch, depth, hidden, .. } = record.sizes;
    let mut bias_grad = vec![K::Element::zero(); depth * (C::GATES + C::UNIT_WEIGHTS) * hidden];
    let mut operands = OperandBuffers::<K>::new(batch, weights.steps());
    let pass = Backward::<K, C> {
        weights,
        sizes: record.sizes,
        layout: record.layout,
        mask: record.mask.as_deref(),
        bias,
        grad,
        states: Shared::new(&mut record.states),
        saved: Shared::new(&mut record.saved),
        carried: Shared::new(carried),
        bias_grad: Shared::new(&mut bias_grad),
        operands: operands.shared(),
        cell: PhantomData,
    };
    pool::run(|worker| pass.run(worker));
    bias_grad
}

struct Backward<'a, K: Kernel, C> {
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
    bias_grad: Shared<'a, K::Element>,
    operands: SharedOperands<'a, K>,
    cell: PhantomData<C>,
}

impl<K: Kernel, C: Pointwise> Backward<'_, K, C> {
    fn run(&self, worker: Worker<'_>) {
        let WindowSizes { batch, depth, .. } = self.sizes;
        let last = self.sizes.steps() - 1;
        let mut sums = self.weights.sums(batch);
        self.last_step(last, worker);
        worker.barrier();
        for index in (1..=last).rev() {
            // SAFETY: they were written before the barrier, and are not written again before the next one.
            let operands = unsafe { self.operands.read(index) };
            let next_sublayer = (index - 1) % depth;
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
        let zeros = vec![K::Element::zero(); self.sizes.batch * K::columns()];
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
        self.prefetch(index, 2 * (panel + self.weights.ahead()));
        let tiling = self.operands.tiling;
        for (half, vector) in (2 * panel..self.layout.vectors).take(2).enumerate() {
            for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
                for row in tile.clone() {
                    for offset in (0..K::LANES).step_by(CHUNK) {
                        let sums = load(sums, row * K::columns() + half * K::LANES + offset, CHUNK);
                        self.chunk(index, &tile, row, vector, offset, sums);
                    }
                }
            }
        }
    }

    /// Prefetches what will be read of a panel that comes later, from this vector on.
    #[inline(always)]
    fn prefetch(&self, index: usize, vector: usize) {
        let WindowSizes { batch, depth, .. } = self.sizes;
        for vector in (vector..self.layout.vectors).take(2) {
            let at = self.layout.vector(index % depth, vector, index / depth * batch);
            self.states.fetch(C::STATES * at * K::LANES, C::STATES * batch * K::LANES);
            self.saved.fetch(C::SAVED * at * K::LANES, C::SAVED * batch * K::LANES);
        }
    }

    /// Some units of one batch row, `offset` after the vector's first.
    #[inline(always)]
    fn chunk(
        &self,
        index: usize,
        tile: &Range<usize>,
        row: usize,
        vector: usize,
        offset: usize,
        sums: Chunk<K::Element>,
    ) {
        let WindowSizes { batch, depth, hidden, .. } = self.sizes;
        let time = index / depth;
        let sublayer = index % depth;
        let start = vector * K::LANES + offset;
        if start >= hidden {
            return; // the last vector's second half
        }
        let width = CHUNK.min(hidden - start);
        let at = row * hidden + start;
        let position = self.layout.vector(sublayer, vector, time * batch + row);
        let state_at = C::STATES * position * K::LANES + offset;
        let saved_at = C::SAVED * position * K::LANES + offset;
        let mask = self.mask.map(|mask| load(mask, at, width));
        let mut grads = self.sent_back(index, at, width, sums, mask);
        // SAFETY: this worker's units, which no other touches until all have finished.
        let state = unsafe { load_vectors::<K, MOST_STATES>(self.states, state_at, C::STATES) };
        // SAFETY: as above.
        let mut saved = unsafe { load_vectors::<K, MOST_VALUES>(self.saved, saved_at, C::SAVED) };
        if sublayer + 1 == depth {
            for (part, sent) in grads[..C::OUTPUTS].iter_mut().enumerate() {
                let line = (time * batch + row) * C::OUTPUTS + part;
                *sent = sum(*sent, load(self.grad, line * hidden + start, width));
            }
        }
        let mut weights = self.unit_weights(sublayer, start, width);
        let carried = if K::FUSED {
            C::backward::<_, true>(grads, state, &mut weights, &mut saved, sublayer == 0)
        } else {
            C::backward::<_, false>(grads, state, &mut weights, &mut saved, sublayer == 0)
        };
        // SAFETY: as above.
        unsafe {
            store_vectors::<K, MOST_VALUES>(self.saved, saved_at, C::SAVED, &saved);
            if let Some(mask) = mask {
                store(self.states.part(state_at, CHUNK), &multiply(state[0], mask));
            }
        }
        self.pass_on(index, tile, row, start, &carried, &saved);
        for (weight, grad) in weights.iter().enumerate().take(C::UNIT_WEIGHTS) {
            self.add_to_bias(sublayer, C::GATES + weight, start, grad);
        }
    }

    /// The weights that act unit by unit.
    #[inline(always)]
    fn unit_weights(&self, sublayer: usize, start: usize, width: usize) -> UnitWeights<K::Element> {
        let mut weights = [[K::Element::zero(); CHUNK]; MOST_UNIT_WEIGHTS];
        for (index, weight) in weights.iter_mut().enumerate().take(C::UNIT_WEIGHTS) {
            *weight = load(self.bias, self.vector_at(sublayer, C::GATES + index, start), width);
        }
        weights
    }

    /// Where the units from `start` on are in vector `index` of a sublayer's biases and unit weights.
    #[inline(always)]
    fn vector_at(&self, sublayer: usize, index: usize, start: usize) -> usize {
        ((C::GATES + C::UNIT_WEIGHTS) * sublayer + index) * self.sizes.hidden + start
    }

    /// Adds a batch row's share to the gradient of vector `index` of a sublayer's biases and unit weights.
    #[inline(always)]
    fn add_to_bias(&self, sublayer: usize, index: usize, start: usize, grad: &Chunk<K::Element>) {
        let width = CHUNK.min(self.sizes.hidden - start);
        // SAFETY: this worker's units, which no other touches until all have finished.
        let bias = unsafe { self.bias_grad.part(self.vector_at(sublayer, index, start), width) };
        store(bias, &sum(load(bias, 0, width), *grad));
    }

    /// The gradient of the state after sublayer step `index`, but for that of the outputs: what was carried back unit
    /// by unit, and `sums` of the product after the step.
    #[inline(always)]
    fn sent_back(
        &self,
        index: usize,
        at: usize,
        width: usize,
        sums: Chunk<K::Element>,
        mask: Option<Chunk<K::Element>>,
    ) -> States<K::Element> {
        let mut grads = [[K::Element::zero(); CHUNK]; MOST_STATES];
        if index + 1 < self.sizes.steps() {
            for (part, grad) in grads.iter_mut().enumerate().take(C::STATES).filter(|(p, _)| carries::<C>(*p))
            {
                // SAFETY: this worker's units, which no other touches until all have finished.
                *grad = load(unsafe { self.carried.part(self.carried_at(part, at), width) }, 0, width);
            }
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
        index: usize,
        tile: &Range<usize>,
        row: usize,
        start: usize,
        carried: &States<K::Element>,
        grads: &Values<K::Element>,
    ) {
        let WindowSizes { depth, hidden, .. } = self.sizes;
        let width = CHUNK.min(hidden - start);
        let at = row * hidden + start;
        // SAFETY: this worker's units, which no other touches until all have finished.
        unsafe {
            for (part, carried) in
                carried.iter().enumerate().take(C::STATES).filter(|(p, _)| carries::<C>(*p))
            {
                store(self.carried.part(self.carried_at(part, at), width), carried);
            }
            for (gate, grad) in grads.iter().enumerate().take(C::GATES) {
                self.add_to_bias(index % depth, gate, start, grad);
                let step = gate * K::steps(hidden) + start / K::DEPTH;
                self.operands.write(index, tile, row, step, grad, width);
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
