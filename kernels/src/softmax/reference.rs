//! The softmax's loss in plain tensor operations.

use crate::error::Result;
use candle_core::{D, Tensor};
use candle_nn::ops::log_softmax;

/// [`super::nats`] of the products `(rows, vocabulary)`, in plain tensor operations.
pub fn nats(products: &Tensor, bias: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let log_probabilities = log_softmax(&products.broadcast_add(bias)?, D::Minus1)?;
    Ok(log_probabilities.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?.neg()?)
}
