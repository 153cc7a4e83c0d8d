//! A recurrence over a whole window as one operation of candle, with a backward pass of its own.

use super::cell::Pointwise;
use super::cpu_backward::{Grads, backward};
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
use crate::error::Result;
use crate::gradients::{hand_over, hand_over_product, takes_product};
use crate::precision::Precision;
use crate::saved::SavedForBackward;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result as CandleResult, Shape, Tensor, WithDType};
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

/// [`super::scan`], from the projected input, the recurrent weights and the bias.
pub(super) fn operate<C: Pointwise>(
    [projected, recurrent, bias]: [&Tensor; 3],
    state: &[Tensor],
    mask: &HiddenMask,
    precision: Precision,
) -> Result<(Tensor, Vec<Tensor>)> {
    let has_kernel = match Backend::of(projected) {
        Backend::Cpu => true,
        Backend::Cuda => C::ON_GPU && projected.dtype() == DType::F32,
        Backend::Plain => false,
    };
    if mask.is_separate() || !has_kernel {
        return reference::scan::<C>(projected, recurrent, bias, state, mask);
    }
    let last = Arc::new(OnceLock::new());
    let op = Scan::<C> {
        state: state.iter().map(|part| part.detach().contiguous()).collect::<CandleResult<_>>()?,
        mask: mask.shared().map(Tensor::contiguous).transpose()?,
        records: projected.track_op() || recurrent.track_op() || bias.track_op(),
        precision,
        last: last.clone(),
        saved: SavedForBackward::default(),
        cell: PhantomData,
    };
    let outputs = projected.contiguous()?.apply_op3(&recurrent.contiguous()?, &bias.contiguous()?, op)?;
    let mut state = vec![last_hidden(&outputs, recurrent.dim(1)?)?];
    state.extend(last.get().into_iter().flatten().cloned());
    Ok((outputs, state))
}

/// The candle operation; what its backward pass needs stays inside it.
struct Scan<C> {
    state: Vec<Tensor>,
    mask: Option<Tensor>,
    records: bool,
    precision: Precision,
    /// The state's parts but the first after the last step: an operation returns one tensor.
    last: Arc<OnceLock<Vec<Tensor>>>,
    saved: SavedForBackward,
    cell: PhantomData<C>,
}

/// The backward pass on whatever kernel is chosen.
struct Backward<'a, T: Real, C> {
    record: WindowRecord<T>,
    recurrent: &'a [T],
    bias: &'a [T],
    grad: &'a [T],
    in_parts: bool,
    cell: PhantomData<C>,
}

impl<T: Computed, C: Pointwise> WithKernel<T> for Backward<'_, T, C> {
    type Output = Grads<T>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        backward::<K, C>(self.record, self.recurrent, self.bias, self.grad, self.in_parts)
    }
}

impl<C: Pointwise> Scan<C> {
    fn backward<T: Computed>(
        &self,
        projected: &Tensor,
        recurrent: &Tensor,
        bias: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let record = self.saved.take::<WindowRecord<T>>()?;
        let (depth, hidden, width) = recurrent.dims3()?;
        let (time, batch, _) = grad.dims3()?;
        let in_parts = !self.precision.rounds() && takes_product(recurrent, time * batch);
        let Grads { projected: of_projected, recurrent: of_recurrent, bias: of_bias } =
            real::with_elements([recurrent, bias, grad], |[recurrent, bias, grad]| {
                let work = Backward { record, recurrent, bias, grad, in_parts, cell: PhantomData::<C> };
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
        let of_projected = Tensor::from_vec(of_projected, projected.shape(), device)?;
        let of_bias = Tensor::from_vec(of_bias, bias.shape(), device)?;
        Ok((hand_over(projected, of_projected)?, of_recurrent, hand_over(bias, of_bias)?))
    }
}

/// The sizes of a window of cell `C`. Fails if the tensors' shapes do not fit together.
pub(super) fn sizes<C: Pointwise>(
    projected: &Shape,
    recurrent: &Shape,
    bias: &Shape,
) -> CandleResult<WindowSizes> {
    let (time, batch, width) = projected.dims3()?;
    let (depth, hidden, columns) = recurrent.dims3()?;
    let vectors = (C::GATES + C::UNIT_WEIGHTS) * hidden;
    let fits =
        width == C::INPUTS * hidden && columns == C::GATES * hidden && bias.dims2()? == (depth, vectors);
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
        let sizes = sizes::<C>(projected_layout.shape(), recurrent_layout.shape(), bias_layout.shape())?;
        let outputs = by_float!(projected.dtype(), T => {
            let recurrent = real::elements::<T>(recurrent, recurrent_layout)?;
            let bias = real::elements(bias, bias_layout)?;
            let projected = real::elements(projected, projected_layout)?;
            let state = &self.state;
            let mask = self.mask.as_ref();
            let window = Window { projected, bias, state, mask, sizes, outputs: C::OUTPUTS };
            let bf16 = self.precision.rounds();
            let (outputs, last, record) = run_once::<T, C>(recurrent, &window, self.records, bf16)?;
            self.last.set(last).expect("the operation runs once");
            self.saved.keep(record);
            T::to_cpu_storage_owned(outputs)
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
            DType::F64 => self.backward::<f64>(projected, recurrent, bias, &grad),
            _ => self.backward::<f32>(projected, recurrent, bias, &grad),
        }
    }
}
