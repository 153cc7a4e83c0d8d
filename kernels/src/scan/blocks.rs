//! A long window in blocks of time steps. Of a cell whose state follows from what it saved, a block keeps the state that
//! entered it alone; the others are computed again when the backward pass comes to the block, and its share of the weights'
//! gradients is added before the next. So of an RHN a window keeps two numbers a unit and sublayer step in place of three,
//! and has the third for one block at a time.

use super::cell::{MOST_STATES, MOST_VALUES, Pointwise, States, Values};
use super::cpu::forward;
use super::window::{
    WindowInputs, WindowLayout, WindowOutputs, WindowRecord, WindowSizes, load_vectors, store_vectors,
};
use crate::cpu::chunk::{Chunk, load, store};
use crate::cpu::packed::Weights;
use crate::cpu::pool;
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use crate::cpu::workspace;
use crate::memory::release_free_pages;
use std::marker::PhantomData;

/// Bytes of a block's record. Of a window that has fewer there is nothing to save.
pub(super) const BLOCK: usize = 96 << 20;

/// The time steps of a block of a window whose record is kept, of at least `bytes` if the window has them.
fn steps_of_block<T, C: Pointwise>(sizes: WindowSizes, bytes: usize) -> usize {
    let WindowSizes { time, batch, depth, hidden } = sizes;
    let step = batch * depth * hidden * (C::STATES + C::SAVED) * size_of::<T>();
    let blocks = (time * step / bytes.max(1)).clamp(1, time);
    time.div_ceil(blocks)
}

/// [`forward`] in blocks of about `bytes`; the records of the blocks if they are wanted, in the order of their steps.
pub(super) fn forward_in_blocks<K: Kernel, C: Pointwise>(
    weights: &dyn Weights<K>,
    inputs: &WindowInputs<'_, K::Element>,
    records: bool,
    outputs: WindowOutputs<'_, K::Element>,
    bytes: usize,
) -> Option<Vec<WindowRecord<K::Element>>> {
    let WindowSizes { time, batch, hidden, .. } = inputs.sizes;
    let steps = if records { steps_of_block::<K::Element, C>(inputs.sizes, bytes) } else { time };
    if steps == time {
        return forward::<K, C>(weights, inputs, records, outputs).map(|record| vec![record]);
    }
    release_free_pages(); // of the weights' gradients of the step before
    let WindowOutputs { hidden: all_outputs, last } = outputs;
    let projected = inputs.projected.chunks(steps * batch * C::INPUTS * hidden);
    let outputs = all_outputs.chunks_mut(steps * batch * C::OUTPUTS * hidden);
    let mut entering: Vec<Vec<K::Element>> =
        inputs.state[..C::STATES].iter().map(|part| part.to_vec()).collect();
    let mut kept = Vec::with_capacity(time.div_ceil(steps));
    for (index, (projected, outputs)) in projected.zip(outputs).enumerate() {
        let sizes = WindowSizes { time: steps.min(time - index * steps), ..inputs.sizes };
        let mut state: [&[K::Element]; MOST_STATES] = [&[]; MOST_STATES];
        state.iter_mut().zip(&entering).for_each(|(state, part)| *state = part);
        let inputs = WindowInputs { projected, state, sizes, ..*inputs };
        let to = WindowOutputs { hidden: &mut *outputs, last: &mut *last };
        let mut record = forward::<K, C>(weights, &inputs, true, to).expect("it was asked for");
        if C::STATE_FROM_SAVED {
            record.states = workspace::take(0);
            record.entered = entering.concat();
        }
        kept.push(record);
        let last_step = &outputs[(sizes.time - 1) * batch * C::OUTPUTS * hidden..];
        for (to, from) in entering[0].chunks_mut(hidden).zip(last_step.chunks(C::OUTPUTS * hidden)) {
            to.copy_from_slice(&from[..hidden]);
        }
        for (to, from) in entering[1..].iter_mut().zip(last.chunks(batch * hidden)) {
            to.copy_from_slice(from);
        }
    }
    Some(kept)
}

impl<T: Real> WindowRecord<T> {
    /// Computes the states again of a record that keeps only the first.
    pub(super) fn complete<K: Kernel<Element = T>, C: Pointwise>(&mut self) {
        match K::LANES {
            _ if self.entered.is_empty() => {}
            16 => self.complete_by_vectors::<K, C, 16>(),
            _ => self.complete_by_vectors::<K, C, 8>(),
        }
    }

