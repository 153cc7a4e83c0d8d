//! The loss of the labels of a batch of sentences: binary cross entropy, averaged over the batch.

use crate::config::{ModelConfig, TrainConfig};
use crate::error::Result;
use crate::eval::classify::{LabelledSentences, padded};
use crate::model::{Classifier, EncoderNoise, EncoderNoiseSource, State, label_nats};
use crate::parallel::rows::Rows;
use crate::train::objective::{Loss, Objective, Sums};
use candle_core::{DType, Device, Tensor};
use rhn_kernels::precision::Precision;

/// Sentences side by side, with their labels.
pub struct SentenceBatch {
    /// `(time, batch)` of u32; what comes after a sentence is padding.
    pub tokens: Tensor,
    /// Tokens of each sentence.
    pub lengths: Vec<usize>,
    /// `(batch)`: 1 needs an edit, 0 does not.
    pub labels: Tensor,
}

impl SentenceBatch {
    /// The sentences of these numbers.
    pub fn new(from: &LabelledSentences, numbers: &[u32], dtype: DType, device: &Device) -> Result<Self> {
        let ids = numbers.iter().map(|&number| from.sentences[number as usize].ids.as_slice());
        let (tokens, lengths) = padded(&ids.collect::<Vec<_>>(), device)?;
        let labels = numbers.iter().map(|&number| f32::from(u8::from(from.labels[number as usize])));
        let labels = Tensor::from_vec(labels.collect::<Vec<f32>>(), numbers.len(), &Device::Cpu)?;
        Ok(Self { tokens, lengths, labels: labels.to_dtype(dtype)?.to_device(device)? })
    }
}

/// The loss of the labels of a batch of sentences.
pub struct LabelLoss {
    /// The model, whose gradients are recorded.
    pub model: Classifier,
    /// Draws each step's dropout masks.
    pub noise: EncoderNoiseSource,
    positive_weight: f64,
}

impl LabelLoss {
    /// The objective of a recipe, for `model`, which `config` describes.
    pub fn new(model: Classifier, config: &ModelConfig, train: &TrainConfig, precision: Precision) -> Self {
        let dtype = precision.dtype();
        let noise = EncoderNoiseSource::new(config, &train.dropout, train.seed, dtype, model.device());
        Self { model, noise, positive_weight: train.positive_weight }
    }
}

impl Objective for LabelLoss {
    type Batch = SentenceBatch;
    type Noise = EncoderNoise;

    /// No sentence sees another one.
    fn zero_state(&self) -> Result<State> {
        Ok(State(Vec::new()))
    }

    fn noise(&self, batch: &SentenceBatch, step: u64) -> Result<EncoderNoise> {
        self.noise.draw(&batch.tokens, step)
    }

    fn rows(
        &self,
        batch: &SentenceBatch,
        noise: EncoderNoise,
        rows: Rows,
    ) -> Result<(SentenceBatch, EncoderNoise)> {
        let own = SentenceBatch {
            tokens: rows.of_tensor(&batch.tokens, 1)?,
            lengths: batch.lengths[rows.first..rows.first + rows.count].to_vec(),
            labels: rows.of_tensor(&batch.labels, 0)?,
        };
        Ok((own, rows.of_encoder_noise(noise)?))
    }

    fn loss(&self, batch: &SentenceBatch, carried: &State, noise: &EncoderNoise) -> Result<Loss> {
        let logits = self.model.logits(&batch.tokens, &batch.lengths, noise)?;
        let objective = label_nats(&logits, &batch.labels, self.positive_weight)?.mean_all()?;
        // What is reported compares with validation, which weighs no label.
        let nats = label_nats(&logits.detach(), &batch.labels, 1.0)?;
        let sums = Sums { nats, tokens: batch.lengths.len() as u64 };
        Ok(Loss { objective, sums, carried: carried.clone(), teacher: None })
    }
}
