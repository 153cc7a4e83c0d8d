//! A recurrence whose weights are packed once: for evaluation.

use super::blocks::forward_in_blocks;
use super::cell::{MOST_STATES, Pointwise};
use super::cpu::forward;
use super::cpu_grads::gather;
use super::hidden_mask::HiddenMask;
use super::in_place::{self, InPlace, Lines};
use super::packed::PackedCell;
use super::window::{WindowInputs, WindowOutputs, WindowRecord, WindowSizes, last_hidden};
use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::packed::Weights;
use crate::cpu::real::{self, Real};
use crate::cpu::tile::Kernel;
use crate::cpu::workspace;
use crate::error::Result;
use crate::precision::Precision;
use candle_core::{DType, Device, Result as CandleResult, Tensor};
use std::marker::PhantomData;
use std::sync::Arc;

/// Recurrent weights that do not change while this exists, packed for their kernel.
pub struct Prepared {
    packed: Packs,
    recurrent: Tensor,
    bias: Tensor,
    parts: usize,
    outputs: usize,
    precision: Precision,
    /// [`super::scan`] of the cell, where packed weights do not help.
    plain: Plain,
}

/// [`super::scan`] of one cell.
pub(super) type Plain = fn([&Tensor; 3], &[Tensor], &HiddenMask, Precision) -> Result<(Tensor, Vec<Tensor>)>;

/// Packed weights by the type of their elements.
pub enum Packs {
    /// In single precision.
    F32(Arc<dyn Recurrence<f32>>),
    /// In double precision.
    F64(Arc<dyn Recurrence<f64>>),
    /// Elsewhere than on the CPU.
    None,
}

impl Prepared {
    /// Takes contiguous weights and what a cell made of them.
    pub(super) fn of_parts(
        packed: Packs,
        [recurrent, bias]: [Tensor; 2],
        [parts, outputs]: [usize; 2],
        precision: Precision,
        plain: Plain,
    ) -> Self {
        Self { packed, recurrent, bias, parts, outputs, precision, plain }
    }

    /// As [`super::scan`]; the history is not followed.
    pub fn forward(
        &self,
        projected: &Tensor,
        state: &[Tensor],
        mask: &HiddenMask,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        match &self.packed {
            Packs::F32(packed) if !mask.is_separate() => self.run(&**packed, projected, state, mask),
            Packs::F64(packed) if !mask.is_separate() => self.run(&**packed, projected, state, mask),
            _ => {
                let Self { recurrent, bias, precision, .. } = self;
                (self.plain)([&projected.detach(), recurrent, bias], state, mask, *precision)
            }
        }
    }

    fn run<T: Computed>(
        &self,
        packed: &dyn Recurrence<T>,
        projected: &Tensor,
        state: &[Tensor],
        mask: &HiddenMask,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let (time, batch, _) = projected.dims3()?;
        let (depth, hidden, _) = self.recurrent.dims3()?;
        let sizes = WindowSizes { time, batch, depth, hidden };
        let projected = projected.contiguous()?;
        let (outputs, last, _) = real::with_elements([&projected, &self.bias], |[projected, bias]| {
            let mask = mask.shared();
            let outputs = self.outputs;
            Window { projected, bias, state, mask, sizes, outputs }
                .run(|inputs, outputs| packed.run(inputs, false, outputs))
        })??;
        let outputs = Tensor::from_vec(outputs, (time, batch, self.outputs * hidden), projected.device())?;
        let mut state = vec![last_hidden(&outputs, hidden)?];
        state.extend(last);
        Ok((outputs, state))
    }

    /// The weights for one step after another at batch 1, from the zero state; `None` but on the CPU in single precision.
    pub fn steps(&self) -> Result<Option<Steps>> {
        let Packs::F32(packed) = &self.packed else { return Ok(None) };
        let (depth, hidden, _) = self.recurrent.dims3()?;
        Ok(Some(Steps {
            packed: packed.clone(),
            sizes: WindowSizes { time: 1, batch: 1, depth, hidden },
            bias: self.bias.flatten_all()?.to_vec1()?,
            state: vec![vec![0.0; hidden]; self.parts],
            output: vec![0.0; self.outputs * hidden],
            last: vec![0.0; (self.parts - 1) * hidden],
        }))
    }
}

