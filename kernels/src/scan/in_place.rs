//! The recurrent weights as they lie in memory, for windows of one batch row that are so short that packing the weights
//! would take longer than the window: each step is one pass over them, in either direction.

use super::cell::Pointwise;
use super::packed::vectors_together;
use crate::cpu::packed::Weights;
use crate::cpu::pool::Worker;
use crate::cpu::thin::combine_all;
use crate::cpu::tile::{Kernel, Step};
use crate::cpu::workspace::{self, Buffer};
use num_traits::Zero;
use std::marker::PhantomData;

/// Time steps up to which a window is not worth packing for.
const MOST_STEPS: usize = 64;

/// Rows of weights whose sums are taken together.
const ROWS: usize = 8;

/// Dot products that are taken together.
const TOGETHER: usize = 4;

/// Sums of one dot product: they are added up at its end, so the order of the sum is the same on every processor.
const SUMS: usize = 16;

/// Whether a window of these sizes reads its weights here; operands are not rounded.
pub(super) fn fits<K: Kernel>(time: usize, batch: usize) -> bool {
    K::DEPTH == 1 && batch == 1 && time <= MOST_STEPS
}

/// `(depth, hidden, gates · hidden)` of cell `C`.
pub(super) struct InPlace<'a, K: Kernel, C> {
    recurrent: &'a [K::Element],
    hidden: usize,
    cell: PhantomData<C>,
}

impl<'a, K: Kernel, C: Pointwise> InPlace<'a, K, C> {
    pub(super) fn new(recurrent: &'a [K::Element], hidden: usize) -> Self {
        Self { recurrent, hidden, cell: PhantomData }
    }

    /// What unit `unit` of the state has in all products of a sublayer.
    fn row(&self, sublayer: usize, unit: usize) -> &'a [K::Element] {
        let width = C::GATES * self.hidden;
        &self.recurrent[(sublayer * self.hidden + unit) * width..][..width]
    }
}

/// Forward: `x R`, in the order of the sums that packed weights have.
impl<K: Kernel, C: Pointwise> Weights<K> for InPlace<'_, K, C> {
    fn steps(&self) -> usize {
        self.hidden
    }

    fn parts(&self) -> usize {
        self.hidden.div_ceil(K::LANES).div_ceil(vectors_together::<C>())
    }

    fn ahead(&self) -> usize {
        1
    }

    fn sums(&self, rows: usize) -> Buffer<K::Element> {
        assert_eq!(rows, 1, "weights are read in place for one batch row");
        workspace::take((self.parts() + 1) * vectors_together::<C>() * C::GATES * K::LANES)
    }

    fn multiply(
        &self,
        sublayer: usize,
        _then: usize,
        operands: &[K::Row],
        worker: Worker<'_>,
        sums: &mut [K::Element],
        mut finish: impl FnMut(usize, &[K::Element]),
    ) {
        let together = vectors_together::<C>();
        let units = together * K::LANES;
        let own = worker.share(self.parts());
        let first = own.start * units;
        let padded = own.len() * units;
        let width = padded.min(self.hidden - first.min(self.hidden));
        let (sums, part) = sums.split_at_mut(C::GATES * padded);
        K::vectorized(
            #[inline(always)]
            || {
                for start in (0..self.hidden).step_by(ROWS) {
                    let count = ROWS.min(self.hidden - start);
                    for (gate, sums) in sums.chunks_exact_mut(padded.max(1)).enumerate() {
                        let line =
                            |k: usize| &self.row(sublayer, start + k)[gate * self.hidden + first..][..width];
                        let factor = |k: usize| operands[start + k].first();
                        combine_all::<K>(&mut sums[..width], count, factor, line, start > 0);
                    }
                }
            },
        );
        for (index, group) in own.enumerate() {
            for (at, part) in part.chunks_exact_mut(K::LANES).take(together * C::GATES).enumerate() {
                let from = at % C::GATES * padded + index * units + at / C::GATES * K::LANES;
                part.copy_from_slice(&sums[from..][..K::LANES]);
            }
            finish(group, &part[..together * C::GATES * K::LANES]);
        }
    }
}

/// The same weights backward: `z Rᵀ`.
pub(super) struct Transposed<'a, K: Kernel, C>(pub(super) InPlace<'a, K, C>);

impl<K: Kernel, C: Pointwise> Weights<K> for Transposed<'_, K, C> {
    fn steps(&self) -> usize {
        C::GATES * self.0.hidden
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
        mut finish: impl FnMut(usize, &[K::Element]),
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
                    for at in (0..width).step_by(TOGETHER) {
                        // Past the last unit the last one is computed again.
                        let unit = |within: usize| start + (at + within).min(width - 1);
                        let rows = std::array::from_fn(|within| self.0.row(sublayer, unit(within)));
                        let found: [_; TOGETHER] = dots::<K, TOGETHER>(rows, values);
                        let count = TOGETHER.min(width - at);
                        sums[at..at + count].copy_from_slice(&found[..count]);
                    }
                },
            );
            finish(panel, &sums[..K::columns()]);
        }
    }
}

/// `Σ rows[n][i] xs[i]` for each n; all are of one length.
#[inline(always)]
fn dots<K: Kernel, const N: usize>(rows: [&[K::Element]; N], xs: &[K::Element]) -> [K::Element; N] {
    let rows = rows.map(|row| row[..xs.len()].as_chunks::<SUMS>());
    let (chunks, rest) = xs.as_chunks::<SUMS>();
    let mut sums = [[K::Element::zero(); SUMS]; N];
    for (index, xs) in chunks.iter().enumerate() {
        for (sums, (row, _)) in sums.iter_mut().zip(&rows) {
            for lane in 0..SUMS {
                sums[lane] = K::multiply_add(row[index][lane], xs[lane], sums[lane]);
            }
        }
    }
    let mut found = [K::Element::zero(); N];
    for ((found, sums), (_, row)) in found.iter_mut().zip(&mut sums).zip(&rows) {
        for ((sum, &weight), &x) in sums.iter_mut().zip(*row).zip(rest) {
            *sum = K::multiply_add(weight, x, *sum);
        }
        let mut count = SUMS / 2;
        while count > 0 {
            for lane in 0..count {
                sums[lane] += sums[lane + count];
            }
            count /= 2;
        }
        *found = sums[0];
    }
    found
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
                assert_eq!(alone[0], packed[0], "{what}");
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
