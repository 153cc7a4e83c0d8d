//! The LSTM recurrence backward: from the last time step to the first, one product each, and the gradients of the
//! step before it while its sums are near; at the end one large product for all weights of the window.

use super::super::real::Real;
use super::dispatch::Computed;
use super::gemm::{Target, product};
use super::kernel::{Kernel, MOST_COLUMNS, Work};
use super::lstm::{Record, Sizes};
use super::panels::View;
use super::recurrent::{SharedTurns, Turns, Weights};
use super::shared::Shared;
use super::team::{self, Member};
use super::workspace;
use num_traits::Zero;
use std::ops::Range;

/// Gradients of everything but the first state.
pub(in super::super) struct Grads<T> {
    pub(in super::super) projected: Vec<T>,
    pub(in super::super) recurrent: Vec<T>,
    pub(in super::super) bias: Vec<T>,
}

/// From the gradient of the outputs, `(time, batch, hidden)`; `recurrent` is `(hidden, 4 hidden)`.
pub(in super::super) fn backward<K: Kernel<Element: Computed>>(
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
    team::run(|member| pass.run(member));
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
    fn run(&self, member: Member<'_>) {
        let Sizes { time, batch, .. } = self.sizes;
        let mut room = self.weights.sums(batch);
        self.last_gates(time - 1, member);
        member.meet();
        for step in (1..time).rev() {
            // SAFETY: written before the members met, and not again until they meet once more.
            let operands = unsafe { self.operands.read(step) };
            self.weights.multiply(0, 0, operands, batch, member, &mut room, |panel, sums| {
                K::vectorized(Finish { pass: self, step: step - 1, panel, sums });
            });
            member.meet();
        }
    }

    /// The last time step's gates, by this member's panels.
    fn last_gates(&self, last: usize, member: Member<'_>) {
        let Sizes { batch, .. } = self.sizes;
        let zeros = vec![K::Element::zero(); batch * K::columns()];
        for panel in member.share(self.weights.count) {
            K::vectorized(Finish { pass: self, step: last, panel, sums: &zeros });
        }
    }

    /// A panel's units, at time step `step`: `sums` is what the product after it sends back.
    #[inline(always)]
    fn finish(&self, step: usize, panel: usize, sums: &[K::Element]) {
        let tiling = self.operands.tiling;
        for half in 0..2 {
            let start = (panel * K::columns() + half * K::LANES).min(self.sizes.hidden);
            let width = K::LANES.min(self.sizes.hidden - start);
            if width == 0 {
                break; // the last panel's second half
            }
            for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
                for lane in tile.clone() {
                    let sums = &sums[lane * K::columns() + half * K::LANES..][..K::LANES];
                    if width == K::LANES {
                        self.unit(step, &tile, lane, start, K::LANES, sums);
                    } else {
                        self.unit(step, &tile, lane, start, width, sums);
                    }
                }
            }
        }
    }

    /// `width` units of one lane.
    #[inline(always)]
    fn unit(
        &self,
        step: usize,
        tile: &Range<usize>,
        lane: usize,
        start: usize,
        width: usize,
        sums: &[K::Element],
    ) {
        let Sizes { batch, hidden, .. } = self.sizes;
        let (line, at) = (step * batch + lane, lane * hidden + start);
        let cell = |step: usize| &self.cells[step * batch * hidden + at..][..width];
        let mask = self.mask.map(|mask| &mask[at..][..width]);
        let mut grad = [K::Element::zero(); MOST_COLUMNS];
        let grad = &mut grad[..width];
        output_grad(grad, &self.grad[line * hidden + start..][..width], sums, mask);
        // SAFETY: this member's units, which no other touches until the team is done.
        let (carried, i, o, f, g) = unsafe {
            let gate = |gate: usize| self.gates.part((4 * line + gate) * hidden + start, width);
            (self.carried.part(at, width), gate(0), gate(1), gate(2), gate(3))
        };
        leaving_grads(grad, cell(step + 1), o, carried);
        entering_grads(cell(step), i, f, g, carried);
        for (gate, values) in [i, o, f, g].into_iter().enumerate() {
            let first = gate * K::steps(hidden) + start / K::DEPTH;
            // SAFETY: as above.
            unsafe {
                let bias = self.bias.part(gate * hidden + start, width);
                bias.iter_mut().zip(&*values).for_each(|(sum, &term)| *sum += term);
                self.operands.write(step, tile, lane, first, values, |value, _| value);
            }
        }
    }
}

/// What reaches h after a step: from the outputs, and through the product that it entered masked.
#[inline(always)]
fn output_grad<T: Real>(grad: &mut [T], output: &[T], sums: &[T], mask: Option<&[T]>) {
    let width = grad.len();
    let (output, sums) = (&output[..width], &sums[..width]);
    match mask {
        None => (0..width).for_each(|k| grad[k] = output[k] + sums[k]),
        Some(mask) => (0..width).for_each(|k| grad[k] = output[k] + sums[k] * mask[k]),
    }
}

/// From h to the output gate, which becomes its pre-activation's gradient, and to c after the step, whose gradient
/// along the cells is in `carried`.
#[inline(always)]
fn leaving_grads<T: Real>(grad: &[T], cell: &[T], o: &mut [T], carried: &mut [T]) {
    let width = grad.len();
    let (cell, o, carried) = (&cell[..width], &mut o[..width], &mut carried[..width]);
    for k in 0..width {
        let tanh = cell[k].fast_tanh();
        carried[k] += grad[k] * o[k] * (T::one() - tanh * tanh);
        o[k] = grad[k] * tanh * o[k] * (T::one() - o[k]);
    }
}

/// From c after the step to the other gates, which become their pre-activations' gradients, and to `cell` before it.
#[inline(always)]
fn entering_grads<T: Real>(cell: &[T], i: &mut [T], f: &mut [T], g: &mut [T], carried: &mut [T]) {
    let width = cell.len();
    let (i, f, g, carried) = (&mut i[..width], &mut f[..width], &mut g[..width], &mut carried[..width]);
    for k in 0..width {
        let (grad, i_k, f_k, g_k) = (carried[k], i[k], f[k], g[k]);
        i[k] = grad * g_k * i_k * (T::one() - i_k);
        f[k] = grad * cell[k] * f_k * (T::one() - f_k);
        g[k] = grad * i_k * (T::one() - g_k * g_k);
        carried[k] = grad * f_k;
    }
}