/// One step after another at batch 1, on buffers that are kept: nothing is allocated for a step.
pub struct Steps {
    packed: Arc<dyn Recurrence<f32>>,
    sizes: WindowSizes,
    bias: Vec<f32>,
    /// The state's parts, `(hidden)` each; the first is what the layer gives.
    pub state: Vec<Vec<f32>>,
    output: Vec<f32>,
    last: Vec<f32>,
}

impl Steps {
    /// From what the input brings, `(inputs · hidden)`, to the next state.
    pub fn step(&mut self, projected: &[f32]) {
        let mut state: [&[f32]; MOST_STATES] = [&[]; MOST_STATES];
        state.iter_mut().zip(&self.state).for_each(|(state, part)| *state = part);
        let inputs = WindowInputs { projected, bias: &self.bias, state, mask: None, sizes: self.sizes };
        self.packed.run(&inputs, false, WindowOutputs { hidden: &mut self.output, last: &mut self.last });
        if self.output.len() == self.sizes.hidden {
            std::mem::swap(&mut self.state[0], &mut self.output);
        } else {
            self.state[0].copy_from_slice(&self.output[..self.sizes.hidden]);
        }
        for (state, last) in self.state[1..].iter_mut().zip(self.last.chunks_exact(self.sizes.hidden)) {
            state.copy_from_slice(last);
        }
    }
}

impl Packs {
    /// Packs the contiguous weights of cell `C`.
    pub(super) fn new<C: Pointwise>(recurrent: &Tensor, precision: Precision) -> Result<Self> {
        let (depth, hidden, _) = recurrent.dims3()?;
        let bf16 = precision.rounds();
        Ok(match (recurrent.device().is_cpu(), recurrent.dtype()) {
            (true, DType::F32) => Self::F32(real::with_elements([recurrent], |[recurrent]| {
                pack::<f32, C>(recurrent, depth, hidden, bf16)
            })?),
            (true, DType::F64) => Self::F64(real::with_elements([recurrent], |[recurrent]| {
                pack::<f64, C>(recurrent, depth, hidden, bf16)
            })?),
            _ => Self::None,
        })
    }
}

/// Packed weights of some kernel and cell.
pub trait Recurrence<T: Real>: Send + Sync {
    /// Writes the outputs, and returns the record if it is wanted.
    fn run(
        &self,
        inputs: &WindowInputs<'_, T>,
        records: bool,
        outputs: WindowOutputs<'_, T>,
    ) -> Option<WindowRecord<T>>;

    /// From a record of these weights, `(time, batch, hidden)` in row order: the first part of the state that entered
    /// the sublayer's steps, then each of the values that the cell saved.
    fn sublayer(&self, record: &WindowRecord<T>, sublayer: usize) -> Vec<Vec<T>>;
}

impl<K: Kernel, C: Pointwise> Recurrence<K::Element> for PackedCell<K, C> {
    fn run(
        &self,
        inputs: &WindowInputs<'_, K::Element>,
        records: bool,
        outputs: WindowOutputs<'_, K::Element>,
    ) -> Option<WindowRecord<K::Element>> {
        forward::<K, C>(&self.weights, inputs, records, outputs)
    }

    fn sublayer(&self, record: &WindowRecord<K::Element>, sublayer: usize) -> Vec<Vec<K::Element>> {
        let gathered = |values: &[K::Element], count: usize, part: usize| {
            let mut out = vec![K::Element::default(); record.layout.rows * record.sizes.hidden];
            gather::<K>(values, count, &[part], record, sublayer, &mut out);
            out
        };
        let state = gathered(&record.states, C::STATES, 0);
        let saved = (0..C::SAVED).map(|part| gathered(&record.saved, C::SAVED, part));
        std::iter::once(state).chain(saved).collect()
    }
}

/// Packs `(depth, hidden, gates · hidden)` for cell `C`.
fn pack<T: Computed, C: Pointwise>(
    recurrent: &[T],
    depth: usize,
    hidden: usize,
    bf16: bool,
) -> Arc<dyn Recurrence<T>> {
    T::with_kernel(bf16, Pack { recurrent, depth, hidden, cell: PhantomData::<C> })
}

