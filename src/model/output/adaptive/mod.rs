//! An adaptive softmax (Grave et al., 2017, arXiv 1609.04309), laid out as PyTorch's `AdaptiveLogSoftmaxWithLoss` has it.
//!
//! The vocabulary is sorted by falling frequency and cut into clusters. A head decides between the words of the first one
//! and the other clusters; a tail of smaller vectors decides within one of those. With cut-offs c_0 < c_1 < … < c_K = V:
//!
//! ```text
//! head     y W_h (+ b)              c_0 words and K clusters
//! tail i   (y P_i) W_i              P_i to ⌊hidden / div_value^(i+1)⌋ numbers, c_{i+1} − c_i words
//! ln p(w) = ln softmax(head)[w]                                                w < c_0
//!         = ln softmax(head)[c_0 + i] + ln softmax(tail i)[w − c_i]            c_i ≤ w < c_{i+1}
//! ```
//!
//! A loss computes a tail for the rows whose target is in it. One that no target is in has no gradient.
//!
//! Weights, as PyTorch's state dict has them: `output.head.weight` (c_0 + K, hidden), `output.head.bias` if asked for,
//! `output.tail.<i>.0.weight` (⌊hidden / div_value^(i+1)⌋, hidden) and `output.tail.<i>.1.weight` (words, that). Tied to an
//! adaptive embedding, the words are its tables, and of the head there is `output.head.clusters` (K, hidden).

mod head;
mod rows;

use super::OutputSizes;
use super::log_softmax::log_softmax;
use super::product::{Product, in_blocks};
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::clusters::{AdaptiveShape, Clusters};
use crate::model::layers::{Output, OutputRows};
use crate::model::noise::Noise;
use candle_core::Tensor;
use head::Head;
use rhn_kernels::embedding::lookup;
use rhn_kernels::linear::Stored;
use rhn_kernels::profile::{self, Part};
use rows::AdaptiveRows;
use std::sync::Arc;

pub(super) struct Adaptive {
    clusters: Clusters,
    head: Head,
    head_bias: Tensor,
    tails: Vec<Tail>,
    cost: u64,
}

/// The words of a cluster behind the first.
struct Tail {
    projection: Product,
    words: Product,
    /// Zeros: a tail has none.
    bias: Tensor,
}

impl Adaptive {
    pub(super) fn build(
        shape: &AdaptiveShape,
        OutputSizes { hidden, vocabulary, .. }: OutputSizes,
        tied: Option<&[Tensor]>,
        builder: &Builder<'_>,
    ) -> Result<Self> {
        let clusters = Clusters::new(&shape.cutoffs, vocabulary);
        let precision = builder.precision;
        let product = |weight| Product::Trained { weight, stored: Stored::ByOutput, precision };
        let zeros = |count: usize| Tensor::zeros(count, builder.dtype(), builder.device);
        let builder = builder.under("output");
        let head_size = clusters.head_size();
        let head_bias = match shape.head_bias {
            true => builder.weight("head.bias", head_size)?,
            false => zeros(head_size)?,
        };
        let tail = |(i, words): (usize, usize)| -> Result<Tail> {
            let width = shape.tail_width(hidden, i);
            let weights = builder.under(&format!("tail.{i}")).without_gradient_at_times();
            Ok(Tail {
                projection: product(weights.weight("0.weight", (width, hidden))?),
                words: product(match tied {
                    Some(tables) => tables[i + 1].clone(),
                    None => weights.table("1.weight", (words, width))?,
                }),
                bias: zeros(words)?,
            })
        };
        let head = match tied {
            Some(tables) => Head::Tied {
                words: tables[0].clone(),
                clusters: builder.table("head.clusters", (head_size - clusters.first(), hidden))?,
                precision,
            },
            None => Head::One(product(builder.table("head.weight", (head_size, hidden))?)),
        };
        Ok(Self {
            head,
            head_bias,
            tails: clusters.tail_sizes().enumerate().map(tail).collect::<Result<_>>()?,
            cost: clusters.expected_cost(hidden, |i| shape.tail_width(hidden, i)),
            clusters,
        })
    }

