//! The LSTM recurrence forward: for every time step one product, and the gates while its sums are near.
//!
//! A pair of panels has i beside o and f beside g of the same vector of units, so that its sums are all that the
//! update of these units needs. Threads own units; they meet once a time step.

use crate::cpu::panels::View;
use crate::cpu::pool::{self, Worker};
use crate::cpu::real::{Real, sigmoid};
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, Work};
use crate::cpu::workspace::{self, Buffer};
use crate::scan::weights::{CHUNK, Chunk, SharedTurns, Turns, Weights, load, multiply, store, sum};
use std::ops::Range;

/// Sizes of a window.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) time: usize,
    pub(crate) batch: usize,
    pub(crate) hidden: usize,
}

impl Sizes {
    /// Room for [`Outputs`].
    pub(crate) fn zeros<T: Real>(&self) -> (Vec<T>, Vec<T>) {
        let state = self.batch * self.hidden;
        (vec![T::zero(); self.time * state], vec![T::zero(); state])
    }
}

/// Row-major; shapes as in [`mod@crate::scan::lstm_op`].
pub(crate) struct Inputs<'a, T> {
    pub(crate) projected: &'a [T],
    pub(crate) bias: &'a [T],
    /// h and c.
    pub(crate) state: [&'a [T]; 2],
    pub(crate) mask: Option<&'a [T]>,
    pub(crate) sizes: Sizes,
}

/// Where results go.
pub(crate) struct Outputs<'a, T> {
    /// `(time, batch, hidden)`: h after each time step.
    pub(crate) hidden: &'a mut [T],
    /// `(batch, hidden)`: c after the last one.
    pub(crate) cell: &'a mut [T],
}

/// Values of every time step, for the backward pass.
pub(crate) struct Record<T: Real> {
    pub(crate) sizes: Sizes,
    pub(crate) mask: Option<Vec<T>>,
    /// `(time, batch, hidden)`: h as it enters the product, masked.
    pub(crate) entered: Buffer<T>,
    /// `(time + 1, batch, hidden)`: c before the first step and after each.
    pub(crate) cells: Buffer<T>,
    /// `(time, batch, 4 hidden)`: i, o, f and g.
    pub(crate) gates: Vec<T>,
}

/// The recurrent weights `(hidden, 4 hidden)` packed for [`forward`].
pub(crate) struct Packed<K: Kernel>(Weights<K>);

impl<K: Kernel> Packed<K> {
    /// Packs them.
    pub(crate) fn new(recurrent: &[K::Element], hidden: usize) -> Self {
        let matrix = View::new(recurrent, hidden, 4 * hidden);
        let part = |_sublayer: usize, panel: usize, _section: usize, half: usize| {
            let (pair, gate) = (panel / 2, panel % 2 * 2 + half);
            let start = pair * K::LANES;
            matrix.columns(gate * hidden + start, K::LANES.min(hidden - start))
        };
        Self(Weights::pack(1, 2 * hidden.div_ceil(K::LANES), &[hidden], part).in_pairs())
    }
}

/// From the projected inputs of all time steps; returns the record if it is wanted.
pub(crate) fn forward<K: Kernel>(
    weights: &Packed<K>,
    inputs: &Inputs<'_, K::Element>,
    records: bool,
    outputs: Outputs<'_, K::Element>,
) -> Option<Record<K::Element>> {
    let Sizes { time, batch, hidden } = inputs.sizes;
    let state_len = batch * hidden;
    let slots = if records { time } else { 0 };
    let mut entered = workspace::take(slots * state_len);
    let mut gates = vec![K::Element::default(); 4 * slots * state_len];
    let mut cells = workspace::take((slots + 1) * state_len);
    cells[..state_len].copy_from_slice(inputs.state[1]);
    let mut turns = Turns::<K>::new(batch, weights.0.steps);
    let pass = Forward::<K> {
        weights: &weights.0,
        inputs,
        outputs: Shared::new(outputs.hidden),
        cells: Shared::new(&mut cells),
        record: records.then(|| [Shared::new(&mut entered), Shared::new(&mut gates)]),
        operands: turns.shared(),
    };
    pool::run(|worker| pass.run(worker));
    outputs.cell.copy_from_slice(&cells[slots * state_len..]);
    records.then(|| {
        let mask = inputs.mask.map(<[_]>::to_vec);
        Record { sizes: inputs.sizes, mask, entered, cells, gates }
    })
}

struct Forward<'a, K: Kernel> {
    weights: &'a Weights<K>,
    inputs: &'a Inputs<'a, K::Element>,
    outputs: Shared<'a, K::Element>,
    /// One slot that moves on, or one more than there are steps if there is a record.
    cells: Shared<'a, K::Element>,
    /// What enters the products, and the gates.
    record: Option<[Shared<'a, K::Element>; 2]>,
    operands: SharedTurns<'a, K>,
}

/// What is done with a pair's sums.
struct Finish<'a, K: Kernel> {
    pass: &'a Forward<'a, K>,
    step: usize,
    pair: usize,
    sums: &'a [K::Element],
}

impl<K: Kernel> Work for Finish<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.pass.finish(self.step, self.pair, self.sums);
    }
}

