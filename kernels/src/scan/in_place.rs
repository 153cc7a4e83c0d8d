//! The recurrent weights as they lie in memory, for windows of one batch row that are so short that packing the weights
//! would take longer than the window: each step is one pass over them, in either direction.

use super::cell::Pointwise;
use super::packed::vectors_together;
use crate::cpu::packed::Weights;
use crate::cpu::pool::Worker;
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::thin::{DOTS, combine_all, dots};
use crate::cpu::tile::{Kernel, Step};
use crate::cpu::workspace::{self, Buffer};
use num_traits::Zero;

/// Time steps up to which a window is not worth packing for.
const MOST_STEPS: usize = 64;

/// Parts into which the rows of a sublayer's weights are cut. A worker adds up the lines of whole parts, which lie side by
/// side in memory, and the sums of all parts are added in their order, so the number of workers does not matter.
const PARTS: usize = 16;

/// Rows ahead of the present one that are fetched.
const AHEAD: usize = 8;

/// Whether a window of these sizes reads its weights here; operands are not rounded.
pub(super) fn fits<K: Kernel>(time: usize, batch: usize) -> bool {
    K::DEPTH == 1 && batch == 1 && time <= MOST_STEPS
}

/// The weights of a cell, `(depth, hidden, gates · hidden)`.
pub(super) struct InPlace<'a, T> {
    recurrent: &'a [T],
    hidden: usize,
    gates: usize,
    /// Vectors of units whose gates are finished together.
    together: usize,
}

/// Weights as a pass forward reads them.
pub(super) struct Lines<'a, T> {
    weights: InPlace<'a, T>,
    /// `(parts, gates · hidden)`: the sums of each part's lines.
    sums: Shared<'a, T>,
}

impl<'a, T: Real> Lines<'a, T> {
    /// With a buffer of [`InPlace::sums`] values.
    pub(super) fn new(weights: InPlace<'a, T>, sums: &'a mut [T]) -> Self {
        assert_eq!(sums.len(), weights.sums(), "a buffer for the sums of the parts");
        Self { weights, sums: Shared::new(sums) }
    }

    /// Adds up the lines of this worker's parts.
    fn add_lines<K: Kernel<Element = T>>(&self, sublayer: usize, operands: &[K::Row], worker: Worker<'_>) {
        let width = self.weights.width();
        let hidden = self.weights.hidden;
        for part in worker.share(PARTS) {
            // SAFETY: workers' parts are disjoint, and are read only after a barrier.
            let sums = unsafe { self.sums.part(part * width, width) };
            let rows = hidden * part / PARTS..hidden * (part + 1) / PARTS;
            let line = |k: usize| self.weights.row(sublayer, rows.start + k);
            let factor = |k: usize| operands[rows.start + k].first();
            K::vectorized(
                #[inline(always)]
                || combine_all::<K>(sums, rows.len(), factor, line, false, AHEAD * width),
            );
        }
    }
}

impl<'a, T> InPlace<'a, T> {
    /// Those of cell `C`.
    pub(super) fn new<C: Pointwise>(recurrent: &'a [T], hidden: usize) -> Self {
        Self { recurrent, hidden, gates: C::GATES, together: vectors_together::<C>() }
    }

    /// Products of a sublayer.
    fn width(&self) -> usize {
        self.gates * self.hidden
    }

    /// What unit `unit` of the state has in all products of a sublayer.
    fn row(&self, sublayer: usize, unit: usize) -> &'a [T] {
        &self.recurrent[(sublayer * self.hidden + unit) * self.width()..][..self.width()]
    }

    /// How many sums a pass forward needs a buffer for.
    pub(super) fn sums(&self) -> usize {
        PARTS * self.width()
    }
}

/// Forward: `x R`.
impl<K: Kernel> Weights<K> for Lines<'_, K::Element> {
    fn steps(&self) -> usize {
        self.weights.hidden
    }

    fn parts(&self) -> usize {
        self.weights.hidden.div_ceil(K::LANES).div_ceil(self.weights.together)
    }

    fn ahead(&self) -> usize {
        1
    }

    fn sums(&self, rows: usize) -> Buffer<K::Element> {
        assert_eq!(rows, 1, "weights are read in place for one batch row");
        workspace::take(self.weights.together * self.weights.gates * K::LANES)
    }

    fn multiply(
        &self,
        sublayer: usize,
        _then: usize,
        operands: &[K::Row],
        worker: Worker<'_>,
        sums: &mut [K::Element],
        finish: &mut dyn FnMut(usize, &[K::Element]),
    ) {
        self.add_lines::<K>(sublayer, operands, worker);
        worker.barrier();
        let InPlace { hidden, gates, together, .. } = self.weights;
        for group in worker.share(Weights::<K>::parts(self)) {
            for (at, sums) in sums.chunks_exact_mut(K::LANES).enumerate() {
                let start = (group * together + at / gates) * K::LANES;
                let width = K::LANES.min(hidden - start.min(hidden));
                sums.fill(K::Element::zero());
                for part in 0..PARTS {
                    let from = (part * gates + at % gates) * hidden + start.min(hidden);
                    // SAFETY: written before the barrier, and not again before the one after this product.
                    let part = unsafe { self.sums.read(from, width) };
                    sums.iter_mut().zip(part).for_each(|(sum, &part)| *sum += part);
                }
            }
            finish(group, sums);
        }
    }
}

/// The same weights backward: `z Rᵀ`.
pub(super) struct Transposed<'a, T>(pub(super) InPlace<'a, T>);