struct Pack<'a, T, C> {
    recurrent: &'a [T],
    depth: usize,
    hidden: usize,
    cell: PhantomData<C>,
}

impl<T: Real, C: Pointwise> WithKernel<T> for Pack<'_, T, C> {
    type Output = Arc<dyn Recurrence<T>>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        Arc::new(PackedCell::<K, C>::new(self.recurrent, self.depth, self.hidden))
    }
}

/// A window of cell `C` on weights that are used once; if a record is wanted, that of each block of `block` bytes or more.
pub(super) fn run_once<T: Computed, C: Pointwise>(
    recurrent: &[T],
    window: &Window<'_, T>,
    records: bool,
    block: usize,
    bf16: bool,
) -> CandleResult<Ran<T, Records<T>>> {
    T::with_kernel(bf16, Once { recurrent, window, records, block, cell: PhantomData::<C> })
}

/// The records of a window's blocks if they are wanted, in the order of their steps.
pub(super) type Records<T> = Option<Vec<WindowRecord<T>>>;

struct Once<'a, T, C> {
    recurrent: &'a [T],
    window: &'a Window<'a, T>,
    records: bool,
    block: usize,
    cell: PhantomData<C>,
}

impl<T: Computed, C: Pointwise> WithKernel<T> for Once<'_, T, C> {
    type Output = CandleResult<Ran<T, Records<T>>>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        let WindowSizes { time, batch, depth, hidden } = self.window.sizes;
        if in_place::fits::<K>(time, batch) {
            let weights = InPlace::new::<C>(self.recurrent, hidden);
            let mut sums = workspace::take(weights.sums());
            let weights = Lines::new(weights, &mut sums);
            return self.run_by::<K>(&weights);
        }
        self.run_by::<K>(&PackedCell::<K, C>::new(self.recurrent, depth, hidden).weights)
    }
}

impl<T: Computed, C: Pointwise> Once<'_, T, C> {
    fn run_by<K: Kernel<Element = T>>(&self, weights: &dyn Weights<K>) -> CandleResult<Ran<T, Records<T>>> {
        self.window.run(|inputs, outputs| {
            forward_in_blocks::<K, C>(weights, inputs, self.records, outputs, self.block)
        })
    }
}

/// What a window reads beside its weights; shapes as in [`super::scan`].
pub(super) struct Window<'a, T> {
    pub(super) projected: &'a [T],
    pub(super) bias: &'a [T],
    pub(super) state: &'a [Tensor],
    pub(super) mask: Option<&'a Tensor>,
    pub(super) sizes: WindowSizes,
    /// Parts of the state that are returned for every time step.
    pub(super) outputs: usize,
}

/// The outputs, the parts of the state but the first after the last step, and what was kept.
pub(super) type Ran<T, R> = (Vec<T>, Vec<Tensor>, R);

impl<T: Computed> Window<'_, T> {
    /// What `run` makes of it.
    pub(super) fn run<R>(
        &self,
        run: impl FnOnce(&WindowInputs<'_, T>, WindowOutputs<'_, T>) -> R,
    ) -> CandleResult<Ran<T, R>> {
        let &Self { projected, bias, sizes, .. } = self;
        let WindowSizes { time, batch, hidden, .. } = sizes;
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<T>();
        let entering = self.state.iter().map(values).collect::<CandleResult<Vec<_>>>()?;
        let mut state: [&[T]; MOST_STATES] = [&[]; MOST_STATES];
        state.iter_mut().zip(&entering).for_each(|(state, part)| *state = part);
        let mask = self.mask.map(values).transpose()?;
        let mut outputs = vec![T::zero(); time * batch * self.outputs * hidden];
        let mut last = vec![T::zero(); (entering.len() - 1) * batch * hidden];
        let inputs = WindowInputs { projected, bias, state, mask: mask.as_deref(), sizes };
        let record = run(&inputs, WindowOutputs { hidden: &mut outputs, last: &mut last });
        let last = last.chunks_exact((batch * hidden).max(1));
        let last = last.map(|part| Tensor::from_slice(part, (batch, hidden), &Device::Cpu));
        Ok((outputs, last.collect::<CandleResult<_>>()?, record))
    }
}
