//! The LSTM recurrence backward: from the last time step to the first, one product each, and the gradients of the
//! step before it while its sums are near; at the end one large product for all weights of the window.

use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::Computed;
use crate::cpu::panels::View;
use crate::cpu::pool::{self, Worker};
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, Work};
use crate::cpu::workspace;
use crate::scan::lstm_cpu::{Record, Sizes};
use crate::scan::weights::{CHUNK, Chunk, SharedTurns, Turns, Weights, load, multiply, store, sum};
use num_traits::Zero;
use std::ops::Range;

/// Gradients of everything but the first state.
pub(crate) struct Grads<T> {
    pub(crate) projected: Vec<T>,
    pub(crate) recurrent: Vec<T>,
    pub(crate) bias: Vec<T>,
}

/// From the gradient of the outputs, `(time, batch, hidden)`; `recurrent` is `(hidden, 4 hidden)`.
pub(crate) fn backward<K: Kernel<Element: Computed>>(
    mut record: Record<K::Element>,
    recurrent: &[K::Element],
    grad: &[K::Element],
) -> Grads<K::Element> {
    let Sizes { time, batch, hidden } = record.sizes;
    let bias = walk_back::<K>(&mut record, recurrent, grad);
    let mut recurrent = vec![K::Element::zero(); 4 * hidden * hidden];
    let gates = View::new(&record.gates, time * batch, 4 * hidden);
    let entered = View::new(&record.entered, time * batch, hidden);
    product(Target::new(&mut recurrent, hidden, 4 * hidden), entered.t(), gates, false, K::DEPTH == 2);
    Grads { projected: record.gates, recurrent, bias }
}

/// Gates become gradients of their pre-activations. Returns the gradient of the biases.
fn walk_back<K: Kernel>(
    record: &mut Record<K::Element>,
    recurrent: &[K::Element],
    grad: &[K::Element],
) -> Vec<K::Element> {
    let Sizes { batch, hidden, .. } = record.sizes;
    let matrix = View::new(recurrent, hidden, 4 * hidden).t();
    let part = |_sublayer: usize, panel: usize, gate: usize, half: usize| {
        let start = (panel * K::columns() + half * K::LANES).min(hidden);
        matrix.rows(gate * hidden, hidden).columns(start, K::LANES.min(hidden - start))
    };
    let weights = Weights::<K>::pack(1, hidden.div_ceil(K::columns()), &[hidden; 4], part);
    let mut bias = vec![K::Element::default(); 4 * hidden];
    let mut carried = workspace::take(batch * hidden);
    carried.fill(K::Element::zero());
    let mut turns = Turns::<K>::new(batch, weights.steps);
    let pass = Backward::<K> {
        weights: &weights,
        sizes: record.sizes,
        mask: record.mask.as_deref(),
        grad,
        cells: &record.cells,
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
    mask: Option<&'a [K::Element]>,
    grad: &'a [K::Element],
    cells: &'a [K::Element],
    gates: Shared<'a, K::Element>,
    /// `(batch, hidden)`: what the forget gate passes back of the cell's gradient.
    carried: Shared<'a, K::Element>,
    bias: Shared<'a, K::Element>,
    operands: SharedTurns<'a, K>,
}

/// What is done with a panel's sums.
struct Finish<'a, K: Kernel> {
    pass: &'a Backward<'a, K>,
    step: usize,
    panel: usize,
    sums: &'a [K::Element],
}

impl<K: Kernel> Work for Finish<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.pass.finish(self.step, self.panel, self.sums);
    }
}

