//! The recurrences in plain tensor operations, one equation a line.
//!
//! Slow, differentiable by candle itself, and what runs where there is no kernel.

use crate::error::Result;
use crate::scan::hidden_mask::HiddenMask;
use candle_core::Tensor;
use candle_nn::ops::sigmoid;

/// [`super::recurrence::rhn`] in plain tensor operations.
pub fn rhn(
    projected: &Tensor,
    recurrent: &Tensor,
    bias: &Tensor,
    state: &Tensor,
    mask: &HiddenMask,
) -> Result<Tensor> {
    let (time, _, _) = projected.dims3()?;
    let (depth, hidden, _) = recurrent.dims3()?;
    let mut state = state.detach();
    let mut outputs = Vec::with_capacity(time);
    for step in 0..time {
        for sublayer in 0..depth {
            let product = masked_product(&state, &recurrent.get(sublayer)?, mask, hidden)?;
            let mut z = product.broadcast_add(&bias.get(sublayer)?)?;
            if sublayer == 0 {
                z = (z + projected.get(step)?)?;
            }
            let h = z.narrow(1, 0, hidden)?.tanh()?;
            let t = sigmoid(&z.narrow(1, hidden, hidden)?)?;
            state = (&state + (t * (h - &state)?)?)?;
        }
        outputs.push(state.clone());
    }
    Ok(Tensor::stack(&outputs, 0)?)
}

/// [`super::lstm::lstm`] in plain tensor operations.
pub fn lstm(
    projected: &Tensor,
    recurrent: &Tensor,
    bias: &Tensor,
    state: [&Tensor; 2],
    mask: &HiddenMask,
) -> Result<(Tensor, Tensor)> {
    let (time, _, _) = projected.dims3()?;
    let (hidden, _) = recurrent.dims2()?;
    let [mut h, mut c] = state.map(Tensor::detach);
    let mut outputs = Vec::with_capacity(time);
    for step in 0..time {
        let entered = mask.shared().map_or(Ok(h.clone()), |mask| &h * mask)?;
        let z = (projected.get(step)? + entered.matmul(recurrent)?)?.broadcast_add(bias)?;
        let gates = sigmoid(&z.narrow(1, 0, 3 * hidden)?)?;
        let gate = |index| gates.narrow(1, index * hidden, hidden);
        let candidate = z.narrow(1, 3 * hidden, hidden)?.tanh()?;
        c = ((gate(2)? * c)? + (gate(0)? * candidate)?)?;
        h = (gate(1)? * c.tanh()?)?;
        outputs.push(h.clone());
    }
    Ok((Tensor::stack(&outputs, 0)?, c.detach()))
}

/// `(s ⊙ m) R`, the columns of H and T with their own mask where they have one.
fn masked_product(state: &Tensor, recurrent: &Tensor, mask: &HiddenMask, hidden: usize) -> Result<Tensor> {
    Ok(match mask {
        HiddenMask::None => state.matmul(recurrent)?,
        HiddenMask::Shared(mask) => (state * mask)?.matmul(recurrent)?,
        HiddenMask::Separate { h, t } => {
            let h = (state * h)?.matmul(&recurrent.narrow(1, 0, hidden)?.contiguous()?)?;
            let t = (state * t)?.matmul(&recurrent.narrow(1, hidden, hidden)?.contiguous()?)?;
            Tensor::cat(&[h, t], 1)?
        }
    })
}
