//! The RHN recurrence forward: for every step and sublayer one product, and the gates while its sums are near.
//!
//! Each panel has a vector of H's columns beside the same columns of T, so that a tile's sums are all that the
//! highway update of these units needs. Threads own units; they meet once a sublayer step.

use super::super::real::{Real, sigmoid};
use super::kernel::{Kernel, MOST_COLUMNS, Work};
use super::panels::View;
use super::recurrent::{GROUP, SharedTurns, Turns, Weights};
use super::shared::Shared;
use super::team::{self, Member};
use super::workspace::{self, Buffer};
use num_traits::Zero;
use std::ops::Range;

/// Sizes of a window.
#[derive(Clone, Copy)]
pub(in super::super) struct Sizes {
    pub(in super::super) time: usize,
    pub(in super::super) batch: usize,
    pub(in super::super) depth: usize,
    pub(in super::super) hidden: usize,
}

/// Row-major; shapes as in [`mod@super::super::recurrence`].
pub(in super::super) struct Inputs<'a, T> {
    pub(in super::super) projected: &'a [T],
    pub(in super::super) bias: &'a [T],
    pub(in super::super) state: &'a [T],
    pub(in super::super) mask: Option<&'a [T]>,
    pub(in super::super) sizes: Sizes,
}

/// Values of every sublayer step, for the backward pass; the sublayer is the outermost index, so that each has one
/// matrix a window.
pub(in super::super) struct Record<T: Real> {
    pub(super) sizes: Sizes,
    pub(super) mask: Option<Vec<T>>,
    /// `(depth, time, batch, hidden)`: the state that enters the sublayer.
    pub(super) states: Buffer<T>,
    /// `(depth, time, batch, 2 hidden)`: h, then t.
    pub(super) gates: Buffer<T>,
}

/// The recurrent weights `(depth, hidden, 2 hidden)` packed for [`forward`].
pub(in super::super) struct Packed<K: Kernel>(Weights<K>);

impl<K: Kernel> Packed<K> {
    /// Packs them.
    pub(in super::super) fn new(recurrent: &[K::Element], depth: usize, hidden: usize) -> Self {
        let len = 2 * hidden * hidden;
        let part = |sublayer: usize, panel: usize, _section: usize, half: usize| {
            let matrix = View::new(&recurrent[sublayer * len..][..len], hidden, 2 * hidden);
            let start = panel * K::LANES;
            matrix.columns(half * hidden + start, K::LANES.min(hidden - start))
        };
        Self(Weights::pack(depth, hidden.div_ceil(K::LANES), &[hidden], part))
    }
}

/// The states after each time step, `(time, batch, hidden)`, and the record if it is wanted.
pub(in super::super) fn forward<K: Kernel>(
    weights: &Packed<K>,
    inputs: &Inputs<'_, K::Element>,
    records: bool,
) -> (Vec<K::Element>, Option<Record<K::Element>>) {
    let Sizes { time, batch, depth, hidden } = inputs.sizes;
    let state_len = batch * hidden;
    let slots = if records { depth * time } else { 2 };
    let mut states = workspace::take::<K::Element>(slots * state_len);
    let mut gates = workspace::take::<K::Element>(if records { 2 * slots * state_len } else { 0 });
    let mut outputs = vec![K::Element::default(); time * state_len];
    let mut turns = Turns::<K>::new(batch, weights.0.steps);
    states[..state_len].copy_from_slice(inputs.state); // slot 0: sublayer 0 of step 0
    let pass = Forward::<K> {
        weights: &weights.0,
        inputs,
        states: Shared::new(&mut states),
        gates: records.then(|| Shared::new(&mut gates)),
        outputs: Shared::new(&mut outputs),
        operands: turns.shared(),
    };
    team::run(|member| pass.run(member));
    let mask = inputs.mask.map(<[_]>::to_vec);
    let record = records.then(|| Record { sizes: inputs.sizes, mask, states, gates });
    (outputs, record)
}