impl<K: Kernel> Backward<'_, K> {
    fn run(&self, worker: Worker<'_>) {
        let Sizes { time, batch, .. } = self.sizes;
        let mut room = self.weights.sums(batch);
        self.last_gates(time - 1, worker);
        worker.barrier();
        for step in (1..time).rev() {
            // SAFETY: written before the workers met, and not again until they meet once more.
            let operands = unsafe { self.operands.read(step) };
            self.weights.multiply(0, 0, operands, worker, &mut room, |panel, sums| {
                K::vectorized(Finish { pass: self, step: step - 1, panel, sums });
            });
            worker.barrier();
        }
    }

    /// The last time step's gates, by this worker's panels.
    fn last_gates(&self, last: usize, worker: Worker<'_>) {
        let Sizes { batch, .. } = self.sizes;
        let zeros = vec![K::Element::zero(); batch * K::columns()];
        for panel in worker.share(self.weights.count) {
            K::vectorized(Finish { pass: self, step: last, panel, sums: &zeros });
        }
    }

    /// A panel's units, at time step `step`: `sums` is what the product after it sends back.
    #[inline(always)]
    fn finish(&self, step: usize, panel: usize, sums: &[K::Element]) {
        let tiling = self.operands.tiling;
        for offset in (0..K::columns()).step_by(CHUNK) {
            let start = panel * K::columns() + offset;
            if start >= self.sizes.hidden {
                break; // the last panel's end
            }
            for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
                for lane in tile.clone() {
                    let sums = load(sums, lane * K::columns() + offset, CHUNK);
                    self.chunk(step, &tile, lane, start, sums);
                }
            }
        }
    }

    /// Some units of one lane.
    #[inline(always)]
    fn chunk(&self, step: usize, tile: &Range<usize>, lane: usize, start: usize, sums: Chunk<K::Element>) {
        let Sizes { batch, hidden, .. } = self.sizes;
        let (line, at, width) = (step * batch + lane, lane * hidden + start, CHUNK.min(hidden - start));
        let cell = |step: usize| load(self.cells, step * batch * hidden + at, width);
        let sent = self.mask.map_or(sums, |mask| multiply(sums, load(mask, at, width)));
        let grad = sum(load(self.grad, line * hidden + start, width), sent);
        // SAFETY: this worker's units, which no other touches until the team is done.
        let (carried, gates) = unsafe {
            let gate = |gate: usize| self.gates.part((4 * line + gate) * hidden + start, width);
            (self.carried.part(at, width), [gate(0), gate(1), gate(2), gate(3)])
        };
        let values = gates.each_ref().map(|gate| load(gate, 0, width));
        let cells = [cell(step), cell(step + 1)];
        let (grads, carry) = if K::FUSED {
            gate_grads::<_, true>(grad, load(carried, 0, width), cells, values)
        } else {
            gate_grads::<_, false>(grad, load(carried, 0, width), cells, values)
        };
        store(carried, &carry);
        for (gate, (target, grad)) in gates.into_iter().zip(&grads).enumerate() {
            store(target, grad);
            // SAFETY: as above.
            unsafe {
                let bias = self.bias.part(gate * hidden + start, width);
                store(bias, &sum(load(bias, 0, width), *grad));
                let first = gate * K::steps(hidden) + start / K::DEPTH;
                self.operands.write(step, tile, lane, first, grad, width);
            }
        }
    }
}

/// From the gradient of h after a step, what is carried along the cells, c before and after it, and the gates: the
/// gradients of the gates' pre-activations, and what is carried to the step before.
#[inline(always)]
fn gate_grads<T: Real, const FUSED: bool>(
    grad: Chunk<T>,
    mut carried: Chunk<T>,
    [before, after]: [Chunk<T>; 2],
    [i, o, f, g]: [Chunk<T>; 4],
) -> ([Chunk<T>; 4], Chunk<T>) {
    let mut grads = [i, o, f, g];
    for k in 0..CHUNK {
        let tanh = after[k].fast_tanh::<FUSED>();
        let cell = carried[k] + grad[k] * o[k] * (T::one() - tanh * tanh);
        grads[0][k] = cell * g[k] * i[k] * (T::one() - i[k]);
        grads[1][k] = grad[k] * tanh * o[k] * (T::one() - o[k]);
        grads[2][k] = cell * before[k] * f[k] * (T::one() - f[k]);
        grads[3][k] = cell * i[k] * (T::one() - g[k] * g[k]);
        carried[k] = cell * f[k];
    }
    (grads, carried)
}
