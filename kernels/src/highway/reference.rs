//! The highway layer in plain tensor operations.

use super::variant::Variant;
use crate::error::Result;
use candle_core::Tensor;
use candle_nn::ops::sigmoid;

/// [`super::highway`] in plain tensor operations.
pub fn highway(
    variant: Variant,
    products: &Tensor,
    bias: &Tensor,
    ys: &Tensor,
    transform_bias: f64,
) -> Result<Tensor> {
    let (h, gates) = activations(variant, products, bias, transform_bias)?;
    Ok(match (variant, &gates[..]) {
        (Variant::Coupled, [t]) => (ys + (t * (h - ys)?)?)?,
        (Variant::Full, [t, c]) => ((h * t)? + (ys * c)?)?,
        (Variant::CarryOnly, [c]) => (h + (ys * c)?)?,
        (Variant::TransformOnly, [t]) => ((h * t)? + ys)?,
        (Variant::Residual, _) => (h + ys)?,
        _ => h,
    })
}

/// A layer's candidate H and its gates in the order of the columns, `(rows, size)` each; operands as in
/// [`super::highway`].
pub fn activations(
    variant: Variant,
    products: &Tensor,
    bias: &Tensor,
    transform_bias: f64,
) -> Result<(Tensor, Vec<Tensor>)> {
    let size = bias.elem_count() / variant.columns();
    let z = products.broadcast_add(bias)?;
    let h = z.narrow(1, 0, size)?.relu()?;
    let gate = |(index, &sign): (usize, &f64)| -> Result<Tensor> {
        Ok(sigmoid(&(z.narrow(1, (1 + index) * size, size)? + sign * transform_bias)?)?)
    };
    let gates = variant.gate_signs().iter().enumerate().map(gate).collect::<Result<_>>()?;
    Ok((h, gates))
}