    /// ln p of some rows, `(rows, vocabulary)`.
    fn log_probabilities(&self, ys: &Tensor) -> Result<Tensor> {
        let head = log_softmax(&self.head.with(|head| head.forward(ys))?.broadcast_add(&self.head_bias)?)?;
        let first = self.clusters.first();
        let mut parts = vec![head.narrow(1, 0, first)?];
        for (i, tail) in self.tails.iter().enumerate() {
            let within = log_softmax(&tail.words.forward(&tail.projection.forward(ys)?)?)?;
            parts.push(within.broadcast_add(&head.narrow(1, first + i, 1)?)?);
        }
        Ok(Tensor::cat(&parts, 1)?)
    }
}

impl Output for Adaptive {
    fn nats(&self, ys: &Tensor, targets: &Tensor, _noise: &Noise) -> Result<Tensor> {
        let ys = ys.flatten(0, 1)?;
        let split = self.clusters.split(&targets.flatten_all()?.to_vec1()?)?;
        let ids = |ids: Vec<u32>| {
            let count = ids.len();
            Tensor::from_vec(ids, count, ys.device())
        };
        let head_targets = ids(split.head)?;
        let mut nats = self.head.with(|head| head.nats(&ys, &self.head_bias, &head_targets))?;
        for (tail, part) in self.tails.iter().zip(split.tails) {
            if part.places.is_empty() {
                continue;
            }
            let rows = ids(part.places)?;
            let projected = tail.projection.forward(&lookup(&ys, &rows, None)?)?;
            let within = tail.words.nats(&projected, &tail.bias, &ids(part.ids)?)?;
            nats = nats.index_add(&rows, &within, 0)?;
        }
        Ok(profile::mark(nats.reshape(targets.shape())?, Part::Rest, Part::OutputBackward)?)
    }

    /// ln p, whose softmax is p.
    fn logits(&self, ys: &Tensor, _noise: &Noise) -> Result<Tensor> {
        let (time, batch, _) = ys.dims3()?;
        let ys = ys.flatten(0, 1)?;
        let log_probabilities = in_blocks(ys.dim(0)?, self.clusters.vocabulary(), |rows| {
            self.log_probabilities(&ys.narrow(0, rows.start, rows.len())?)
        })?;
        Ok(log_probabilities.reshape((time, batch, ()))?)
    }

    fn vocabulary(&self) -> usize {
        self.clusters.vocabulary()
    }

    fn cost(&self) -> u64 {
        self.cost
    }

    fn frozen(&self) -> Result<Option<Arc<dyn Output>>> {
        let Some(head) = self.head.packed()? else { return Ok(None) };
        let tail = |tail: &Tail| -> Result<Option<Tail>> {
            let (Some(projection), Some(words)) = (tail.projection.packed()?, tail.words.packed()?) else {
                return Ok(None);
            };
            Ok(Some(Tail { projection, words, bias: tail.bias.clone() }))
        };
        let tails: Option<Vec<Tail>> = self.tails.iter().map(tail).collect::<Result<_>>()?;
        let Some(tails) = tails else { return Ok(None) };
        let head_bias = self.head_bias.detach();
        Ok(Some(Arc::new(Self { clusters: self.clusters.clone(), head, head_bias, tails, cost: self.cost })))
    }

    fn rows(&self) -> Result<Option<Box<dyn OutputRows>>> {
        let Some(head) = self.head.rows() else { return Ok(None) };
        let tail = |tail: &Tail| Some([tail.projection.rows()?, tail.words.rows()?]);
        let Some(tails) = self.tails.iter().map(tail).collect::<Option<Vec<_>>>() else { return Ok(None) };
        Ok(Some(Box::new(AdaptiveRows::new(head, self.head_bias.to_vec1()?, tails))))
    }
}

#[cfg(test)]
mod tests;
