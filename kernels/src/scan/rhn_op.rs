//! The RHN recurrence over a whole window: the one function that faster kernels replace.
//!
//! ```text
//! s̃   = s_{l-1} ⊙ m                              the mask acts inside the product only
//! h_l = tanh   (x [l = 1] + s̃ R_h,l + b_h,l)
//! t_l = sigmoid(x [l = 1] + s̃ R_t,l + b_t,l)
//! s_l = s_{l-1} + t_l (h_l − s_{l-1})              l = 1 ..= depth
//! ```

pub use crate::scan::rhn_prepared::Prepared;

use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::real::{self, Real};
use crate::cpu::tile::Kernel;
use crate::error::Result;
use crate::precision::Precision;
pub use crate::scan::hidden_mask::HiddenMask;
use crate::scan::reference;
use crate::scan::rhn_cpu::{Inputs, Packed, Record, Sizes, forward};
use crate::scan::rhn_cpu_backward::{Grads, backward};
#[cfg(feature = "cuda")]
use crate::scan::rhn_cuda as cuda;
use crate::scan::tape::{Tape, has_kernel};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result as CandleResult, Shape, Tensor};

/// States after the last sublayer of every time step.
///
/// - `projected`: `(time, batch, 2 hidden)`, the input's products with W_H and W_T
/// - `recurrent`: `(depth, hidden, 2 hidden)`, columns of H, then of T; `bias`: `(depth, 2 hidden)`
/// - `state`: `(batch, hidden)`; its history is not followed, as truncated back-propagation wants it
///
/// Returns `(time, batch, hidden)`. On the CPU, and in single precision on a GPU, kernels with a backward pass of their
/// own do the work; elsewhere, and for separate masks, [`reference::rhn`] does, in full precision.
pub fn rhn(
    projected: &Tensor,
    recurrent: &Tensor,
    bias: &Tensor,
    state: &Tensor,
    mask: &HiddenMask,
    precision: Precision,
) -> Result<Tensor> {
    let kernel = has_kernel(projected);
    let mask = match mask {
        HiddenMask::None if kernel => None,
        HiddenMask::Shared(mask) if kernel => Some(mask.contiguous()?),
        _ => return reference::rhn(projected, recurrent, bias, state, mask),
    };
    let records = projected.track_op() || recurrent.track_op() || bias.track_op();
    let op = Rhn { state: state.detach().contiguous()?, mask, records, precision, tape: Tape::default() };
    Ok(projected.contiguous()?.apply_op3(&recurrent.contiguous()?, &bias.contiguous()?, op)?)
}

/// The candle operation; what its backward pass needs stays inside it.
struct Rhn {
    state: Tensor,
    mask: Option<Tensor>,
    records: bool,
    precision: Precision,
    tape: Tape,
}

/// The forward pass on whatever kernel is chosen.
struct Forward<'a, T> {
    recurrent: &'a [T],
    inputs: Inputs<'a, T>,
    records: bool,
    outputs: &'a mut [T],
}

impl<T: Real> WithKernel<T> for Forward<'_, T> {
    type Output = Option<Record<T>>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        let Sizes { depth, hidden, .. } = self.inputs.sizes;
        let weights = Packed::<K>::new(self.recurrent, depth, hidden);
        forward(&weights, &self.inputs, self.records, self.outputs)
    }
}

/// The backward pass on whatever kernel is chosen.
struct Backward<'a, T: Real> {
    record: Record<T>,
    recurrent: &'a [T],
    grad: &'a [T],
}

impl<T: Computed> WithKernel<T> for Backward<'_, T> {
    type Output = Grads<T>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        backward::<K>(self.record, self.recurrent, self.grad)
    }
}

impl Rhn {
    fn forward<T: Computed>(
        &self,
        projected: &[T],
        recurrent: &[T],
        bias: &[T],
        sizes: Sizes,
    ) -> CandleResult<CpuStorage> {
        let state = self.state.flatten_all()?.to_vec1::<T>()?;
        let mask = self.mask.as_ref().map(|mask| mask.flatten_all()?.to_vec1::<T>()).transpose()?;
        let inputs = Inputs { projected, bias, state: &state, mask: mask.as_deref(), sizes };
        let mut outputs = vec![T::zero(); sizes.time * sizes.batch * sizes.hidden];
        let work = Forward { recurrent, inputs, records: self.records, outputs: &mut outputs };
        let record = T::with_kernel(self.precision.rounds(), work);
        self.tape.keep(record);
        Ok(T::to_cpu_storage_owned(outputs))
    }

    fn backward<T: Computed>(&self, recurrent: &Tensor, grad: &Tensor) -> CandleResult<[Tensor; 3]> {
        let record = self.tape.take::<Record<T>>()?;
        let (depth, hidden, _) = recurrent.dims3()?;
        let (time, batch, _) = grad.dims3()?;
        let grads = real::with_elements::<T, _>(recurrent, |recurrent| {
            real::with_elements::<T, _>(grad, |grad| {
                let work = Backward { record, recurrent, grad };
                Ok(T::with_kernel(self.precision.rounds(), work))
            })
        })?;
        let device = grad.device();
        Ok([
            Tensor::from_vec(grads.projected, (time, batch, 2 * hidden), device)?,
            Tensor::from_vec(grads.recurrent, (depth, hidden, 2 * hidden), device)?,
            Tensor::from_vec(grads.bias, (depth, 2 * hidden), device)?,
        ])
    }
}

impl CustomOp3 for Rhn {
    fn name(&self) -> &'static str {
        "rhn-recurrence"
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
        let (time, batch, _) = projected_layout.shape().dims3()?;
        let (depth, hidden, _) = recurrent_layout.shape().dims3()?;
        let sizes = Sizes { time, batch, depth, hidden };
        macro_rules! run {
            ($t:ty) => {
                self.forward::<$t>(
                    real::elements(projected, projected_layout)?,
                    real::elements(recurrent, recurrent_layout)?,
                    real::elements(bias, bias_layout)?,
                    sizes,
                )?
            };
        }
        let outputs = match projected {
            CpuStorage::F64(_) => run!(f64),
            _ => run!(f32),
        };
        Ok((outputs, (time, batch, hidden).into()))
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
        let (time, batch, _) = projected_layout.shape().dims3()?;
        let (depth, hidden, _) = recurrent_layout.shape().dims3()?;
        let sizes = cuda::Sizes { time, batch, depth, hidden, gates: 2 };
        let parts = [(projected, projected_layout), (recurrent, recurrent_layout), (bias, bias_layout)];
        let (outputs, tape) = cuda::forward(parts, &self.state, self.mask.as_ref(), sizes, self.precision)?;
        self.tape.keep(self.records.then_some(tape));
        Ok((outputs, (time, batch, hidden).into()))
    }

    fn bwd(
        &self,
        projected: &Tensor,
        recurrent: &Tensor,
        _bias: &Tensor,
        _outputs: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let grads = match projected.dtype() {
            #[cfg(feature = "cuda")]
            DType::F32 if grad.device().is_cuda() => {
                cuda::backward(self.tape.take()?, recurrent, self.mask.as_ref(), &grad)?
            }
            DType::F64 => self.backward::<f64>(recurrent, &grad)?,
            _ => self.backward::<f32>(recurrent, &grad)?,
        };
        let [projected, recurrent, bias] = grads.map(Some);
        Ok((projected, recurrent, bias))
    }
}
