//! The convolutions over characters in plain tensor operations.

use crate::char_cnn::filters::Filters;
use crate::embedding::lookup;
use crate::error::Result;
use candle_core::{D, Tensor};

/// [`super::features`] in plain tensor operations.
pub fn features(spelling: &Tensor, characters: &Tensor, filters: &[Filters]) -> Result<Tensor> {
    let (words, length) = spelling.dims2()?;
    let (alphabet, char_size) = characters.dims2()?;
    let blank = Tensor::zeros((1, char_size), characters.dtype(), characters.device())?;
    let characters = Tensor::cat(&[&blank, &characters.narrow(0, 1, alphabet - 1)?], 0)?;
    let vectors = lookup(&characters, spelling, Some(0))?.reshape((words, length, char_size))?;
    let features: Vec<_> =
        filters.iter().map(|filters| convolution(&vectors, filters)).collect::<Result<_>>()?;
    Ok(Tensor::cat(&features, 1)?)
}

/// `(words, length, char size)` to `(words, filters)`: the highest response of each filter.
fn convolution(vectors: &Tensor, filters: &Filters) -> Result<Tensor> {
    let (words, length, char_size) = vectors.dims3()?;
    let positions = length - filters.width + 1;
    let shifted = (0..filters.width).map(|offset| vectors.narrow(1, offset, positions));
    let windows = Tensor::cat(&shifted.collect::<candle_core::Result<Vec<_>>>()?, 2)?;
    let windows = windows.reshape((words * positions, filters.width * char_size))?;
    let responses = windows.matmul(&filters.weight)?.reshape((words, positions, ()))?;
    let responses = responses.transpose(1, 2)?.contiguous()?;
    // By index, so that of equal maxima one receives the gradient.
    let best = responses.detach().argmax_keepdim(D::Minus1)?;
    let highest = responses.gather(&best, D::Minus1)?.squeeze(D::Minus1)?;
    Ok(highest.broadcast_add(&filters.bias)?.tanh()?)
}
