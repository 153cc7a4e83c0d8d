//! A recurrence over a whole window as one operation of candle, with a backward pass of its own.

use super::blocks::BLOCK;
use super::cell::Pointwise;
use super::cpu_backward::{Grads, Wanted, backward};
use super::cpu_grads::RecurrentGrad;
#[cfg(feature = "cuda")]
use super::cuda;
use super::hidden_mask::HiddenMask;
use super::prepared::{Window, run_once};
use super::reference;
use super::window::{WindowRecord, WindowSizes, last_hidden};
use crate::backend::Backend;
use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::real::{self, Real, by_float};
use crate::cpu::tile::Kernel;
use crate::cpu::workspace::Buffer;
use crate::error::Result;
use crate::gradients::{hand_over, hand_over_product, takes_product};
use crate::precision::Precision;
use crate::saved::SavedForBackward;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp3, D, DType, Layout, Result as CandleResult, Shape, Tensor, WithDType,
};
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

/// Batch rows times units that a GPU's kernels take: a thread each of one launch. What is larger, as many short pieces of text in
/// one window may be, is computed by plain operations.
pub(super) const MOST_UNITS: usize = 1 << 22;

/// [`super::scan`], from the projected input, the recurrent weights and the bias.
pub(super) fn operate<C: Pointwise>(
    [projected, recurrent, bias]: [&Tensor; 3],
    state: &[Tensor],
    mask: &HiddenMask,
    precision: Precision,
) -> Result<(Tensor, Vec<Tensor>)> {
    let has_kernel = match Backend::of(projected) {
        Backend::Cpu => true,
        Backend::Cuda => {
            let units = projected.dim(1)? * recurrent.dim(D::Minus2)?;
            C::ON_GPU && projected.dtype() == DType::F32 && units <= MOST_UNITS
        }
        Backend::Plain => false,
    };
    let follows_state = state.iter().any(Tensor::track_op);
    let is_cuda = projected.device().is_cuda();
    let has_kernel = has_kernel && !(follows_state && is_cuda);
    if mask.is_separate() || !has_kernel {
        return reference::scan::<C>(
            projected,
            &of_sublayers(recurrent, 3)?,
            &of_sublayers(bias, 2)?,
            state,
            mask,
        );
    }
    // On the CPU a weight stays the variable that it is, whose gradient needs no copy.
    let [recurrent, bias] = match is_cuda {
        true => [of_sublayers(recurrent, 3)?, of_sublayers(bias, 2)?],
        false => [recurrent.clone(), bias.clone()],
    };
    let projected = &if follows_state { behind_state(projected, state)? } else { projected.contiguous()? };
    let records = [projected, &recurrent, &bias].iter().any(|tensor| tensor.track_op());
    let op = Scan::<C> { follows_state, ..Scan::new(state, mask, records, precision)? };
    let last = op.last.clone();
    let outputs = projected.apply_op3(&recurrent.contiguous()?, &bias.contiguous()?, op)?;
    let state = state_after(&outputs, &recurrent, &last)?;
    Ok((outputs, state))
}

/// The state after a window: of the outputs at its last step, and what the operation left beside them.
pub(super) fn state_after(outputs: &Tensor, recurrent: &Tensor, last: &Last) -> CandleResult<Vec<Tensor>> {
    let mut state = vec![last_hidden(outputs, recurrent.dim(D::Minus2)?)?];
    state.extend(last.get().into_iter().flatten().cloned());
    Ok(state)
}

/// The state's parts but the first after the last step: an operation returns one tensor.
pub(super) type Last = Arc<OnceLock<Vec<Tensor>>>;

/// `weights` of `rank` dimensions, of which the first is the sublayer: those of the only one are taken without it.
pub(super) fn of_sublayers(weights: &Tensor, rank: usize) -> CandleResult<Tensor> {
    if weights.rank() < rank { weights.unsqueeze(0) } else { Ok(weights.clone()) }
}

/// The projected input behind a row that holds the state's parts, so that their history is the operation's: candle's own
/// take three tensors.
pub(super) fn behind_state(projected: &Tensor, state: &[Tensor]) -> Result<Tensor> {
    let parts = Tensor::cat(state, 1)?;
    let width = projected.dim(2)?;
    let row = parts.pad_with_zeros(1, 0, width.saturating_sub(parts.dim(1)?))?.unsqueeze(0)?;
    Ok(Tensor::cat(&[&row, projected], 0)?)
}

