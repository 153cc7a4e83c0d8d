//! The RHN recurrence forward: for every step and sublayer one product, and the gates while its sums are near.
//!
//! Each panel has a vector of H's columns beside the same columns of T, so that a tile's sums are all that the
//! highway update of these units needs. Threads own units; they meet once a sublayer step.

use crate::cpu::panels::View;
use crate::cpu::pool::{self, Worker};
use crate::cpu::real::{Real, sigmoid};
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, Work};
use crate::cpu::workspace::{self, Buffer};
use crate::scan::weights::{CHUNK, Chunk, GROUP, SharedTurns, Turns, Weights, load, store, sum};
use std::ops::Range;

/// Sizes of a window.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) time: usize,
    pub(crate) batch: usize,
    pub(crate) depth: usize,
    pub(crate) hidden: usize,
}

/// Row-major; shapes as in [`mod@crate::scan::rhn_op`].
pub(crate) struct Inputs<'a, T> {
    pub(crate) projected: &'a [T],
    pub(crate) bias: &'a [T],
    pub(crate) state: &'a [T],
    pub(crate) mask: Option<&'a [T]>,
    pub(crate) sizes: Sizes,
}

/// Values of every sublayer step, for the backward pass, laid out as [`Layout`] says.
pub(crate) struct Record<T: Real> {
    pub(crate) sizes: Sizes,
    pub(crate) mask: Option<Vec<T>>,
    pub(crate) layout: Layout,
    /// The state that enters each sublayer step: a vector of units.
    pub(crate) states: Buffer<T>,
    /// h, then t: two vectors.
    pub(crate) gates: Buffer<T>,
}

/// Where values of units are kept: a vector of units together, for these all lanes of all steps in order, then the
/// next units, then the next sublayer. So a panel's values of a step lie side by side, whatever the sizes are.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Vectors that cover the units.
    pub(crate) vectors: usize,
    /// Lanes of all steps.
    pub(crate) rows: usize,
}

impl Layout {
    /// The place of a vector, in vectors.
    #[inline(always)]
    pub(crate) fn vector(&self, sublayer: usize, vector: usize, row: usize) -> usize {
        (sublayer * self.vectors + vector) * self.rows + row
    }
}

/// The recurrent weights `(depth, hidden, 2 hidden)` packed for [`forward`].
pub(crate) struct Packed<K: Kernel>(Weights<K>);

impl<K: Kernel> Packed<K> {
    /// Packs them.
    pub(crate) fn new(recurrent: &[K::Element], depth: usize, hidden: usize) -> Self {
        let len = 2 * hidden * hidden;
        let part = |sublayer: usize, panel: usize, _section: usize, half: usize| {
            let matrix = View::new(&recurrent[sublayer * len..][..len], hidden, 2 * hidden);
            let start = panel * K::LANES;
            matrix.columns(half * hidden + start, K::LANES.min(hidden - start))
        };
        Self(Weights::pack(depth, hidden.div_ceil(K::LANES), &[hidden], part))
    }
}

/// Writes the states after each time step, `(time, batch, hidden)`, and returns the record if it is wanted.
pub(crate) fn forward<K: Kernel>(
    weights: &Packed<K>,
    inputs: &Inputs<'_, K::Element>,
    records: bool,
    outputs: &mut [K::Element],
) -> Option<Record<K::Element>> {
    let Sizes { time, batch, depth, .. } = inputs.sizes;
    let (slots, steps) = if records { (depth, time) } else { (2, 1) };
    let layout = Layout { vectors: weights.0.count, rows: steps * batch };
    let len = layout.vector(slots, 0, 0) * K::LANES;
    let mut states = workspace::take::<K::Element>(len);
    let mut gates = workspace::take::<K::Element>(if records { 2 * len } else { 0 });
    let mut turns = Turns::<K>::new(batch, weights.0.steps);
    let pass = Forward::<K> {
        weights: &weights.0,
        inputs,
        layout,
        states: Shared::new(&mut states),
        gates: records.then(|| Shared::new(&mut gates)),
        outputs: Shared::new(outputs),
        operands: turns.shared(),
    };
    pool::run(|worker| pass.run(worker));
    records.then(|| {
        let mask = inputs.mask.map(<[_]>::to_vec);
        Record { sizes: inputs.sizes, mask, layout, states, gates }
    })
}

