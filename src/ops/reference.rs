//! The oracle: the recurrences and the loss in plain tensor operations, one equation a line.
//!
//! Slow, differentiable by candle itself, and what runs where there is no kernel.

use super::embedding::lookup;
use super::filters::Filters;
use super::hidden_mask::HiddenMask;
use crate::error::Result;
use candle_core::{D, Tensor};
use candle_nn::ops::{log_softmax, sigmoid};

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

/// [`super::loss::nats`] of the products `(rows, vocabulary)`, in plain tensor operations.
pub fn nats(products: &Tensor, bias: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let log_probabilities = log_softmax(&products.broadcast_add(bias)?, D::Minus1)?;
    Ok(log_probabilities.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?.neg()?)
}

/// [`super::char_cnn::features`] in plain tensor operations.
pub fn features(letters: &Tensor, characters: &Tensor, filters: &[Filters]) -> Result<Tensor> {
    let ((words, length), (alphabet, char_size)) = (letters.dims2()?, characters.dims2()?);
    let blank = Tensor::zeros((1, char_size), characters.dtype(), characters.device())?;
    let characters = Tensor::cat(&[&blank, &characters.narrow(0, 1, alphabet - 1)?], 0)?;
    let vectors = lookup(&characters, letters, Some(0))?.reshape((words, length, char_size))?;
    let features: Vec<_> =
        filters.iter().map(|filters| convolution(&vectors, filters)).collect::<Result<_>>()?;
    Ok(Tensor::cat(&features, 1)?)
}

/// `(words, length, char size)` to `(words, filters)`: the highest response of each filter.
fn convolution(vectors: &Tensor, filters: &Filters) -> Result<Tensor> {
    let (words, length, char_size) = vectors.dims3()?;
    let places = length - filters.width + 1;
    let shifted = (0..filters.width).map(|offset| vectors.narrow(1, offset, places));
    let windows = Tensor::cat(&shifted.collect::<candle_core::Result<Vec<_>>>()?, 2)?;
    let windows = windows.reshape((words * places, filters.width * char_size))?;
    let responses = windows.matmul(&filters.weight)?.reshape((words, places, ()))?;
    let responses = responses.transpose(1, 2)?.contiguous()?;
    // By index, so that of equal maxima one receives the gradient.
    let best = responses.detach().argmax_keepdim(D::Minus1)?;
    let highest = responses.gather(&best, D::Minus1)?.squeeze(D::Minus1)?;
    Ok(highest.broadcast_add(&filters.bias)?.tanh()?)
}

/// [`super::highway::highway`] in plain tensor operations.
pub fn highway(products: &Tensor, bias: &Tensor, ys: &Tensor, shift: f64) -> Result<Tensor> {
    let (_, size) = ys.dims2()?;
    let z = products.broadcast_add(bias)?;
    let h = z.narrow(1, 0, size)?.relu()?;
    let t = sigmoid(&(z.narrow(1, size, size)? + shift)?)?;
    Ok((ys + (t * (h - ys)?)?)?)
}
