//! A softmax whose words are computed from their characters (Józefowicz et al., 2016, section 3.2), by a network as the
//! embedding has it, with weights of its own.
//!
//! ```text
//! e_w = CNN(characters of w) + r_w M          p(w) = softmax over all words of y · e_w
//! ```
//!
//! Words that are spelled alike get alike scores; r_w M, if there is a `correction`, tells them apart: r_w is a vector of
//! that size for each word. A loss over all words computes all vectors, one over sampled words those that it needs.
//!
//! Weights: those of a char-cnn embedding under `output`, with a projection to the hidden size, which has no biases: what is
//! added to all words alike changes no softmax; `output.correction.words`
//! (vocabulary, correction), `output.correction.weight` (correction, hidden).

use super::OutputSizes;
use super::softmax::Softmax;
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::embedding::computed::{of_tokens, of_vocabulary};
use crate::model::embedding::{CharCnn, CharCnnConfig};
use crate::model::layers::Output;
use crate::model::noise::Noise;
use candle_core::{Device, Tensor};
use rhn_kernels::embedding::lookup;
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::profile::{self, Part};
use rhn_kernels::softmax::{nats, sampled};
use std::sync::Arc;

pub(super) struct CharCnnSoftmax {
    cnn: CharCnn,
    correction: Option<Correction>,
    /// Zeros: the spelling is all that a word has beside its correction.
    bias: Tensor,
    hidden: usize,
    precision: Precision,
    device: Device,
}

/// What tells words apart that are spelled alike.
struct Correction {
    words: Tensor,
    weight: Tensor,
}

impl CharCnnSoftmax {
    pub(super) fn build(
        spelled: &CharCnnConfig,
        correction: Option<usize>,
        OutputSizes { hidden, vocabulary, .. }: OutputSizes,
        builder: &Builder<'_>,
    ) -> Result<Self> {
        let build = |size: usize| -> Result<Correction> {
            let weights = builder.under("output.correction");
            Ok(Correction {
                words: weights.table("words", (vocabulary, size))?,
                weight: weights.weight("weight", (size, hidden))?,
            })
        };
        let highway_layers = spelled.output_layers.unwrap_or(spelled.highway_layers);
        let own = CharCnnConfig { word_size: Some(hidden), highway_layers, ..spelled.clone() };
        Ok(Self {
            cnn: own.cnn("output", false, vocabulary, builder)?,
            correction: correction.map(build).transpose()?,
            bias: Tensor::zeros(vocabulary, builder.dtype(), builder.device)?,
            hidden,
            precision: builder.precision,
            device: builder.device.clone(),
        })
    }

    /// Vectors of the words `ids`, `(words)` of u32, to `(words, hidden)`.
    fn vectors(&self, ids: &Tensor) -> Result<Tensor> {
        let spelled = self.cnn.vectors(ids)?;
        let Some(Correction { words, weight }) = &self.correction else { return Ok(spelled) };
        let correction = linear(&lookup(words, ids, None)?, weight, Stored::ByInput, self.precision)?;
        Ok((spelled + correction)?)
    }

    /// Of the whole vocabulary.
    fn all(&self) -> Result<Tensor> {
        self.vectors(&Tensor::arange(0u32, self.vocabulary() as u32, &self.device)?)
    }
}

impl Output for CharCnnSoftmax {
    fn nats(&self, ys: &Tensor, targets: &Tensor, noise: &Noise) -> Result<Tensor> {
        let ys = ys.flatten(0, 1)?;
        let flat = targets.flatten_all()?;
        let nats = match &noise.candidates {
            None => nats(&ys, &self.all()?, Stored::ByOutput, &self.bias, &flat, self.precision)?,
            Some(drawn) => {
                let samples = drawn.for_targets(flat.to_vec1()?);
                let ids = [samples.ids.as_slice(), &samples.targets].concat();
                let count = ids.len();
                let ids = Tensor::from_vec(ids, (count, 1), &self.device)?;
                let words = of_tokens(&ids, |ids| self.vectors(ids))?.squeeze(1)?;
                let biases = Tensor::zeros(count, ys.dtype(), ys.device())?;
                sampled::nats(&ys, &words, &biases, samples, self.precision)?
            }
        };
        Ok(profile::mark(nats.reshape(targets.shape())?, Part::Rest, Part::OutputBackward)?)
    }

    fn logits(&self, ys: &Tensor, _noise: &Noise) -> Result<Tensor> {
        let (time, batch, _) = ys.dims3()?;
        let logits = linear(&ys.flatten(0, 1)?, &self.all()?, Stored::ByOutput, self.precision)?;
        Ok(logits.reshape((time, batch, ()))?)
    }

    fn vocabulary(&self) -> usize {
        self.bias.elem_count()
    }

    /// The product with all vectors, which a window has once beside what they cost themselves.
    fn cost(&self) -> u64 {
        (self.hidden * self.vocabulary()) as u64
    }

    /// A softmax over the vectors as they are now.
    fn frozen(&self) -> Result<Option<Arc<dyn Output>>> {
        let words = of_vocabulary(self.vocabulary(), &self.device, |ids| self.vectors(ids))?;
        Ok(Some(Arc::new(Softmax::packed(&words, &self.bias, self.precision)?)))
    }
}