struct Forward<'a, K: Kernel> {
    weights: &'a Weights<K>,
    inputs: &'a Inputs<'a, K::Element>,
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
    fn run(&self, member: Member<'_>) {
        let Sizes { time, batch, depth, .. } = self.inputs.sizes;
        let mut sums = self.weights.sums(batch);
        self.first_operands(member);
        member.meet();
        for index in 0..time * depth {
            let place = Place { step: index / depth, sublayer: index % depth, index };
            // SAFETY: written before the members met, and not again until they meet once more.
            let operands = unsafe { self.operands.read(index) };
            self.weights.multiply(
                place.sublayer,
                (place.sublayer + 1) % depth,
                operands,
                batch,
                member,
                &mut sums,
                |panel, sums| K::vectorized(Finish { pass: self, place, panel, sums }),
            );
            member.meet();
        }
    }

    /// The first state's operands.
    fn first_operands(&self, member: Member<'_>) {
        let (hidden, tiling) = (self.inputs.sizes.hidden, self.operands.tiling);
        for tile in member.share(tiling.count).map(|index| tiling.tile(index)) {
            for lane in tile.clone() {
                self.write_operands(0, &tile, lane, 0, &self.inputs.state[lane * hidden..][..hidden]);
            }
        }
    }

    /// A tile's units: gates, the state that leaves the sublayer, and the next product's operands.
    #[inline(always)]
    fn finish(&self, place: Place, panel: usize, sums: &[K::Element]) {
        let start = panel * K::LANES;
        let width = K::LANES.min(self.inputs.sizes.hidden - start);
        self.fetch(place, (panel + GROUP) * K::LANES);
        let tiling = self.operands.tiling;
        for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
            for lane in tile.clone() {
                let (h, t) = sums[lane * K::columns()..][..K::columns()].split_at(K::LANES);
                if width == K::LANES {
                    self.unit(place, &tile, lane, start, K::LANES, [h, t]);
                } else {
                    self.unit(place, &tile, lane, start, width, [h, t]);
                }
            }
        }
    }

    /// Brings nearer what will be written of a panel that comes later.
    #[inline(always)]
    fn fetch(&self, place: Place, start: usize) {
        let Sizes { batch, hidden, time, depth } = self.inputs.sizes;
        if let Some(gates) = self.gates.filter(|_| start < hidden) {
            let slot = (place.sublayer * time + place.step) * batch;
            let next = (place.index + 1) % depth * time + (place.index + 1) / depth;
            for lane in 0..batch {
                gates.fetch(2 * (slot + lane) * hidden + start);
                gates.fetch((2 * (slot + lane) + 1) * hidden + start);
                self.states.fetch((next * batch + lane) * hidden + start);
            }
        }
    }

    /// `width` units of one lane.
    #[inline(always)]
    fn unit(
        &self,
        place: Place,
        tile: &Range<usize>,
        lane: usize,
        start: usize,
        width: usize,
        z: [&[K::Element]; 2],
    ) {
        let Sizes { batch, hidden, depth, time } = self.inputs.sizes;
        let row = |matrix: usize, lane: usize| (matrix * batch + lane) * hidden + start;
        let (bias, x) = (
            &self.inputs.bias[2 * place.sublayer * hidden..],
            &self.inputs.projected[place.step * batch * 2 * hidden..],
        );
        let x = (place.sublayer == 0).then(|| {
            [&x[2 * lane * hidden + start..][..width], &x[(2 * lane + 1) * hidden + start..][..width]]
        });
        let bias = [&bias[start..][..width], &bias[hidden + start..][..width]];
        let slot = |index: usize| {
            if self.gates.is_some() { (index % depth) * time + index / depth } else { index % 2 }
        };
        // SAFETY: this member's units; the slot was written before the members met.
        let state = unsafe { self.states.read(row(slot(place.index), lane), width) };
        let mut next = [K::Element::zero(); MOST_COLUMNS];
        let next = &mut next[..width];
        let mut gates = [[K::Element::zero(); MOST_COLUMNS]; 2];
        let [h, t] = &mut gates;
        highway(z, x, bias, state, &mut h[..width], &mut t[..width], next);
        // SAFETY: this member's units, which no other touches.
        unsafe {
            if let Some(record) = &self.gates {
                let at = 2 * slot(place.index) * batch * hidden + 2 * lane * hidden + start;
                record.part(at, width).copy_from_slice(&h[..width]);
                record.part(at + hidden, width).copy_from_slice(&t[..width]);
            }
            if place.index + 1 < time * depth {
                self.states.part(row(slot(place.index + 1), lane), width).copy_from_slice(next);
            }
            if place.sublayer + 1 == depth {
                self.outputs.part(row(place.step, lane), width).copy_from_slice(next);
            }
        }
        self.write_operands(place.index + 1, tile, lane, start, next);
    }

    /// The masked state as operands of the products to come.
    #[inline(always)]
    fn write_operands(
        &self,
        turn: usize,
        tile: &Range<usize>,
        lane: usize,
        start: usize,
        state: &[K::Element],
    ) {
        let at = lane * self.inputs.sizes.hidden + start;
        let mask = self.inputs.mask.map(|mask| &mask[at..][..state.len()]);
        // SAFETY: this member's units, or tiles before the first product.
        unsafe {
            match mask {
                None => self.operands.write(turn, tile, lane, start / K::DEPTH, state, |value, _| value),
                Some(mask) => {
                    self.operands.write(turn, tile, lane, start / K::DEPTH, state, |value, i| value * mask[i])
                }
            }
        }
    }
}

/// Pre-activations become gates, the state moves on.
#[inline(always)]
fn highway<T: Real>(
    z: [&[T]; 2],
    x: Option<[&[T]; 2]>,
    bias: [&[T]; 2],
    state: &[T],
    h: &mut [T],
    t: &mut [T],
    next: &mut [T],
) {
    let width = next.len();
    let (z, h, t, state) = (z.map(|z| &z[..width]), &mut h[..width], &mut t[..width], &state[..width]);
    for i in 0..width {
        h[i] = z[0][i] + bias[0][i];
        t[i] = z[1][i] + bias[1][i];
    }
    if let Some(x) = x {
        for i in 0..width {
            h[i] += x[0][i];
            t[i] += x[1][i];
        }
    }
    for i in 0..width {
        h[i] = h[i].fast_tanh();
        t[i] = sigmoid(t[i]);
        next[i] = state[i] + t[i] * (h[i] - state[i]);
    }
}
