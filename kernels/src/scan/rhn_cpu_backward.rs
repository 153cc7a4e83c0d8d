//! The RHN recurrence backward: from the last sublayer step to the first, one product each, and the gradients of the
//! sublayer before it while its sums are near; at the end one large product a sublayer for all weights of the window.

use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::Computed;
use crate::cpu::panels::View;
use crate::cpu::pool::{self, Worker};
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, Work};
use crate::cpu::workspace;
use crate::scan::rhn_cpu::{Layout, Record, Sizes};
use crate::scan::weights::{CHUNK, Chunk, GROUP, SharedTurns, Turns, Weights, load, multiply, store, sum};
use num_traits::Zero;
use std::ops::Range;

/// Gradients of everything but the first state.
pub(crate) struct Grads<T> {
    pub(crate) projected: Vec<T>,
    pub(crate) recurrent: Vec<T>,
    pub(crate) bias: Vec<T>,
}

/// From the gradient of the outputs, `(time, batch, hidden)`; `recurrent` is `(depth, hidden, 2 hidden)`.
pub(crate) fn backward<K: Kernel<Element: Computed>>(
    mut record: Record<K::Element>,
    recurrent: &[K::Element],
    grad: &[K::Element],
) -> Grads<K::Element> {
    let Sizes { time, batch, hidden, .. } = record.sizes;
    let bias = walk_back::<K>(&mut record, recurrent, grad);
    let recurrent = weight_grads::<K>(&record);
    let mut projected = vec![K::Element::default(); time * batch * 2 * hidden];
    gather::<K>(&record.gates, 2, record.layout, 0, hidden, &mut projected);
    Grads { projected, recurrent, bias }
}

/// Gates become gradients of their pre-activations, and the states that entered sublayers become what entered their
/// products. Returns the gradient of the biases.
fn walk_back<K: Kernel>(
    record: &mut Record<K::Element>,
    recurrent: &[K::Element],
    grad: &[K::Element],
) -> Vec<K::Element> {
    let Sizes { batch, depth, hidden, .. } = record.sizes;
    let len = 2 * hidden * hidden;
    let part = |sublayer: usize, panel: usize, section: usize, half: usize| {
        let matrix = View::new(&recurrent[sublayer * len..][..len], hidden, 2 * hidden).t();
        let start = (panel * K::columns() + half * K::LANES).min(hidden);
        matrix.rows(section * hidden, hidden).columns(start, K::LANES.min(hidden - start))
    };
    let weights = Weights::<K>::pack(depth, hidden.div_ceil(K::columns()), &[hidden, hidden], part);
    let mut bias = vec![K::Element::default(); depth * 2 * hidden];
    let mut carried = workspace::take(batch * hidden);
    let mut turns = Turns::<K>::new(batch, weights.steps);
    let pass = Backward::<K> {
        weights: &weights,
        sizes: record.sizes,
        layout: record.layout,
        mask: record.mask.as_deref(),
        grad,
        states: Shared::new(&mut record.states),
        gates: Shared::new(&mut record.gates),
        carried: Shared::new(&mut carried),
        bias: Shared::new(&mut bias),
        operands: turns.shared(),
    };
    pool::run(|worker| pass.run(worker));
    bias
}

struct Backward<'a, K: Kernel> {
    weights: &'a Weights<K>,
    sizes: Sizes,
    layout: Layout,
    mask: Option<&'a [K::Element]>,
    grad: &'a [K::Element],
    states: Shared<'a, K::Element>,
    gates: Shared<'a, K::Element>,
    /// `(batch, hidden)`: what the carry gate passes back of the state's gradient.
    carried: Shared<'a, K::Element>,
    bias: Shared<'a, K::Element>,
    operands: SharedTurns<'a, K>,
}

/// What is done with a panel's sums.
struct Finish<'a, K: Kernel> {
    pass: &'a Backward<'a, K>,
    index: usize,
    panel: usize,
    sums: &'a [K::Element],
}

impl<K: Kernel> Work for Finish<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.pass.finish(self.index, self.panel, self.sums);
    }
}

