//! How far an output layer's distribution is from a teacher's, and the gradient of that (Hinton et al., 2015).
//!
//! ```text
//! q = the teacher's, at its temperature      p = softmax(z / τ), z the student's logits
//! all words     KL = Σ_v q_v (ln q_v − ln p_v)                                      ∂KL/∂z = (p − q) / τ
//! the top k     KL = Σ_k q_k (ln q_k − ln p_k) + q_r (ln q_r − ln p_r)              p_r = Σ of p over all other words
//!                                              ∂KL/∂z = (p − q) / τ of the k, p (1 − q_r / p_r) / τ of the others
//! ```
//!
//! k and the rest as one class give a lower bound of the whole KL; nothing is renormalized. A plain softmax makes the logits
//! of a window in blocks, as its loss does: of one block the gradient is kept, of several it is made again.

mod blocks;

pub(super) use blocks::{Layer, of_products};

use crate::error::{Error, Result};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, D, Layout, Result as CandleResult, Shape, Storage, Tensor,
    backend::BackendStorage,
};
use rhn_kernels::softmax::divergence;
use std::ops::Range;

/// A teacher's distributions after some positions of a window, the rows in the order of `(time, batch)`.
#[derive(Clone, Debug)]
pub enum Soft {
    /// ln q of all words, `(rows, vocabulary)`.
    All(Tensor),
    /// Of the most probable words, and of all others together.
    Top {
        /// Their numbers, `(rows, k)` of u32.
        ids: Tensor,
        /// Their ln q, `(rows, k)`.
        log_q: Tensor,
        /// ln of what is left, `(rows, 1)`.
        log_rest: Tensor,
    },
}

/// What the distributions of a window come from; they are asked for some time steps at a time, and may be twice.
pub trait SoftTargets: Send + Sync {
    /// The distributions after these steps.
    fn at(&self, steps: Range<usize>) -> Result<Soft>;

    /// How many steps' distributions are made at a time.
    fn steps_at_once(&self) -> usize;
}

impl Soft {
    /// The `count` most probable words of each row of `log_q`, `(rows, vocabulary)`; of equal ones those of lower numbers.
    /// There must be more words.
    pub fn top(log_q: &Tensor, count: usize) -> Result<Self> {
        let (rows, vocabulary) = log_q.dims2()?;
        if count == 0 || count >= vocabulary {
            return Err(Error::config(format!(
                "{count} words cannot be told apart from the rest of {vocabulary}"
            )));
        }
        let values = log_q.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let mut ids: Vec<u32> = Vec::with_capacity(rows * count);
        let mut rests = Vec::with_capacity(rows);
        for row in values.chunks_exact(vocabulary) {
            let mut order: Vec<u32> = (0..vocabulary as u32).collect();
            let by_probability =
                |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
            order.select_nth_unstable_by(count - 1, by_probability);
            let top = &mut order[..count];
            top.sort_unstable();
            ids.extend_from_slice(top);
            let of_others = (0..).zip(row).filter(|(id, _)| top.binary_search(id).is_err());
            let rest: f64 = of_others.map(|(_, log_q)| log_q.exp()).sum();
            rests.push(rest.max(f64::MIN_POSITIVE.sqrt()).ln());
        }
        let ids = Tensor::from_vec(ids, (rows, count), log_q.device())?;
        let rests = Tensor::from_vec(rests, (rows, 1), &candle_core::Device::Cpu)?;
        Ok(Self::Top {
            log_q: log_q.contiguous()?.gather(&ids, D::Minus1)?,
            log_rest: rests.to_dtype(log_q.dtype())?.to_device(log_q.device())?,
            ids,
        })
    }
}