impl<K: Kernel> Forward<'_, K> {
    fn run(&self, worker: Worker<'_>) {
        let Sizes { time, batch, .. } = self.inputs.sizes;
        let mut sums = self.weights.sums(batch);
        self.first_operands(worker);
        worker.barrier();
        for step in 0..time {
            // SAFETY: written before the workers met, and not again until they meet once more.
            let operands = unsafe { self.operands.read(step) };
            self.weights.multiply(0, 0, operands, worker, &mut sums, |pair, sums| {
                K::vectorized(Finish { pass: self, step, pair, sums });
            });
            worker.barrier();
        }
    }

    /// The first state's operands.
    fn first_operands(&self, worker: Worker<'_>) {
        let (hidden, tiling) = (self.inputs.sizes.hidden, self.operands.tiling);
        for tile in worker.share(tiling.count).map(|index| tiling.tile(index)) {
            for lane in tile.clone() {
                for start in (0..hidden).step_by(CHUNK) {
                    let width = CHUNK.min(hidden - start);
                    let state = load(self.inputs.state[0], lane * hidden + start, width);
                    self.enter(0, &tile, lane, start, width, state);
                }
            }
        }
    }

    /// A pair's units: gates, the state after the step, and the next product's operands.
    #[inline(always)]
    fn finish(&self, step: usize, pair: usize, sums: &[K::Element]) {
        let (io, fg) = sums.split_at(sums.len() / 2);
        let tiling = self.operands.tiling;
        for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
            for lane in tile.clone() {
                for offset in (0..K::LANES).step_by(CHUNK) {
                    let at = lane * K::columns() + offset;
                    let two = |sums: &[K::Element]| [load(sums, at, CHUNK), load(sums, at + K::LANES, CHUNK)];
                    let ([i, o], [f, g]) = (two(io), two(fg));
                    self.chunk(step, &tile, lane, pair * K::LANES + offset, [i, o, f, g]);
                }
            }
        }
    }

    /// Some units of one lane, from their products.
    #[inline(always)]
    fn chunk(
        &self,
        step: usize,
        tile: &Range<usize>,
        lane: usize,
        start: usize,
        mut gates: [Chunk<K::Element>; 4],
    ) {
        let Sizes { time, batch, hidden } = self.inputs.sizes;
        if start >= hidden {
            return; // the last vector's second half
        }
        let (width, line) = (CHUNK.min(hidden - start), step * batch + lane);
        let gate_at = |gate: usize| (4 * line + gate) * hidden + start;
        for (gate, values) in gates.iter_mut().enumerate() {
            let x = load(self.inputs.projected, gate_at(gate), width);
            *values = sum(sum(*values, load(self.inputs.bias, gate * hidden + start, width)), x);
        }
        let cell_at = |step: usize| {
            let slot = if self.record.is_some() { step * batch } else { 0 };
            (slot + lane) * hidden + start
        };
        // SAFETY: this worker's units, which no other touches.
        let cell = load(unsafe { self.cells.read(cell_at(step), width) }, 0, width);
        let (cell, next) = if K::FUSED {
            advance::<_, true>(&mut gates, cell)
        } else {
            advance::<_, false>(&mut gates, cell)
        };
        // SAFETY: as above.
        unsafe {
            store(self.cells.part(cell_at(step + 1), width), &cell);
            store(self.outputs.part(line * hidden + start, width), &next);
            if let Some([_, record]) = &self.record {
                for (gate, values) in gates.iter().enumerate() {
                    store(record.part(gate_at(gate), width), values);
                }
            }
        }
        if step + 1 < time {
            self.enter(step + 1, tile, lane, start, width, next);
        }
    }

    /// The masked state of some units as it enters the product of `step`, recorded and as operands.
    #[inline(always)]
    fn enter(
        &self,
        step: usize,
        tile: &Range<usize>,
        lane: usize,
        start: usize,
        width: usize,
        mut state: Chunk<K::Element>,
    ) {
        let Sizes { batch, hidden, .. } = self.inputs.sizes;
        let at = lane * hidden + start;
        if let Some(mask) = self.inputs.mask {
            state = multiply(state, load(mask, at, width));
        }
        // SAFETY: this worker's units, or tiles before the first product.
        unsafe {
            self.operands.write(step, tile, lane, start / K::DEPTH, &state, width);
            if let Some([entered, _]) = &self.record {
                store(entered.part(step * batch * hidden + at, width), &state);
            }
        }
    }
}

/// Pre-activations of i, o, f and g become gates; the cell after the step, and the state that leaves.
#[inline(always)]
fn advance<T: Real, const FUSED: bool>(
    gates: &mut [Chunk<T>; 4],
    mut cell: Chunk<T>,
) -> (Chunk<T>, Chunk<T>) {
    let mut next = cell;
    let [i, o, f, g] = gates;
    for k in 0..CHUNK {
        i[k] = sigmoid::<T, FUSED>(i[k]);
        o[k] = sigmoid::<T, FUSED>(o[k]);
        f[k] = sigmoid::<T, FUSED>(f[k]);
        g[k] = g[k].fast_tanh::<FUSED>();
        cell[k] = f[k] * cell[k] + i[k] * g[k];
        next[k] = o[k] * cell[k].fast_tanh::<FUSED>();
    }
    (cell, next)
}
