//! The mixture of a block of rows, in operations that record their history where the weights do.

use crate::error::Result;
use crate::model::noise::Noise;
use crate::model::output::log_softmax::{log_softmax, log_sum_exp};
use crate::model::output::product::Product;
use candle_core::{D, Tensor};
use rhn_kernels::linear::Stored;
use rhn_kernels::precision::Precision;
use std::ops::Range;

/// The rows of a window, `(time, batch)` in order, and their dropout.
#[derive(Clone)]
pub(super) struct Window {
    batch: usize,
    /// `(batch, K · size)`, or `(time, batch, K · size)`.
    mask: Option<Tensor>,
}

impl Window {
    /// The window of `ys`, `(time, batch, hidden)`.
    pub(super) fn new(ys: &Tensor, noise: &Noise) -> Result<Self> {
        Ok(Self { batch: ys.dim(1)?, mask: noise.components.clone() })
    }

    /// `rows` rows cut into blocks of `at_once`.
    pub(super) fn blocks(&self, rows: usize, at_once: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        (0..rows).step_by(at_once).map(move |start| start..rows.min(start + at_once))
    }

    /// The masks of some rows, `(rows, K · size)`.
    pub(super) fn mask_of(&self, rows: &Range<usize>) -> Result<Option<Tensor>> {
        let Some(mask) = &self.mask else { return Ok(None) };
        if mask.rank() == 3 {
            return Ok(Some(mask.flatten(0, 1)?.narrow(0, rows.start, rows.len())?));
        }
        let batch_row = |row: usize| (row % self.batch) as u32;
        let ids: Vec<u32> = rows.clone().map(batch_row).collect();
        let ids = Tensor::from_vec(ids, rows.len(), mask.device())?;
        Ok(Some(mask.index_select(&ids, 0)?))
    }
}

/// The weights.
pub(super) struct Layer {
    vectors: Product,
    /// `(K · size)`.
    vectors_bias: Tensor,
    prior: Product,
    words: Product,
    /// `(vocabulary)`.
    bias: Tensor,
    components: usize,
}

/// The tensors of [`Layer::trained`]: of W_k, of b_k, of W_π, of E, of b.
pub(super) type Weights = [Tensor; 5];

impl Layer {
    /// A layer on `weights`, of which the words' vectors are as `stored` says.
    pub(super) fn new(weights: Weights, stored: Stored, precision: Precision) -> Result<Self> {
        let [vectors, vectors_bias, prior, words, bias] = weights;
        let components = prior.dim(1)?;
        let by_input = |weight| Product::Trained { weight, stored: Stored::ByInput, precision };
        Ok(Self {
            vectors: by_input(vectors),
            vectors_bias,
            prior: by_input(prior),
            words: Product::Trained { weight: words, stored, precision },
            bias,
            components,
        })
    }

    /// The weights, and how they are stored and multiplied; `None` once they are packed.
    pub(super) fn trained(&self) -> Option<(Weights, Stored, Precision)> {
        let Product::Trained { weight: vectors, precision, .. } = &self.vectors else { return None };
        let Product::Trained { weight: prior, .. } = &self.prior else { return None };
        let Product::Trained { weight: words, stored, .. } = &self.words else { return None };
        let weights = [vectors, &self.vectors_bias, prior, words, &self.bias].map(Tensor::clone);
        Some((weights, *stored, *precision))
    }

    /// The layer with its weights laid out for evaluation; `None` if they are.
    pub(super) fn packed(&self) -> Result<Option<Self>> {
        let products = [self.vectors.packed()?, self.prior.packed()?, self.words.packed()?];
        let [Some(vectors), Some(prior), Some(words)] = products else { return Ok(None) };
        let [vectors_bias, bias] = [&self.vectors_bias, &self.bias].map(Tensor::detach);
        Ok(Some(Self { vectors, vectors_bias, prior, words, bias, components: self.components }))
    }

    /// Logits of all components together.
    pub(super) fn logits_of_a_row(&self) -> usize {
        self.components * self.bias.elem_count()
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.bias.elem_count()
    }

    /// u, `(rows · K, size)`, for `ys` of `(rows, hidden)`; `mask` is `(rows, K · size)`.
    fn vectors(&self, ys: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let mut us = self.vectors.forward(ys)?.broadcast_add(&self.vectors_bias)?.tanh()?;
        if let Some(mask) = mask {
            us = (us * mask)?;
        }
        Ok(us.reshape((ys.dim(0)? * self.components, ()))?)
    }

    /// ln π, `(rows, K)`.
    fn log_prior(&self, ys: &Tensor) -> Result<Tensor> {
        log_softmax(&self.prior.forward(ys)?)
    }

    /// Nats of each target, `(rows)`.
    pub(super) fn nats(&self, ys: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let rows = ys.dim(0)?;
        let us = self.vectors(ys, mask)?;
        let targets = targets.unsqueeze(1)?.repeat((1, self.components))?.flatten_all()?;
        let nats = self.words.nats(&us, &self.bias, &targets)?;
        let each = (self.log_prior(ys)? - nats.reshape((rows, self.components))?)?;
        Ok(log_sum_exp(&each)?.squeeze(D::Minus1)?.neg()?)
    }

    /// ln p, `(rows, vocabulary)`.
    pub(super) fn log_probabilities(&self, ys: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let rows = ys.dim(0)?;
        let us = self.vectors(ys, mask)?;
        let each = log_softmax(&self.words.forward(&us)?.broadcast_add(&self.bias)?)?;
        let each = each.broadcast_add(&self.log_prior(ys)?.reshape((rows * self.components, 1))?)?;
        let by_word = each.reshape((rows, self.components, ()))?.transpose(1, 2)?.contiguous()?;
        Ok(log_sum_exp(&by_word)?.squeeze(D::Minus1)?)
    }
}
