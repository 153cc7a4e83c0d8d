//! The RHN recurrence backward: from the last sublayer step to the first, one product each, and the gradients of the
//! sublayer before it while its sums are near; at the end one large product a sublayer for all weights of the window.

use super::super::real::Real;
use super::dispatch::Computed;
use super::gemm::{Target, product};
use super::highway::{Record, Sizes};
use super::kernel::{Kernel, MOST_COLUMNS, Work};
use super::panels::View;
use super::recurrent::{GROUP, SharedTurns, Turns, Weights};
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

/// From the gradient of the outputs, `(time, batch, hidden)`; `recurrent` is `(depth, hidden, 2 hidden)`.
pub(in super::super) fn backward<K: Kernel<Element: Computed>>(
    mut record: Record<K::Element>,
    recurrent: &[K::Element],
    grad: &[K::Element],
) -> Grads<K::Element> {
    let Sizes { time, batch, hidden, .. } = record.sizes;
    let bias = walk_back::<K>(&mut record, recurrent, grad);
    let recurrent = weight_grads(&record, K::DEPTH == 2);
    let projected = record.gates[..time * batch * 2 * hidden].to_vec(); // the first sublayer's
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
        mask: record.mask.as_deref(),
        grad,
        states: Shared::new(&mut record.states),
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
    fn run(&self, member: Member<'_>) {
        let Sizes { time, batch, depth, .. } = self.sizes;
        let last = time * depth - 1;
        let mut room = self.weights.sums(batch);
        self.last_gates(last, member);
        member.meet();
        for index in (1..=last).rev() {
            // SAFETY: written before the members met, and not again until they meet once more.
            let operands = unsafe { self.operands.read(index) };
            let (sublayer, then) = (index % depth, (index - 1) % depth);
            self.weights.multiply(sublayer, then, operands, batch, member, &mut room, |panel, sums| {
                K::vectorized(Finish { pass: self, index: index - 1, panel, sums });
            });
            member.meet();
        }
    }

    /// The last sublayer step's gates, by this member's panels.
    fn last_gates(&self, last: usize, member: Member<'_>) {
        let Sizes { batch, .. } = self.sizes;
        let zeros = vec![K::Element::zero(); batch * K::columns()];
        for panel in member.share(self.weights.count) {
            K::vectorized(Finish { pass: self, index: last, panel, sums: &zeros });
        }
    }

    /// A tile's units, at sublayer step `index`: `sums` is what the product after it sends back.
    #[inline(always)]
    fn finish(&self, index: usize, panel: usize, sums: &[K::Element]) {
        self.fetch(index, (panel + GROUP) * K::columns());
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
                        self.unit(index, &tile, lane, start, K::LANES, sums);
                    } else {
                        self.unit(index, &tile, lane, start, width, sums);
                    }
                }
            }
        }
    }

    /// Brings nearer what will be read of a panel that comes later.
    #[inline(always)]
    fn fetch(&self, index: usize, start: usize) {
        let Sizes { time, batch, depth, hidden } = self.sizes;
        if start < hidden {
            let slot = (index % depth * time + index / depth) * batch;
            for lane in slot..slot + batch {
                self.states.fetch(lane * hidden + start);
                self.gates.fetch(2 * lane * hidden + start);
                self.gates.fetch((2 * lane + 1) * hidden + start);
            }
        }
    }

    /// `width` units of one lane.
    #[inline(always)]
    fn unit(
        &self,
        index: usize,
        tile: &Range<usize>,
        lane: usize,
        start: usize,
        width: usize,
        sums: &[K::Element],
    ) {
        let Sizes { time, batch, depth, hidden } = self.sizes;
        let (step, sublayer) = (index / depth, index % depth);
        let at = lane * hidden + start;
        let slot = (sublayer * time + step) * batch * hidden;
        let mask = self.mask.map(|mask| &mask[at..][..width]);
        // SAFETY: this member's units, which no other touches until the team is done.
        let (carried, state, h, t, bias) = unsafe {
            let gates = 2 * slot + 2 * lane * hidden + start;
            let bias = 2 * sublayer * hidden + start;
            (
                self.carried.part(at, width),
                self.states.part(slot + at, width),
                self.gates.part(gates, width),
                self.gates.part(gates + hidden, width),
                [self.bias.part(bias, width), self.bias.part(bias + hidden, width)],
            )
        };
        let mut grad = [K::Element::zero(); MOST_COLUMNS];
        let grad = &mut grad[..width];
        if index + 1 < time * depth {
            state_grad(grad, carried, &sums[..width], mask);
        }
        if sublayer + 1 == depth {
            add(grad, &self.grad[step * batch * hidden + at..][..width]);
        }
        highway_grad(grad, state, h, t, carried);
        add(bias[0], h);
        add(bias[1], t);
        if let Some(mask) = mask {
            state.iter_mut().zip(mask).for_each(|(state, &mask)| *state *= mask);
        }
        self.write_operands(index, tile, lane, start, h, t);
    }

    /// The pre-activations' gradients as operands of the product to come.
    #[inline(always)]
    fn write_operands(
        &self,
        turn: usize,
        tile: &Range<usize>,
        lane: usize,
        start: usize,
        h: &[K::Element],
        t: &[K::Element],
    ) {
        for (section, values) in [h, t].into_iter().enumerate() {
            let step = section * self.weights.steps / 2 + start / K::DEPTH;
            // SAFETY: this member's units.
            unsafe { self.operands.write(turn, tile, lane, step, values, |value, _| value) };
        }
    }
}

