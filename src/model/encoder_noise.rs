//! What is dropped while an encoder reads whole sequences.

use super::config::ModelConfig;
use super::dropout::{DropoutConfig, NoiseSource};
use super::noise::Noise;
use crate::error::Result;
use candle_core::{DType, Device, Tensor};
use rhn_kernels::dropout::{Stream, mask};

/// The masks of an encoder for one batch of sequences.
#[derive(Clone, Debug, Default)]
pub struct EncoderNoise {
    /// The masks of each direction; those of words are the first's alone, for the vectors that both read.
    pub each: [Noise; 2],
    /// The mask of the vector that is made of a whole sequence, `(batch, size)`.
    pub pooled: Option<Tensor>,
}

/// Draws what an encoder drops in a step of training. The rate `output` is that of the vector that is made of a whole sequence.
#[derive(Clone, Debug)]
pub struct EncoderNoiseSource {
    each: Vec<NoiseSource>,
    rate: f64,
    size: usize,
    /// What the mask of the pooled vectors is drawn for.
    purpose: &'static str,
    seed: u64,
    dtype: DType,
    device: Device,
}

impl EncoderNoiseSource {
    /// A source for the encoder of a sentence VAE or the core of a classifier, its dropout rates and a seed. In a VAE the masks
    /// are others than the decoder's, which are drawn from the same seed.
    pub fn new(
        model: &ModelConfig,
        dropout: &DropoutConfig,
        seed: u64,
        dtype: DType,
        device: &Device,
    ) -> Self {
        let spec = &model.spec;
        let classifier = spec.classifier.as_ref();
        let (core, is_bidirectional, passes, purpose) = match &spec.latent {
            Some(latent) => (
                spec.encoder.as_ref().unwrap_or(&spec.core),
                latent.bidirectional,
                ["encoder.", "encoder.backward."],
                "encoder.dropout.pooled",
            ),
            None => (
                &spec.core,
                classifier.is_some_and(|classifier| classifier.bidirectional),
                ["", "backward."],
                "dropout.pooled",
            ),
        };
        let of_core = DropoutConfig { output: 0.0, ..dropout.clone() };
        let of_backward = DropoutConfig { word: 0.0, embedding: 0.0, ..of_core.clone() };
        let input = model.embedding_size();
        let source =
            |dropout, pass| NoiseSource::of_core(core, input, dropout, seed, dtype, device).of_pass(pass);
        let mut each = vec![source(&of_core, passes[0])];
        if is_bidirectional {
            each.push(source(&of_backward, passes[1]));
        }
        let size = each.len() * core.hidden_size();
        Self { each, rate: dropout.output, size, purpose, seed, dtype, device: device.clone() }
    }

    /// What is dropped of `tokens`, `(time, batch)` of u32, in step `step`.
    pub fn draw(&self, tokens: &Tensor, step: u64) -> Result<EncoderNoise> {
        let mut noise = EncoderNoise::default();
        for (noise, source) in noise.each.iter_mut().zip(&self.each) {
            *noise = source.draw(tokens, step, step)?;
        }
        if self.rate > 0.0 {
            let stream = Stream { seed: self.seed, purpose: self.purpose, position: step };
            let shape = (tokens.dim(1)?, self.size).into();
            noise.pooled = Some(mask(stream, self.rate, shape, self.dtype, &self.device)?);
        }
        Ok(noise)
    }
}