impl<K: Kernel> Weights<K> for Transposed<'_, K::Element> {
    fn steps(&self) -> usize {
        self.0.width()
    }

    fn parts(&self) -> usize {
        self.0.hidden.div_ceil(K::columns())
    }

    fn ahead(&self) -> usize {
        1
    }

    fn sums(&self, rows: usize) -> Buffer<K::Element> {
        assert_eq!(rows, 1, "weights are read in place for one batch row");
        workspace::take(Weights::<K>::steps(self) + K::columns())
    }

    fn multiply(
        &self,
        sublayer: usize,
        _then: usize,
        operands: &[K::Row],
        worker: Worker<'_>,
        sums: &mut [K::Element],
        finish: &mut dyn FnMut(usize, &[K::Element]),
    ) {
        let (values, sums) = sums.split_at_mut(operands.len());
        values.iter_mut().zip(operands).for_each(|(value, &operand)| *value = operand.first());
        for panel in worker.share(Weights::<K>::parts(self)) {
            let start = panel * K::columns();
            let width = K::columns().min(self.0.hidden - start);
            sums[width..].fill(K::Element::zero());
            K::vectorized(
                #[inline(always)]
                || {
                    for at in (0..width).step_by(DOTS) {
                        // Past the last unit the last one is computed again.
                        let unit = |within: usize| start + (at + within).min(width - 1);
                        let rows = std::array::from_fn(|within| self.0.row(sublayer, unit(within)));
                        let found = dots::<K, DOTS>(rows, values, DOTS * values.len());
                        let count = DOTS.min(width - at);
                        sums[at..at + count].copy_from_slice(&found[..count]);
                    }
                },
            );
            finish(panel, &sums[..K::columns()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Gru, HiddenMask, Hlstm, KurataLstm, Lstm, MOST_STATES, Rhn, UncoupledRhn, scan};
    use super::MOST_STEPS;
    use crate::cpu::instruction_set::InstructionSet;
    use crate::cpu::pool::with_threads;
    use crate::precision::Precision;
    use crate::rng::Rng;
    use candle_core::{Device, Tensor, Var};

    const TIME: usize = 3;
    const DEPTH: usize = 2;

    fn random(name: &str, shape: &[usize]) -> Var {
        let mut rng = Rng::keyed(7, name, 0);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.uniform() as f32 - 0.5).collect();
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// The outputs of the first of `batch` equal rows, and its gradients of the projected input and the weights.
    fn run<C: super::super::Cell>(batch: usize, hidden: usize) -> [Vec<f32>; 3] {
        let depth = if C::GATES == 2 { DEPTH } else { 1 };
        let row = random("projected", &[TIME, 1, C::INPUTS * hidden]);
        let projected = Var::from_tensor(&row.repeat((1, batch, 1)).unwrap()).unwrap();
        let recurrent = random("recurrent", &[depth, hidden, C::GATES * hidden]);
        let bias = random("bias", &[depth, (C::GATES + C::UNIT_WEIGHTS) * hidden]);
        let state: Vec<Tensor> = (0..C::STATES)
            .map(|part| random(&format!("state {part}"), &[1, hidden]).repeat((batch, 1)).unwrap())
            .collect();
        assert!(state.len() <= MOST_STATES);
        let none = HiddenMask::None;
        let (outputs, _) = scan::<C>(&projected, &recurrent, &bias, &state, &none, Precision::F32).unwrap();
        let weights = random("loss", &[TIME, 1, outputs.dim(2).unwrap()]).repeat((1, batch, 1)).unwrap();
        let grads = (&outputs * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let first = |tensor: &Tensor| {
            tensor.narrow(1, 0, 1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let recurrent = (grads.get(&recurrent).unwrap() / batch as f64).unwrap();
        [
            first(&outputs),
            first(grads.get(&projected).unwrap()),
            recurrent.flatten_all().unwrap().to_vec1().unwrap(),
        ]
    }

    fn assert_near(found: &[f32], wanted: &[f32], what: &str) {
        let far = found.iter().zip(wanted).map(|(a, b)| (a - b).abs());
        let far = far.fold(0f32, |most, far| if far <= most { most } else { far });
        assert!(far < 2e-6, "{what}: {far:e}");
    }

    /// One row reads its weights in place, two rows pack them.
    fn as_packed<C: super::super::Cell>() {
        const { assert!(TIME <= MOST_STEPS) };
        for set in InstructionSet::available() {
            for hidden in [5, 16, 47] {
                let what = format!("{} of {hidden} units, {set:?}", C::NAME);
                let [alone, packed] = set.force(|| [run::<C>(1, hidden), run::<C>(2, hidden)]);
                assert_near(&alone[0], &packed[0], &what);
                assert_near(&alone[1], &packed[1], &what);
                assert_near(&alone[2], &packed[2], &what);
                let one = set.force(|| with_threads(1, || run::<C>(1, hidden)));
                let three = set.force(|| with_threads(3, || run::<C>(1, hidden)));
                assert_eq!([&one, &three], [&alone, &alone], "threads, {what}");
            }
        }
    }

    #[test]
    fn weights_that_are_read_in_place_are_those_that_are_packed() {
        as_packed::<Rhn>();
        as_packed::<UncoupledRhn>();
        as_packed::<Lstm>();
        as_packed::<Gru>();
        as_packed::<Hlstm<false>>();
        as_packed::<Hlstm<true>>();
        as_packed::<KurataLstm>();
    }
}