impl<K: Kernel> Backward<'_, K> {
    fn run(&self, worker: Worker<'_>) {
        let Sizes { time, batch, depth, .. } = self.sizes;
        let last = time * depth - 1;
        let mut room = self.weights.sums(batch);
        self.last_gates(last, worker);
        worker.barrier();
        for index in (1..=last).rev() {
            // SAFETY: written before the workers met, and not again until they meet once more.
            let operands = unsafe { self.operands.read(index) };
            let (sublayer, then) = (index % depth, (index - 1) % depth);
            self.weights.multiply(sublayer, then, operands, worker, &mut room, |panel, sums| {
                K::vectorized(Finish { pass: self, index: index - 1, panel, sums });
            });
            worker.barrier();
        }
    }

    /// The last sublayer step's gates, by this worker's panels.
    fn last_gates(&self, last: usize, worker: Worker<'_>) {
        let Sizes { batch, .. } = self.sizes;
        let zeros = vec![K::Element::zero(); batch * K::columns()];
        for panel in worker.share(self.weights.count) {
            K::vectorized(Finish { pass: self, index: last, panel, sums: &zeros });
        }
    }

    /// A tile's units, at sublayer step `index`: `sums` is what the product after it sends back.
    #[inline(always)]
    fn finish(&self, index: usize, panel: usize, sums: &[K::Element]) {
        self.fetch(index, 2 * (panel + GROUP));
        let tiling = self.operands.tiling;
        for (half, vector) in (2 * panel..self.layout.vectors).take(2).enumerate() {
            for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
                for lane in tile.clone() {
                    for offset in (0..K::LANES).step_by(CHUNK) {
                        let sums = load(sums, lane * K::columns() + half * K::LANES + offset, CHUNK);
                        self.chunk(index, &tile, lane, vector, offset, sums);
                    }
                }
            }
        }
    }

    /// Brings nearer what will be read of a panel that comes later, from this vector on.
    #[inline(always)]
    fn fetch(&self, index: usize, vector: usize) {
        let Sizes { batch, depth, .. } = self.sizes;
        for vector in (vector..self.layout.vectors).take(2) {
            let at = self.layout.vector(index % depth, vector, index / depth * batch);
            self.states.fetch(at * K::LANES, batch * K::LANES);
            self.gates.fetch(2 * at * K::LANES, 2 * batch * K::LANES);
        }
    }

    /// Some units of one lane, `offset` after the vector's first.
    #[inline(always)]
    fn chunk(
        &self,
        index: usize,
        tile: &Range<usize>,
        lane: usize,
        vector: usize,
        offset: usize,
        sums: Chunk<K::Element>,
    ) {
        let Sizes { time, batch, depth, hidden } = self.sizes;
        let (step, sublayer, start) = (index / depth, index % depth, vector * K::LANES + offset);
        if start >= hidden {
            return; // the last vector's second half
        }
        let width = CHUNK.min(hidden - start);
        let at = lane * hidden + start;
        let place = self.layout.vector(sublayer, vector, step * batch + lane) * K::LANES;
        // SAFETY: this worker's units, which no other touches until the team is done.
        let (carried, state, [h, t]) = unsafe {
            let gates = [0, K::LANES].map(|gate| self.gates.part(2 * place + gate + offset, CHUNK));
            (self.carried.part(at, width), self.states.part(place + offset, CHUNK), gates)
        };
        let mask = self.mask.map(|mask| load(mask, at, width));
        let mut grad = [K::Element::zero(); CHUNK];
        if index + 1 < time * depth {
            grad = state_grad(load(carried, 0, width), sums, mask);
        }
        if sublayer + 1 == depth {
            grad = sum(grad, load(self.grad, step * batch * hidden + at, width));
        }
        let entered = load(state, 0, CHUNK);
        let (h_grad, t_grad, carry) = highway_grad(grad, entered, load(h, 0, CHUNK), load(t, 0, CHUNK));
        store(carried, &carry);
        store(h, &h_grad);
        store(t, &t_grad);
        if let Some(mask) = mask {
            store(state, &multiply(entered, mask));
        }
        for (gate, grad) in [(0, &h_grad), (1, &t_grad)] {
            // SAFETY: as above.
            let bias = unsafe { self.bias.part((2 * sublayer + gate) * hidden + start, width) };
            store(bias, &sum(load(bias, 0, width), *grad));
            let step = gate * self.weights.steps / 2 + start / K::DEPTH;
            // SAFETY: as above.
            unsafe { self.operands.write(index, tile, lane, step, grad, width) };
        }
    }
}