/// What reaches a state: along the carry, and through the product that it entered masked.
#[inline(always)]
fn state_grad<T: Real>(grad: &mut [T], carried: &[T], sums: &[T], mask: Option<&[T]>) {
    let width = grad.len();
    let (carried, sums) = (&carried[..width], &sums[..width]);
    match mask {
        None => (0..width).for_each(|i| grad[i] = carried[i] + sums[i]),
        Some(mask) => (0..width).for_each(|i| grad[i] = carried[i] + sums[i] * mask[i]),
    }
}

/// Gates become gradients of their pre-activations; `carried` takes what passes by the carry gate.
#[inline(always)]
fn highway_grad<T: Real>(grad: &[T], state: &[T], h: &mut [T], t: &mut [T], carried: &mut [T]) {
    let width = grad.len();
    let (state, h, t, carried) = (&state[..width], &mut h[..width], &mut t[..width], &mut carried[..width]);
    for i in 0..width {
        let (g, h_i, t_i) = (grad[i], h[i], t[i]);
        h[i] = g * t_i * (T::one() - h_i * h_i);
        t[i] = g * (h_i - state[i]) * t_i * (T::one() - t_i);
        carried[i] = g * (T::one() - t_i);
    }
}

#[inline(always)]
fn add<T: Real>(sum: &mut [T], term: &[T]) {
    sum.iter_mut().zip(term).for_each(|(sum, &term)| *sum += term);
}

/// One product a sublayer for all steps.
fn weight_grads<T: Computed>(record: &Record<T>, bf16: bool) -> Vec<T> {
    let Sizes { time, batch, depth, hidden } = record.sizes;
    let (rows, len) = (time * batch, 2 * hidden * hidden);
    let mut recurrent = vec![T::zero(); depth * len];
    for sublayer in 0..depth {
        let gates =
            View::new(&record.gates[sublayer * rows * 2 * hidden..][..rows * 2 * hidden], rows, 2 * hidden);
        let entered = View::new(&record.states[sublayer * rows * hidden..][..rows * hidden], rows, hidden);
        let target = Target::new(&mut recurrent[sublayer * len..][..len], hidden, 2 * hidden);
        product(target, entered.t(), gates, false, bf16);
    }
    recurrent
}
