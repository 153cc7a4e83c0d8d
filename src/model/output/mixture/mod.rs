//! A mixture of softmaxes (Yang et al., 2018, arXiv 1711.03953): several softmaxes over one table of vectors, so that the
//! matrix of log-probabilities can have a higher rank than the vectors have components.
//!
//! ```text
//! π = softmax(y W_π)            u_k = tanh(y W_k + b_k) ⊙ m_k            k = 1 ..= K
//! p = Σ_k π_k softmax(u_k Eᵀ + b)
//! ```
//!
//! A u_k has the size of a word's vector, so E can be the embedding whatever the hidden size is. The sum over k is a
//! log-sum-exp of ln π_k + ln softmax_k. The logits take K times the memory of a plain softmax: rows go through in blocks,
//! and a block's values are made again for its gradient.
//!
//! Weights: `output.components.weight` (hidden, K · size), `output.components.bias`, columns of u_1, then of u_2 …;
//! `output.mixture.weight` (hidden, K), of W_π; `output.weight` (size, vocabulary), or the embedding's
//! (vocabulary, size) if tied; `output.bias`.

mod layer;
mod recompute;

use super::OutputSizes;
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::layers::Output;
use crate::model::noise::Noise;
use candle_core::Tensor;
use layer::{Layer, Window};
use recompute::recomputed;
use rhn_kernels::linear::Stored;
use rhn_kernels::profile::{self, Part};
use std::sync::Arc;

/// Logits of all components that are made at a time where no gradient is wanted of the log-probabilities: 32 MiB of f32.
const LOGITS: usize = 1 << 23;

pub(super) struct Mixture {
    layer: Layer,
    cost: u64,
}

impl Mixture {
    pub(super) fn build(
        components: usize,
        sizes: OutputSizes,
        tied: Option<&Tensor>,
        builder: &Builder<'_>,
    ) -> Result<Self> {
        let OutputSizes { hidden, embedding, vocabulary } = sizes;
        let width = components * embedding;
        let builder = builder.under("output");
        let vectors = builder.products(components).weight("components.weight", (hidden, width))?;
        let vectors_bias = builder.weight("components.bias", width)?;
        let prior = builder.weight("mixture.weight", (hidden, components))?;
        let (words, stored) = match tied {
            Some(table) => (table.clone(), Stored::ByOutput),
            None => (builder.weight("weight", (embedding, vocabulary))?, Stored::ByInput),
        };
        let bias = builder.weight("bias", vocabulary)?;
        let cost = vectors.elem_count() + prior.elem_count() + components * words.elem_count();
        let weights = [vectors, vectors_bias, prior, words, bias];
        Ok(Self { layer: Layer::new(weights, stored, builder.precision)?, cost: cost as u64 })
    }
}

impl Output for Mixture {
    fn nats(&self, ys: &Tensor, targets: &Tensor, noise: &Noise) -> Result<Tensor> {
        let window = Window::new(ys, noise)?;
        let flat = targets.flatten_all()?;
        let nats = recomputed(&self.layer, &ys.flatten(0, 1)?, &flat, window)?;
        Ok(profile::mark(nats.reshape(targets.shape())?, Part::Rest, Part::OutputBackward)?)
    }

    /// ln p, whose softmax is p.
    fn logits(&self, ys: &Tensor, noise: &Noise) -> Result<Tensor> {
        let (time, batch, _) = ys.dims3()?;
        let window = Window::new(ys, noise)?;
        let ys = ys.flatten(0, 1)?;
        let at_once = (LOGITS / self.layer.logits_of_a_row()).max(1);
        let blocks = window.blocks(ys.dim(0)?, at_once);
        let blocks = blocks.map(|rows| {
            let mask = window.mask_of(&rows)?;
            self.layer.log_probabilities(&ys.narrow(0, rows.start, rows.len())?, mask.as_ref())
        });
        Ok(Tensor::cat(&blocks.collect::<Result<Vec<_>>>()?, 0)?.reshape((time, batch, ()))?)
    }

    fn vocabulary(&self) -> usize {
        self.layer.vocabulary()
    }

    fn cost(&self) -> u64 {
        self.cost
    }

    fn frozen(&self) -> Result<Option<Arc<dyn Output>>> {
        let layer = self.layer.packed()?;
        Ok(layer.map(|layer| Arc::new(Self { layer, cost: self.cost }) as Arc<dyn Output>))
    }
}

#[cfg(test)]
mod tests;
