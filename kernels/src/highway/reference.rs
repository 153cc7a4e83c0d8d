//! The highway layer in plain tensor operations.

use crate::error::Result;
use candle_core::Tensor;
use candle_nn::ops::sigmoid;

/// [`super::highway`] in plain tensor operations.
pub fn highway(products: &Tensor, bias: &Tensor, ys: &Tensor, shift: f64) -> Result<Tensor> {
    let (_, size) = ys.dims2()?;
    let z = products.broadcast_add(bias)?;
    let h = z.narrow(1, 0, size)?.relu()?;
    let t = sigmoid(&(z.narrow(1, size, size)? + shift)?)?;
    Ok((ys + (t * (h - ys)?)?)?)
}