struct Forward<'a, K: Kernel> {
    weights: &'a Weights<K>,
    inputs: &'a Inputs<'a, K::Element>,
    layout: Layout,
    states: Shared<'a, K::Element>,
    gates: Option<Shared<'a, K::Element>>,
    outputs: Shared<'a, K::Element>,
    operands: SharedTurns<'a, K>,
}

/// A sublayer step of a window.
#[derive(Clone, Copy)]
struct Place {
    step: usize,
    sublayer: usize,
    /// How many came before it.
    index: usize,
}

/// What is done with a panel's sums.
struct Finish<'a, K: Kernel> {
    pass: &'a Forward<'a, K>,
    place: Place,
    panel: usize,
    sums: &'a [K::Element],
}

impl<K: Kernel> Work for Finish<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.pass.finish(self.place, self.panel, self.sums);
    }
}

impl<K: Kernel> Forward<'_, K> {
    fn run(&self, worker: Worker<'_>) {
        let Sizes { time, batch, depth, .. } = self.inputs.sizes;
        let mut sums = self.weights.sums(batch);
        self.first_state(worker);
        worker.barrier();
        for index in 0..time * depth {
            let place = Place { step: index / depth, sublayer: index % depth, index };
            // SAFETY: written before the workers met, and not again until they meet once more.
            let operands = unsafe { self.operands.read(index) };
            self.weights.multiply(
                place.sublayer,
                (place.sublayer + 1) % depth,
                operands,
                worker,
                &mut sums,
                |panel, sums| K::vectorized(Finish { pass: self, place, panel, sums }),
            );
            worker.barrier();
        }
    }

    /// The state that enters the window, and its operands.
    fn first_state(&self, worker: Worker<'_>) {
        let (hidden, tiling) = (self.inputs.sizes.hidden, self.operands.tiling);
        for tile in worker.share(tiling.count).map(|index| tiling.tile(index)) {
            for lane in tile.clone() {
                for start in (0..hidden).step_by(CHUNK) {
                    let width = CHUNK.min(hidden - start);
                    let state = load(self.inputs.state, lane * hidden + start, width);
                    let at = self.layout.vector(0, start / K::LANES, lane) * K::LANES + start % K::LANES;
                    // SAFETY: workers' tiles are disjoint, and all meet before they are read.
                    store(unsafe { self.states.part(at, CHUNK) }, &state);
                    self.write_operands(0, &tile, lane, start, width, state);
                }
            }
        }
    }

    /// A panel's units: gates, the state that leaves the sublayer, and the next product's operands.
    #[inline(always)]
    fn finish(&self, place: Place, panel: usize, sums: &[K::Element]) {
        self.fetch(place, panel + GROUP);
        let tiling = self.operands.tiling;
        for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
            for lane in tile.clone() {
                let sums = &sums[lane * K::columns()..][..K::columns()];
                for offset in (0..K::LANES).step_by(CHUNK) {
                    let z = [load(sums, offset, CHUNK), load(sums, K::LANES + offset, CHUNK)];
                    self.chunk(place, &tile, lane, panel, offset, z);
                }
            }
        }
    }

    /// Brings nearer what will be written of a panel that comes later.
    #[inline(always)]
    fn fetch(&self, place: Place, panel: usize) {
        if let Some(gates) = self.gates.filter(|_| panel < self.layout.vectors) {
            gates.fetch(2 * self.vector(place.index, panel, 0) * K::LANES, 2 * self.batch() * K::LANES);
            self.states.fetch(self.vector(place.index + 1, panel, 0) * K::LANES, self.batch() * K::LANES);
        }
    }

    fn batch(&self) -> usize {
        self.inputs.sizes.batch
    }

    /// Where a sublayer step's values of a panel and lane are, in vectors.
    #[inline(always)]
    fn vector(&self, index: usize, panel: usize, lane: usize) -> usize {
        let Sizes { batch, depth, .. } = self.inputs.sizes;
        let (slot, step) = if self.gates.is_some() { (index % depth, index / depth) } else { (index % 2, 0) };
        self.layout.vector(slot, panel, step * batch + lane)
    }

    /// Some units of one lane, `offset` after the panel's first.
    #[inline(always)]
    fn chunk(
        &self,
        place: Place,
        tile: &Range<usize>,
        lane: usize,
        panel: usize,
        offset: usize,
        [zh, zt]: [Chunk<K::Element>; 2],
    ) {
        let Sizes { batch, hidden, depth, time } = self.inputs.sizes;
        let (start, row) = (panel * K::LANES + offset, place.step * batch + lane);
        let width = CHUNK.min(hidden.saturating_sub(start));
        let both = |row: &[K::Element]| [load(row, start, width), load(row, hidden + start, width)];
        let [bh, bt] = both(&self.inputs.bias[2 * place.sublayer * hidden..]);
        let (mut zh, mut zt) = (sum(zh, bh), sum(zt, bt));
        if place.sublayer == 0 {
            let [xh, xt] = both(&self.inputs.projected[2 * row * hidden..]);
            (zh, zt) = (sum(zh, xh), sum(zt, xt));
        }
        let at = self.vector(place.index, panel, lane) * K::LANES;
        // SAFETY: this worker's units; the state was written before the workers met.
        let state = load(unsafe { self.states.read(at + offset, CHUNK) }, 0, CHUNK);
        let (h, t, next) =
            if K::FUSED { highway::<_, true>(zh, zt, state) } else { highway::<_, false>(zh, zt, state) };
        // SAFETY: this worker's units, which no other touches.
        unsafe {
            if let Some(gates) = &self.gates {
                store(gates.part(2 * at + offset, CHUNK), &h);
                store(gates.part(2 * at + K::LANES + offset, CHUNK), &t);
            }
            if place.index + 1 < time * depth {
                let after = self.vector(place.index + 1, panel, lane) * K::LANES + offset;
                store(self.states.part(after, CHUNK), &next);
            }
            if place.sublayer + 1 == depth {
                store(self.outputs.part(row * hidden + start.min(hidden), width), &next);
            }
        }
        self.write_operands(place.index + 1, tile, lane, start, width, next);
    }

    /// The masked state as operands of the products to come.
    #[inline(always)]
    fn write_operands(
        &self,
        turn: usize,
        tile: &Range<usize>,
        lane: usize,
        start: usize,
        width: usize,
        mut state: Chunk<K::Element>,
    ) {
        if let Some(mask) = self.inputs.mask {
            let mask = load(mask, lane * self.inputs.sizes.hidden + start, width);
            state.iter_mut().zip(mask).for_each(|(state, mask)| *state *= mask);
        }
        // SAFETY: this worker's units, or tiles before the first product.
        unsafe { self.operands.write(turn, tile, lane, start / K::DEPTH, &state, width) };
    }
}

/// From pre-activations and a state: h, t and the next state.
#[inline(always)]
fn highway<T: Real, const FUSED: bool>(
    zh: Chunk<T>,
    zt: Chunk<T>,
    state: Chunk<T>,
) -> (Chunk<T>, Chunk<T>, Chunk<T>) {
    let (mut h, mut t, mut next) = (zh, zt, state);
    for i in 0..CHUNK {
        h[i] = zh[i].fast_tanh::<FUSED>();
        t[i] = sigmoid::<T, FUSED>(zt[i]);
        next[i] = state[i] + t[i] * (h[i] - state[i]);
    }
    (h, t, next)
}
