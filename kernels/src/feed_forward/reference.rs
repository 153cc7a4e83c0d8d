//! The stack in plain tensor operations, one layer after another.
//!
//! Slow, differentiable by candle itself; what the kernel is held to, and what runs where there is no kernel.

use super::layer::{Activation, Layer, Mixing};
use crate::error::Result;
use candle_core::Tensor;
use candle_nn::ops::sigmoid;

/// What a layer computes for its rows, `(rows, size)` each.
pub struct LayerValues {
    /// What enters the layer.
    pub x: Tensor,
    /// The transformed input.
    pub h: Tensor,
    /// The transform gate, where the layer has one.
    pub t: Option<Tensor>,
    /// The carry gate, where it has weights of its own.
    pub c: Option<Tensor>,
    /// What leaves the layer.
    pub y: Tensor,
}

/// [`super::feed_forward`] in plain tensor operations.
pub fn feed_forward(xs: &Tensor, weights: &Tensor, bias: &Tensor, layer: Layer) -> Result<Tensor> {
    let mut y = xs.clone();
    for index in 0..weights.dim(0)? {
        y = values(&y, &weights.get(index)?, &bias.get(index)?, layer)?.y;
    }
    Ok(y)
}

/// f of every element.
pub fn activated(z: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::Relu => z.relu()?,
        Activation::Tanh => z.tanh()?,
        Activation::Sigmoid => sigmoid(z)?,
    })
}

/// One layer: `weight` is `(size, gates · size)`, `bias` `(gates · size)`.
pub fn values(x: &Tensor, weight: &Tensor, bias: &Tensor, layer: Layer) -> Result<LayerValues> {
    let (_, size) = x.dims2()?;
    let z = x.matmul(weight)?.broadcast_add(bias)?;
    let gate = |index: usize| -> Result<Option<Tensor>> {
        let has = index < layer.gates();
        Ok(if has { Some(sigmoid(&z.narrow(1, index * size, size)?)?) } else { None })
    };
    let h = activated(&z.narrow(1, 0, size)?, layer.activation)?;
    let t = gate(1)?;
    let c = gate(2)?;
    let y = match (layer.mixing, &t, &c) {
        (Mixing::Coupled, Some(t), _) => (x + (t * (&h - x)?)?)?,
        (Mixing::Full, Some(t), Some(c)) => ((&h * t)? + (x * c)?)?,
        _ => h.clone(),
    };
    Ok(LayerValues { x: x.clone(), h, t, c, y })
}
