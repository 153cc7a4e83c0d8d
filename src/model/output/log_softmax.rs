//! ln softmax, safe from overflow.

use crate::error::Result;
use candle_core::{D, Tensor};

/// `ln Σ e^x` over the last dimension, which stays with size 1.
pub(crate) fn log_sum_exp(xs: &Tensor) -> Result<Tensor> {
    let highest = xs.detach().max_keepdim(D::Minus1)?;
    Ok((xs.broadcast_sub(&highest)?.exp()?.sum_keepdim(D::Minus1)?.log()? + highest)?)
}

/// `x − ln Σ e^x` over the last dimension.
pub(crate) fn log_softmax(xs: &Tensor) -> Result<Tensor> {
    Ok(xs.broadcast_sub(&log_sum_exp(xs)?)?)
}