/// The KL of each row, `(rows)`, and its gradient by the logits, `(rows, vocabulary)`, for `logits` of that shape whose
/// history is not followed.
fn compare(logits: &Tensor, soft: &Soft, temperature: f64) -> Result<(Tensor, Tensor)> {
    match soft {
        Soft::All(log_q) => Ok(divergence(logits, log_q, temperature)?),
        Soft::Top { ids, log_q, log_rest } => {
            let logits = (logits.detach() / temperature)?;
            let (divergence, slope) = compare_top(&logits, ids, log_q, log_rest)?;
            Ok((divergence, (slope / temperature)?))
        }
    }
}

fn compare_top(logits: &Tensor, ids: &Tensor, log_q: &Tensor, log_rest: &Tensor) -> Result<(Tensor, Tensor)> {
    /// Its exponential is 0; an infinite number's difference from itself would be none.
    const NONE: f64 = -1e30;
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?;
    let exponentials = shifted.exp()?;
    let sum = exponentials.sum_keepdim(D::Minus1)?;
    let log_p = shifted.gather(ids, D::Minus1)?.broadcast_sub(&sum.log()?)?;
    let none = Tensor::full(NONE, ids.shape(), ids.device())?.to_dtype(logits.dtype())?;
    let others = shifted.contiguous()?.scatter(ids, &none, D::Minus1)?;
    let highest = others.max_keepdim(D::Minus1)?;
    let within = others.broadcast_sub(&highest)?.exp()?;
    let of_others = within.sum_keepdim(D::Minus1)?;
    let log_p_rest = ((highest + of_others.log()?)? - sum.log()?)?;
    let q = log_q.exp()?;
    let q_rest = log_rest.exp()?;
    let of_top = (&q * (log_q - log_p)?)?.sum(D::Minus1)?;
    let of_rest = (&q_rest * (log_rest - log_p_rest)?)?.squeeze(D::Minus1)?;
    // Of the others q_r p / p_r, which is no quotient of small numbers: q_r times their softmax among themselves.
    let expected = within.broadcast_mul(&(q_rest / of_others)?)?;
    let slope = (exponentials.broadcast_div(&sum)? - expected)?;
    Ok(((of_top + of_rest)?, slope.scatter_add(ids, &q.neg()?, D::Minus1)?))
}

/// The KL of each position from the logits of a window, `(time, batch, vocabulary)` to `(time, batch)`.
pub(in crate::model) fn of_window(
    logits: &Tensor,
    soft: &dyn SoftTargets,
    temperature: f64,
) -> Result<Tensor> {
    let (time, batch, _) = logits.dims3()?;
    let divergence = of_logits(&logits.flatten(0, 1)?, &soft.at(0..time)?, temperature)?;
    Ok(divergence.reshape((time, batch))?)
}

/// The KL of each row from logits that exist, `(rows, vocabulary)` to `(rows)`.
fn of_logits(logits: &Tensor, soft: &Soft, temperature: f64) -> Result<Tensor> {
    let (value, slope) = compare(logits, soft, temperature)?;
    if !logits.track_op() {
        return Ok(value);
    }
    Ok(logits.apply_op1(OfLogits { value, slope })?)
}

/// Gives the KL, which is known, and its gradient, which is too.
struct OfLogits {
    value: Tensor,
    slope: Tensor,
}

/// The storage of a value that an operation knows, as the operation gives it.
macro_rules! known {
    ($value:expr, $device:ident) => {{
        let (storage, layout) = $value.storage_and_layout();
        match &*storage {
            Storage::$device(value) => Ok((value.try_clone(layout)?, layout.shape().clone())),
            _ => candle_core::bail!("the divergence lies on another device than its operands"),
        }
    }};
}
use known;

impl CustomOp1 for OfLogits {
    fn name(&self) -> &'static str {
        "divergence-of-logits"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        known!(self.value, Cpu)
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        known!(self.value, Cuda)
    }

    fn bwd(&self, _logits: &Tensor, _value: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        Ok(Some(self.slope.broadcast_mul(&grad.unsqueeze(D::Minus1)?)?))
    }
}

#[cfg(test)]
mod tests;
