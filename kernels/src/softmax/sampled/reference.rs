//! The losses of sampled words in plain tensor operations.

use super::{Kind, Samples};
use crate::error::Result;
use candle_core::{D, Tensor};
use candle_nn::ops::log_softmax;

/// What a sample that is the row's target gets added to its logit.
const REMOVED: f64 = -1e37;

/// [`super::nats`] in plain tensor operations.
pub fn nats(ys: &Tensor, words: &Tensor, biases: &Tensor, samples: &Samples) -> Result<Tensor> {
    let count = samples.ids.len();
    let rows = samples.targets.len();
    let ln_q = Tensor::from_slice(&samples.log_expected, count + rows, ys.device())?.to_dtype(ys.dtype())?;
    let offsets = (biases - ln_q)?;
    let sampled =
        ys.matmul(&words.narrow(0, 0, count)?.t()?)?.broadcast_add(&offsets.narrow(0, 0, count)?)?;
    let target = (ys * words.narrow(0, count, rows)?)?.sum(D::Minus1)? + offsets.narrow(0, count, rows)?;
    let target = target?.unsqueeze(1)?;
    Ok(match samples.kind {
        Kind::Softmax => {
            let mut removed = vec![0.0; rows * count];
            for (row, hit) in samples.hits().into_iter().enumerate() {
                hit.into_iter().for_each(|at| removed[row * count + at] = REMOVED);
            }
            let removed = Tensor::from_vec(removed, (rows, count), ys.device())?.to_dtype(ys.dtype())?;
            let all = Tensor::cat(&[&target, &(sampled + removed)?], 1)?;
            log_softmax(&all, D::Minus1)?.narrow(1, 0, 1)?.squeeze(1)?.neg()?
        }
        Kind::Nce => (softplus(&target.neg()?)?.squeeze(1)? + softplus(&sampled)?.sum(D::Minus1)?)?,
    })
}

/// ln(1 + e^x) = −ln sigmoid(−x), safe from overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    Ok((x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?)
}
