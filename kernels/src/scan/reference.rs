//! The recurrences in plain tensor operations, one step after another.
//!
//! Slow, differentiable by candle itself; what the kernels are held to, and what runs where there is no kernel.

use super::cell::Pointwise;
use super::hidden_mask::HiddenMask;
use crate::error::Result;
use candle_core::{D, Tensor};

/// [`super::scan`] in plain tensor operations.
pub fn scan<C: Pointwise>(
    projected: &Tensor,
    recurrent: &Tensor,
    bias: &Tensor,
    state: &[Tensor],
    mask: &HiddenMask,
) -> Result<(Tensor, Vec<Tensor>)> {
    let time = projected.dim(0)?;
    let depth = recurrent.dim(0)?;
    let mut state: Vec<Tensor> = state.to_vec();
    let mut outputs = Vec::with_capacity(time);
    for step in 0..time {
        for sublayer in 0..depth {
            let product = masked_product(&state[0], &recurrent.get(sublayer)?, mask)?;
            let vectors = bias.get(sublayer)?;
            let width = recurrent.dim(2)?;
            let product = product.broadcast_add(&vectors.narrow(0, 0, width)?)?;
            let x = if sublayer == 0 { Some(projected.get(step)?) } else { None };
            let hidden = state[0].dim(1)?;
            let vector = |index: usize| Ok(vectors.narrow(0, width + index * hidden, hidden)?);
            let weights = (0..C::UNIT_WEIGHTS).map(vector).collect::<Result<Vec<_>>>()?;
            state = C::reference(&product, x.as_ref(), &weights, &state)?;
        }
        outputs.push(if C::OUTPUTS == 1 { state[0].clone() } else { Tensor::cat(&state[..C::OUTPUTS], 1)? });
    }
    Ok((Tensor::stack(&outputs, 0)?, state))
}

/// `(batch, N · hidden)` cut into N gates of `(batch, hidden)`.
pub(crate) fn gates<const N: usize>(z: &Tensor) -> Result<[Tensor; N]> {
    let parts = z.chunk(N, D::Minus1)?;
    Ok(parts.try_into().unwrap_or_else(|parts: Vec<_>| panic!("{N} gates, cut into {}", parts.len())))
}

/// `(s ⊙ m) R`, the columns of the first gate and of the others with their own mask where they have one.
pub(super) fn masked_product(state: &Tensor, recurrent: &Tensor, mask: &HiddenMask) -> Result<Tensor> {
    let hidden = state.dim(1)?;
    let width = recurrent.dim(1)?;
    Ok(match mask {
        HiddenMask::None => state.matmul(recurrent)?,
        HiddenMask::Shared(mask) => (state * mask)?.matmul(recurrent)?,
        HiddenMask::Separate { h, t } => {
            let h = (state * h)?.matmul(&recurrent.narrow(1, 0, hidden)?.contiguous()?)?;
            let t = (state * t)?.matmul(&recurrent.narrow(1, hidden, width - hidden)?.contiguous()?)?;
            Tensor::cat(&[h, t], 1)?
        }
    })
}
