//! The RHN recurrence over a whole window: the one function that faster kernels replace.
//!
//! ```text
//! s̃   = s_{l-1} ⊙ m                              the mask acts inside the product only
//! h_l = tanh   (x [l = 1] + s̃ R_h,l + b_h,l)
//! t_l = sigmoid(x [l = 1] + s̃ R_t,l + b_t,l)
//! s_l = s_{l-1} + t_l (h_l − s_{l-1})              l = 1 ..= depth
//! ```

pub use super::hidden_mask::HiddenMask;
use super::recurrence_cpu::{self as cpu, Tape};
use super::{real, reference};
use crate::error::Result;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result as CandleResult, Shape, Tensor};
use std::sync::{Mutex, PoisonError};

/// States after the last sublayer of every time step.
///
/// - `projected`: `(time, batch, 2 hidden)`, the input's products with W_H and W_T
/// - `recurrent`: `(depth, hidden, 2 hidden)`, columns of H, then of T; `bias`: `(depth, 2 hidden)`
/// - `state`: `(batch, hidden)`; its history is not followed, as truncated back-propagation wants it
///
/// Returns `(time, batch, hidden)`. On the CPU a kernel with its own backward pass does the work;
/// elsewhere, and for separate masks, [`reference::rhn`] does.
pub fn rhn(
    projected: &Tensor,
    recurrent: &Tensor,
    bias: &Tensor,
    state: &Tensor,
    mask: &HiddenMask,
) -> Result<Tensor> {
    let kernel = projected.device().is_cpu() && matches!(projected.dtype(), DType::F32 | DType::F64);
    let mask = match mask {
        HiddenMask::None if kernel => None,
        HiddenMask::Shared(mask) if kernel => Some(mask.contiguous()?),
        _ => return reference::rhn(projected, recurrent, bias, state, mask),
    };
    let records = projected.track_op() || recurrent.track_op() || bias.track_op();
    let op = Rhn { state: state.detach().contiguous()?, mask, records, tape: Mutex::new(None) };
    Ok(projected.contiguous()?.apply_op3(&recurrent.contiguous()?, &bias.contiguous()?, op)?)
}

/// The candle operation; what its backward pass needs stays inside it.
struct Rhn {
    state: Tensor,
    mask: Option<Tensor>,
    records: bool,
    tape: Mutex<Option<Tape>>,
}

impl Rhn {
    fn forward<T: real::Real + cpu::Recorded>(
        &self,
        projected: &[T],
        recurrent: &[T],
        bias: &[T],
        sizes: cpu::Sizes,
    ) -> CandleResult<CpuStorage> {
        let state = self.state.flatten_all()?.to_vec1::<T>()?;
        let mask = self.mask.as_ref().map(|mask| mask.flatten_all()?.to_vec1::<T>()).transpose()?;
        let (outputs, tape) =
            cpu::forward(&cpu::Inputs { projected, recurrent, bias, state, mask, sizes }, self.records);
        *self.tape.lock().unwrap_or_else(PoisonError::into_inner) = tape.map(T::tape);
        Ok(T::to_cpu_storage_owned(outputs))
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
        let sizes = cpu::Sizes { time, batch, depth, hidden };
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

    fn bwd(
        &self,
        projected: &Tensor,
        recurrent: &Tensor,
        bias: &Tensor,
        _outputs: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let tape = self.tape.lock().unwrap_or_else(PoisonError::into_inner).take();
        let tape =
            tape.ok_or_else(|| candle_core::Error::Msg("the recurrence's tape was used before".into()))?;
        let grad = grad.contiguous()?;
        let device = grad.device();
        macro_rules! run {
            ($tape:ident, $t:ty) => {{
                let grads = real::with_elements::<$t, _>(recurrent, |recurrent| {
                    real::with_elements::<$t, _>(&grad, |grad| Ok(cpu::backward($tape, recurrent, grad)))
                })?;
                (
                    Tensor::from_vec(grads.projected, projected.shape(), device)?,
                    Tensor::from_vec(grads.recurrent, recurrent.shape(), device)?,
                    Tensor::from_vec(grads.bias, bias.shape(), device)?,
                )
            }};
        }
        let (projected, recurrent, bias) = match tape {
            Tape::F32(tape) => run!(tape, f32),
            Tape::F64(tape) => run!(tape, f64),
        };
        Ok((Some(projected), Some(recurrent), Some(bias)))
    }
}
