//! Vectors that are computed from what a word is, each distinct word once.

use crate::error::Result;
use candle_core::{Device, Tensor};
use std::collections::HashMap;

/// Vectors of `tokens`, `(time, batch)` of u32 to `(time, batch, size)`, where `vectors` computes `(words, size)` of
/// word ids `(words)`; on a GPU of all tokens, since to find the distinct words would be to wait for the device, longer than
/// to compute some twice.
pub(in crate::model) fn of_tokens(
    tokens: &Tensor,
    vectors: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    if !tokens.device().is_cuda() {
        return of_distinct_tokens(tokens, vectors);
    }
    let (time, batch) = tokens.dims2()?;
    Ok(vectors(&tokens.flatten_all()?)?.reshape((time, batch, ()))?)
}

/// As [`of_tokens`], each distinct word once on every device.
pub(in crate::model) fn of_distinct_tokens(
    tokens: &Tensor,
    vectors: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (time, batch) = tokens.dims2()?;
    let (distinct, positions) = distinct(&tokens.flatten_all()?.to_vec1::<u32>()?);
    let vectors = vectors(&Tensor::new(distinct, tokens.device())?)?;
    let positions = Tensor::new(positions, tokens.device())?;
    Ok(vectors.index_select(&positions, 0)?.reshape((time, batch, ()))?)
}

/// The vectors of the whole vocabulary, `(vocabulary, size)`, without their history.
pub(in crate::model) fn of_vocabulary(
    vocab_size: usize,
    device: &Device,
    vectors: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    const AT_ONCE: usize = 1024; // what is computed on the way would fill the memory for a large vocabulary
    let ids: Vec<u32> = (0..vocab_size as u32).collect();
    let part = |ids: &[u32]| Ok(vectors(&Tensor::new(ids, device)?)?.detach());
    Ok(Tensor::cat(&ids.chunks(AT_ONCE).map(part).collect::<Result<Vec<_>>>()?, 0)?)
}

/// The distinct tokens in the order of their first occurrence, and for each token its position among them.
fn distinct(tokens: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut order = Vec::new();
    let mut position = HashMap::new();
    let positions = tokens.iter().map(|&token| {
        *position.entry(token).or_insert_with(|| {
            order.push(token);
            order.len() as u32 - 1
        })
    });
    let positions = positions.collect();
    (order, positions)
}

#[cfg(test)]
mod tests {
    #[test]
    fn distinct_tokens_keep_their_first_order() {
        assert_eq!(super::distinct(&[5, 3, 5, 9, 3]), (vec![5, 3, 9], vec![0, 1, 0, 2, 1]));
    }
}