/// What reaches a state: along the carry, and through the product that it entered masked.
#[inline(always)]
fn state_grad<T: Real>(carried: Chunk<T>, sums: Chunk<T>, mask: Option<Chunk<T>>) -> Chunk<T> {
    sum(carried, mask.map_or(sums, |mask| multiply(sums, mask)))
}

/// From a state's gradient, the state that entered and the gates: the gradients of h's and t's pre-activations, and
/// what passes by the carry gate.
#[inline(always)]
fn highway_grad<T: Real>(
    grad: Chunk<T>,
    state: Chunk<T>,
    h: Chunk<T>,
    t: Chunk<T>,
) -> (Chunk<T>, Chunk<T>, Chunk<T>) {
    let (mut h_grad, mut t_grad, mut carry) = (grad, grad, grad);
    for i in 0..CHUNK {
        h_grad[i] = grad[i] * t[i] * (T::one() - h[i] * h[i]);
        t_grad[i] = grad[i] * (h[i] - state[i]) * t[i] * (T::one() - t[i]);
        carry[i] = grad[i] * (T::one() - t[i]);
    }
    (h_grad, t_grad, carry)
}

/// One product a sublayer for all steps.
fn weight_grads<K: Kernel<Element: Computed>>(record: &Record<K::Element>) -> Vec<K::Element> {
    let Sizes { time, batch, depth, hidden } = record.sizes;
    let (rows, len) = (time * batch, 2 * hidden * hidden);
    let mut recurrent = vec![K::Element::zero(); depth * len];
    let (mut states, mut gates) = (workspace::take(rows * hidden), workspace::take(2 * rows * hidden));
    for sublayer in 0..depth {
        gather::<K>(&record.states, 1, record.layout, sublayer, hidden, &mut states);
        gather::<K>(&record.gates, 2, record.layout, sublayer, hidden, &mut gates);
        let target = Target::new(&mut recurrent[sublayer * len..][..len], hidden, 2 * hidden);
        product(
            target,
            View::new(&states, rows, hidden).t(),
            View::new(&gates, rows, 2 * hidden),
            false,
            K::DEPTH == 2,
        );
    }
    recurrent
}

/// A sublayer's values as rows of `parts · hidden`; each vector of units has `parts` vectors in a row.
fn gather<K: Kernel>(
    values: &[K::Element],
    parts: usize,
    layout: Layout,
    sublayer: usize,
    hidden: usize,
    out: &mut [K::Element],
) {
    const ROWS: usize = 32; // their lines stay near while the vectors pass
    let out = Shared::new(out);
    pool::run(|worker| {
        let own = worker.share(layout.rows);
        for start in own.clone().step_by(ROWS) {
            for vector in 0..layout.vectors {
                let width = K::LANES.min(hidden - vector * K::LANES);
                for row in start..own.end.min(start + ROWS) {
                    for part in 0..parts {
                        let from = (parts * layout.vector(sublayer, vector, row) + part) * K::LANES;
                        let to = (row * parts + part) * hidden + vector * K::LANES;
                        // SAFETY: workers' rows are disjoint.
                        let (from, to) = (&values[from..][..K::LANES], unsafe { out.part(to, width) });
                        if width == K::LANES {
                            to[..K::LANES].copy_from_slice(from); // of a known length: no call
                        } else {
                            to.copy_from_slice(&from[..width]);
                        }
                    }
                }
            }
        }
    });
}