/// The candle operation; what its backward pass needs stays inside it.
pub(super) struct Scan<C> {
    state: Vec<Tensor>,
    mask: Option<Tensor>,
    records: bool,
    /// Whether the first row of the projected input is the state, whose gradient is wanted.
    pub(super) follows_state: bool,
    pub(super) precision: Precision,
    /// Bytes from which on what is kept of a part of the window makes a block of its own.
    pub(super) block: usize,
    pub(super) last: Last,
    saved: SavedForBackward,
    cell: PhantomData<C>,
}

/// The backward pass on whatever kernel is chosen.
struct Backward<'a, T: Real, C> {
    records: Vec<WindowRecord<T>>,
    recurrent: &'a [T],
    bias: &'a [T],
    grad: &'a [T],
    wanted: Wanted,
    cell: PhantomData<C>,
}

impl<T: Computed, C: Pointwise> WithKernel<T> for Backward<'_, T, C> {
    type Output = Grads<T>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        backward::<K, C>(self.records, self.recurrent, self.bias, self.grad, self.wanted)
    }
}

impl<C: Pointwise> Scan<C> {
    /// From a state whose history is not followed.
    pub(super) fn new(
        state: &[Tensor],
        mask: &HiddenMask,
        records: bool,
        precision: Precision,
    ) -> CandleResult<Self> {
        Ok(Self {
            state: state.iter().map(|part| part.detach().contiguous()).collect::<CandleResult<_>>()?,
            mask: mask.shared().map(Tensor::contiguous).transpose()?,
            records,
            follows_state: false,
            precision,
            block: BLOCK,
            last: Last::default(),
            saved: SavedForBackward::default(),
            cell: PhantomData,
        })
    }

    /// The outputs on the CPU. Keeps the rest of the state, and what the backward pass needs.
    pub(super) fn forward<T: Computed>(
        &self,
        [projected, recurrent, bias]: [&[T]; 3],
        sizes: WindowSizes,
    ) -> CandleResult<Vec<T>> {
        let state = &self.state;
        let mask = self.mask.as_ref();
        let window = Window { projected, bias, state, mask, sizes, outputs: C::OUTPUTS };
        let (outputs, last, records) =
            run_once::<T, C>(recurrent, &window, self.records, self.block, self.precision.rounds())?;
        self.last.set(last).expect("the operation runs once");
        self.saved.keep(records);
        Ok(outputs)
    }

    /// The gradients on the CPU from that of the outputs; of the recurrent weights and the bias what was not handed over.
    pub(super) fn grads<T: Computed>(
        &self,
        recurrent: &Tensor,
        bias: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<OfOperands<T>> {
        let records = self.saved.take::<Vec<WindowRecord<T>>>()?;
        let (depth, hidden, width) = of_sublayers(recurrent, 3)?.dims3()?;
        let (time, batch, _) = grad.dims3()?;
        let in_parts = !self.precision.rounds() && takes_product(recurrent, time * batch);
        let wanted = Wanted { in_parts, state: self.follows_state };
        let Grads { projected, recurrent: of_recurrent, bias: of_bias, state } =
            real::with_elements([recurrent, bias, grad], |[recurrent, bias, grad]| {
                let work = Backward { records, recurrent, bias, grad, wanted, cell: PhantomData::<C> };
                T::with_kernel(self.precision.rounds(), work)
            })?;
        let device = grad.device();
        let of_recurrent = match of_recurrent {
            RecurrentGrad::Whole(whole) => {
                hand_over(recurrent, Tensor::from_vec(whole, recurrent.shape(), device)?)?
            }
            RecurrentGrad::Product([states, products]) => {
                let left = Tensor::from_vec(states, (depth, time * batch, hidden), device)?;
                let right = Tensor::from_vec(products, (depth, time * batch, width), device)?;
                hand_over_product(recurrent, left, right)?;
                None
            }
        };
        let of_bias = hand_over(bias, Tensor::from_vec(of_bias, bias.shape(), device)?)?;
        Ok(OfOperands { projected, state, weights: [of_recurrent, of_bias] })
    }

    fn backward<T: Computed>(
        &self,
        [projected, recurrent, bias]: [&Tensor; 3],
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let OfOperands { projected: of_projected, state, weights: [of_recurrent, of_bias] } =
            self.grads::<T>(recurrent, bias, grad)?;
        let batch = grad.dim(1)?;
        let hidden = recurrent.dim(D::Minus2)?;
        let mut rows = state.map_or_else(Vec::new, |state| state_row::<T, C>(&state, batch, hidden));
        rows.extend_from_slice(&of_projected);
        let of_projected = Tensor::from_vec(rows, projected.shape(), grad.device())?;
        Ok((hand_over(projected, of_projected)?, of_recurrent, of_bias))
    }
}

/// The gradients of a window's operands.
pub(super) struct OfOperands<T: Copy + Default + Send + 'static> {
    /// `(time, batch, inputs · hidden)`.
    pub(super) projected: Buffer<T>,
    /// Of the state before the window, `(parts, batch, hidden)`, if it is wanted.
    state: Option<Vec<T>>,
    /// Of the recurrent weights and of the bias, where nobody collects them.
    pub(super) weights: [Option<Tensor>; 2],
}

