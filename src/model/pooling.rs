//! From the states of a sentence to one vector: their mean, their maximum, or a weighted mean whose weights are learned.
//!
//! ```text
//! mean       z = 1/n Σ_t h_t
//! max        z_i = max_t h_t,i
//! attention  u_t = tanh(h_t A + b)    a = softmax_t(u_t · v)    z = Σ_t a_t h_t        Yang et al., 2016, without a hierarchy
//! ```
//!
//! t runs over the n steps of the sentence alone: padding has no part in any of them.

use super::builder::Builder;
use super::sequences::Lengths;
use crate::error::Result;
use candle_core::Tensor;
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::sequences::maximum;
use serde::{Deserialize, Serialize};

/// How the states of a sentence become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The maximum of each number over the steps; of equal ones the first learns.
    Max,
    /// Their mean, weighted by additive attention.
    #[default]
    Attention,
}

impl Pooling {
    /// As recipes name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Max => "max",
            Self::Attention => "attention",
        }
    }

    /// The layer, for states of `size`; attention has `attention_size` units.
    pub(super) fn build(self, size: usize, attention_size: usize, weights: &Builder<'_>) -> Result<Pool> {
        Ok(match self {
            Self::Mean => Pool::Mean,
            Self::Max => Pool::Max,
            Self::Attention => {
                let weights = weights.under("attention");
                Pool::Attention(Attention {
                    weight: weights.weight("weight", (size, attention_size))?,
                    bias: weights.weight("bias", attention_size)?,
                    vector: weights.weight("vector", (attention_size, 1))?,
                    precision: weights.precision,
                })
            }
        })
    }
}

/// A pooling with its weights.
pub(super) enum Pool {
    Mean,
    Max,
    Attention(Attention),
}

/// Additive attention of one query.
pub(super) struct Attention {
    /// A, `(size, units)`.
    weight: Tensor,
    /// b, `(units)`.
    bias: Tensor,
    /// v, `(units, 1)`.
    vector: Tensor,
    precision: Precision,
}

impl Pool {
    /// The states of the core that reads forward, and of the other one in the order in which it reads, `(time, batch, hidden)`,
    /// to `(batch, size)`.
    pub(super) fn forward(
        &self,
        (forward, backward): (Tensor, Option<Tensor>),
        lengths: &Lengths,
    ) -> Result<Tensor> {
        match self {
            // A mean and a maximum do not depend on the order of the steps.
            Self::Mean => {
                let mask = lengths.mask(forward.dtype(), forward.device())?;
                let shares = mask.broadcast_div(&mask.sum_keepdim(0)?)?;
                each(forward, backward, |hs| weighted(hs, &shares))
            }
            Self::Max => each(forward, backward, |hs| Ok(maximum(hs, lengths.rows())?)),
            Self::Attention(attention) => {
                let hs = match backward {
                    Some(backward) => Tensor::cat(&[forward, lengths.reversed(&backward)?], 2)?,
                    None => forward,
                };
                weighted(&hs, &attention.weights(&hs, lengths)?)
            }
        }
    }

    /// Multiplications a step.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Self::Mean | Self::Max => 0,
            Self::Attention(attention) => {
                (attention.weight.elem_count() + attention.vector.elem_count()) as u64
            }
        }
    }
}

impl Attention {
    /// a, `(time, batch)`; 0 in the padding.
    fn weights(&self, hs: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        let us = linear(hs, &self.weight, Stored::ByInput, self.precision)?;
        let us = us.broadcast_add(&self.bias)?.tanh()?;
        let scores = linear(&us, &self.vector, Stored::ByInput, self.precision)?.squeeze(2)?;
        let scores = inside(&scores, lengths)?;
        let highest = scores.detach().max_keepdim(0)?; // it cancels out, and e^0 is the largest number
        let exponentials = scores.broadcast_sub(&highest)?.exp()?;
        Ok(exponentials.broadcast_div(&exponentials.sum_keepdim(0)?)?)
    }
}

/// `xs`, `(time, batch)`, with −∞ in the padding.
fn inside(xs: &Tensor, lengths: &Lengths) -> Result<Tensor> {
    let mask = lengths.mask(candle_core::DType::U8, xs.device())?;
    let nothing = Tensor::new(f64::NEG_INFINITY, xs.device())?.to_dtype(xs.dtype())?;
    Ok(mask.where_cond(xs, &nothing.broadcast_as(xs.shape())?)?)
}

/// What `pool` makes of the states of each core, side by side.
fn each(
    forward: Tensor,
    backward: Option<Tensor>,
    pool: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let forward = pool(&forward)?;
    Ok(match backward {
        Some(backward) => Tensor::cat(&[forward, pool(&backward)?], 1)?,
        None => forward,
    })
}

/// The sum of `hs`, `(time, batch, size)`, each step weighted by `(time, batch)`.
fn weighted(hs: &Tensor, weights: &Tensor) -> Result<Tensor> {
    Ok(hs.broadcast_mul(&weights.unsqueeze(2)?)?.sum(0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn pooled(pool: &Pool, lengths: Vec<usize>) -> Vec<Vec<f64>> {
        // Two steps of two rows of two units; the second row is over after one.
        let hs = [[[1.0, -4.0], [-2.0, -3.0]], [[3.0, -8.0], [9.0, 9.0]]];
        let hs = Tensor::new(&hs, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        let lengths = Lengths::new(2, lengths).unwrap();
        pool.forward((hs, None), &lengths).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn a_mean_and_a_maximum_are_over_the_sentence_alone() {
        assert_eq!(pooled(&Pool::Mean, vec![2, 1]), [[2.0, -6.0], [-2.0, -3.0]]);
        assert_eq!(pooled(&Pool::Max, vec![2, 1]), [[3.0, -4.0], [-2.0, -3.0]]);
    }

    #[test]
    fn attention_that_scores_all_steps_alike_is_the_mean() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
        let attention = Attention {
            weight: zeros(&[2, 3]),
            bias: zeros(&[3]),
            vector: zeros(&[3, 1]),
            precision: Precision::F64,
        };
        assert_eq!(pooled(&Pool::Attention(attention), vec![2, 1]), [[2.0, -6.0], [-2.0, -3.0]]);
    }
}