    /// With `N` = `K::LANES`, which no array's length can name.
    fn complete_by_vectors<K: Kernel<Element = T>, C: Pointwise, const N: usize>(&mut self) {
        let layout = self.layout;
        let mut states = workspace::take::<T>(C::STATES * layout.vector(self.sizes.depth, 0, 0) * N);
        let pass = StatesAgain::<T, C, N> {
            sizes: self.sizes,
            layout,
            entered: &self.entered,
            saved: Shared::new(&mut self.saved),
            states: Shared::new(&mut states),
            cell: PhantomData,
        };
        pool::run(|worker| {
            for vector in worker.share(layout.vectors) {
                pass.first(vector);
                for index in 1..self.sizes.steps() {
                    K::vectorized(
                        #[inline(always)]
                        || pass.next::<K>(index, vector),
                    );
                }
            }
        });
        self.states = states;
        self.entered = Vec::new();
    }
}

/// Computes the states of a block again; a worker has vectors of units of its own.
struct StatesAgain<'a, T, C, const N: usize> {
    sizes: WindowSizes,
    layout: WindowLayout,
    entered: &'a [T],
    saved: Shared<'a, T>,
    states: Shared<'a, T>,
    cell: PhantomData<C>,
}

impl<T: Real, C: Pointwise, const N: usize> StatesAgain<'_, T, C, N> {
    /// The position of a sublayer step's values of a vector of units and the first batch row, in vectors.
    #[inline(always)]
    fn position(&self, index: usize, vector: usize) -> usize {
        let WindowSizes { batch, depth, .. } = self.sizes;
        self.layout.vector(index % depth, vector, index / depth * batch)
    }

    /// The state that entered the block.
    fn first(&self, vector: usize) {
        let WindowSizes { batch, hidden, .. } = self.sizes;
        let start = vector * N;
        let position = self.position(0, vector);
        for (row, part) in (0..batch).flat_map(|row| (0..C::STATES).map(move |part| (row, part))) {
            let from = (part * batch + row) * hidden + start;
            let state: Chunk<T, N> = load(self.entered, from, N.min(hidden - start));
            // SAFETY: workers' vectors are disjoint.
            store(unsafe { self.states.part((C::STATES * (position + row) + part) * N, N) }, &state);
        }
    }

    /// The state that enters sublayer step `index`, from the step before.
    #[inline(always)]
    fn next<K: Kernel<Element = T>>(&self, index: usize, vector: usize) {
        let before = self.position(index - 1, vector);
        let now = self.position(index, vector);
        for row in 0..self.sizes.batch {
            let from = C::STATES * (before + row) * N;
            let saved = C::SAVED * (before + row) * N;
            // SAFETY: workers' vectors are disjoint, and nobody writes what was saved.
            unsafe {
                let mut state: States<T, N> = load_vectors::<K, N, MOST_STATES>(self.states, from, C::STATES);
                let saved: Values<T, N> = load_vectors::<K, N, MOST_VALUES>(self.saved, saved, C::SAVED);
                C::state_again(&saved, &mut state);
                let to = C::STATES * (now + row) * N;
                store_vectors::<K, N, MOST_STATES>(self.states, to, C::STATES, &state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::steps_of_block;
    use crate::cpu::instruction_set::InstructionSet;
    use crate::cpu::pool::with_threads;
    use crate::precision::Precision;
    use crate::rng::Rng;
    use crate::scan::op::{Scan, behind_state, state_after};
    use crate::scan::window::WindowSizes;
    use crate::scan::{Gru, HiddenMask, Hlstm, KurataLstm, Lstm, Pointwise, Rhn, UncoupledRhn};
    use candle_core::{DType, Device, Tensor, Var};

    fn random(name: &str, shape: &[usize], dtype: DType) -> Var {
        let mut rng = Rng::keyed(3, name, shape.iter().sum::<usize>() as u64);
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.uniform() - 0.5).collect();
        let values = Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        Var::from_tensor(&values).unwrap()
    }

    /// Sizes of a window, with a row of batch more than a register tile or less.
    #[derive(Clone, Copy)]
    struct Sizes {
        time: usize,
        batch: usize,
        depth: usize,
        hidden: usize,
    }

    /// The outputs and the state after, and all gradients, that of the state before among them, of a window in blocks of `bytes`.
    fn window<C: Pointwise>(
        sizes: Sizes,
        precision: Precision,
        bytes: usize,
        masked: bool,
    ) -> [Vec<Vec<f64>>; 2] {
        let Sizes { time, batch, depth, hidden } = sizes;
        let dtype = if precision == Precision::F64 { DType::F64 } else { DType::F32 };
        let projected = random("projected", &[time, batch, C::INPUTS * hidden], dtype);
        let recurrent = random("recurrent", &[depth, hidden, C::GATES * hidden], dtype);
        let bias = random("bias", &[depth, (C::GATES + C::UNIT_WEIGHTS) * hidden], dtype);
        let entering = random("state", &[C::STATES, batch, hidden], dtype);
        let state: Vec<Tensor> = (0..C::STATES).map(|part| entering.get(part).unwrap()).collect();
        let mask = match masked {
            true => HiddenMask::Shared(random("mask", &[batch, hidden], dtype).as_tensor().detach()),
            false => HiddenMask::None,
        };
        let mut op = Scan::<C>::new(&state, &mask, true, precision).unwrap();
        op.block = bytes;
        op.follows_state = true;
        let last = op.last.clone();
        let behind = behind_state(&projected, &state).unwrap();
        let outputs = behind.apply_op3(&recurrent, &bias, op).unwrap();
        let after = state_after(&outputs, &recurrent, &last).unwrap();
        let grads = outputs.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let flat = |tensor: &Tensor| {
            tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        let found = std::iter::once(&outputs).chain(&after).map(flat).collect();
        let of =
            [&projected, &recurrent, &bias, &entering].map(|variable| flat(grads.get(variable).unwrap()));
        [found, of.to_vec()]
    }

    fn in_blocks_it_is_the_same<C: Pointwise>(sizes: Sizes) {
        for (precision, tolerance) in
            [(Precision::F64, 1e-12), (Precision::F32, 1e-5), (Precision::Bf16, 2e-2)]
        {
            for masked in [false, true] {
                let [wanted, wanted_grads] = window::<C>(sizes, precision, usize::MAX, masked);
                // Blocks of a step each, and of two, of which the last has only one.
                for bytes in [1, 17 * sizes.batch * sizes.depth * sizes.hidden] {
                    let [found, grads] = window::<C>(sizes, precision, bytes, masked);
                    assert_eq!(found, wanted, "{} {precision:?} {bytes}", C::NAME);
                    for (found, wanted) in grads.iter().zip(&wanted_grads) {
                        let largest = wanted.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
                        let most = found.iter().zip(wanted).map(|(a, b)| (a - b).abs());
                        let differs =
                            most.fold(0.0, |most: f64, value| if value <= most { most } else { value });
                        assert!(
                            differs <= tolerance * largest,
                            "{} {precision:?} {bytes}: {differs}",
                            C::NAME
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_window_in_blocks_has_the_outputs_to_the_bit_and_the_gradients_to_rounding() {
        let deep = Sizes { time: 5, batch: 3, depth: 3, hidden: 21 };
        in_blocks_it_is_the_same::<Rhn>(deep);
        in_blocks_it_is_the_same::<Rhn>(Sizes { batch: 19, ..deep });
        in_blocks_it_is_the_same::<UncoupledRhn>(deep);
        let one = Sizes { depth: 1, ..deep };
        in_blocks_it_is_the_same::<Lstm>(one);
        in_blocks_it_is_the_same::<Gru>(one);
        in_blocks_it_is_the_same::<Hlstm<true>>(one);
        in_blocks_it_is_the_same::<KurataLstm>(one);
    }

    #[test]
    fn blocks_have_the_same_bits_on_any_number_of_threads() {
        let sizes = Sizes { time: 4, batch: 24, depth: 2, hidden: 40 };
        for set in InstructionSet::available() {
            let run = |threads: usize| {
                with_threads(threads, || set.force(|| window::<Rhn>(sizes, Precision::F32, 1, true)))
            };
            let one = run(1);
            assert_eq!(run(2), one, "{set:?}");
            assert_eq!(run(3), one, "{set:?}");
        }
    }

    #[test]
    fn a_block_has_as_many_bytes_as_asked_for_or_the_whole_window() {
        let sizes = WindowSizes { time: 50, batch: 128, depth: 10, hidden: 1500 };
        assert_eq!(steps_of_block::<f32, Rhn>(sizes, super::BLOCK), 5);
        assert_eq!(steps_of_block::<f32, Rhn>(sizes, 1), 1);
        assert_eq!(steps_of_block::<f32, Rhn>(sizes, usize::MAX), 50);
        assert_eq!(
            steps_of_block::<f32, Rhn>(WindowSizes { batch: 20, hidden: 830, ..sizes }, super::BLOCK),
            50
        );
        assert_eq!(steps_of_block::<f32, Rhn>(WindowSizes { hidden: 0, ..sizes }, super::BLOCK), 50);
    }
}