/// The gradient of the row that [`behind_state`] makes, from that of the parts, `(parts, batch, hidden)`.
fn state_row<T: Real, C: Pointwise>(of_state: &[T], batch: usize, hidden: usize) -> Vec<T> {
    let mut row = vec![T::zero(); batch * C::INPUTS * hidden];
    for (number, line) in row.chunks_exact_mut(C::INPUTS * hidden).enumerate() {
        for part in 0..C::STATES {
            line[part * hidden..][..hidden]
                .copy_from_slice(&of_state[(part * batch + number) * hidden..][..hidden]);
        }
    }
    row
}

/// The sizes of a window of cell `C`. Fails if the tensors' shapes do not fit together.
pub(super) fn sizes<C: Pointwise>(
    projected: &Shape,
    recurrent: &Shape,
    bias: &Shape,
) -> CandleResult<WindowSizes> {
    let (time, batch, width) = projected.dims3()?;
    let (depth, hidden, columns) = match *recurrent.dims() {
        [hidden, columns] => (1, hidden, columns),
        _ => recurrent.dims3()?,
    };
    let of_bias = match *bias.dims() {
        [vectors] => (1, vectors),
        _ => bias.dims2()?,
    };
    let vectors = (C::GATES + C::UNIT_WEIGHTS) * hidden;
    let fits = width == C::INPUTS * hidden && columns == C::GATES * hidden && of_bias == (depth, vectors);
    if !fits || time == 0 {
        candle_core::bail!(
            "a window of {projected:?} with recurrent weights {recurrent:?} and a bias {bias:?} is none of {}",
            C::NAME
        );
    }
    Ok(WindowSizes { time, batch, depth, hidden })
}

impl<C: Pointwise> CustomOp3 for Scan<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn cpu_fwd(
        &self,
        projected: &CpuStorage,
        projected_layout: &Layout,
        recurrent: &CpuStorage,
        recurrent_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let begin = usize::from(self.follows_state);
        let mut sizes = sizes::<C>(projected_layout.shape(), recurrent_layout.shape(), bias_layout.shape())?;
        sizes.time -= begin;
        if sizes.time == 0 {
            candle_core::bail!("a window of no steps for {}", C::NAME);
        }
        let outputs = by_float!(projected.dtype(), T => {
            let recurrent = real::elements::<T>(recurrent, recurrent_layout)?;
            let bias = real::elements(bias, bias_layout)?;
            let projected = real::elements(projected, projected_layout)?;
            let projected = &projected[begin * sizes.batch * C::INPUTS * sizes.hidden..];
            T::to_cpu_storage_owned(self.forward([projected, recurrent, bias], sizes)?)
        });
        Ok((outputs, (sizes.time, sizes.batch, C::OUTPUTS * sizes.hidden).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        projected: &CudaStorage,
        projected_layout: &Layout,
        recurrent: &CudaStorage,
        recurrent_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> CandleResult<(CudaStorage, Shape)> {
        let sizes = sizes::<C>(projected_layout.shape(), recurrent_layout.shape(), bias_layout.shape())?;
        let parts = [(projected, projected_layout), (recurrent, recurrent_layout), (bias, bias_layout)];
        let (outputs, last, kept) =
            cuda::forward::<C>(parts, &self.state, self.mask.as_ref(), sizes, self.precision)?;
        self.last.set(last).expect("the operation runs once");
        self.saved.keep(self.records.then_some(kept));
        Ok((outputs, (sizes.time, sizes.batch, sizes.hidden).into()))
    }

    fn bwd(
        &self,
        projected: &Tensor,
        recurrent: &Tensor,
        bias: &Tensor,
        _outputs: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        match projected.dtype() {
            #[cfg(feature = "cuda")]
            DType::F32 if grad.device().is_cuda() => {
                let grads = cuda::backward(self.saved.take()?, recurrent, self.mask.as_ref(), &grad)?;
                let [of_projected, of_recurrent, of_bias] = grads;
                Ok((
                    hand_over(projected, of_projected)?,
                    hand_over(recurrent, of_recurrent)?,
                    hand_over(bias, of_bias)?,
                ))
            }
            DType::F64 => self.backward::<f64>([projected, recurrent, bias], &grad),
            _ => self.backward::<f32>([projected, recurrent, bias], &grad),
        }
    }
}
