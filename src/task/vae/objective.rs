//! The loss of a sentence VAE (Bowman et al., 2016): the negative evidence lower bound, its KL weighed.
//!
//! ```text
//! loss = mean over the sentences of ( Σ_t −ln p(w_t | w_<t, z) + β (Σ_j max(λ, KL_j) + c(z)) )      z ~ q(z | x), one draw
//! ```
//!
//! KL_j is that of number j of the vector from a standard Gaussian; of a learned prior p from the Gaussian G with its mean and
//! variances, and c(z) = ln G(z) − ln p(z), else 0.
//! β is `train.latent.schedule`'s, λ is `train.latent.free_bits`, for its epochs. Sums over a sentence, not means over its words: a mean
//! would weigh the KL twenty times too much.

use crate::config::LatentTraining;
use crate::data::items::SentenceBatch;
use crate::error::Result;
use crate::model::sequences::Lengths;
use crate::model::{EncoderNoise, EncoderNoiseSource, Noise, NoiseSource, SentenceVae, State};
use crate::parallel::rows::Rows;
use crate::train::objective::{Loss, Objective, Sums};
use candle_core::{Device, Tensor};
use rhn_kernels::rng::Rng;

/// The negative evidence lower bound of sentences.
pub struct Elbo {
    /// The model, whose gradients are recorded.
    pub model: SentenceVae,
    /// Draws the decoder's dropout masks.
    pub noise: NoiseSource,
    /// Draws the encoder's.
    pub encoder_noise: EncoderNoiseSource,
    /// How the latent vector comes into use.
    pub latent: LatentTraining,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// What the decoder reads in place of a word that it is not to see.
    pub unknown: Option<u32>,
    /// What every draw is made from.
    pub seed: u64,
}

/// What is random in a step.
pub struct ElboNoise {
    /// The decoder's dropout masks.
    pub masks: Noise,
    /// The encoder's.
    pub encoder_masks: EncoderNoise,
    /// Standard normal numbers, `(batch, size)`.
    pub epsilon: Tensor,
    /// What the decoder reads, `(time, batch)`.
    pub inputs: Tensor,
    /// β.
    pub kl_weight: f64,
    /// λ.
    pub free_bits: f64,
}

impl Elbo {
    /// What the decoder reads at `step`: each word with probability `word_keep`, never another token in place of the first
    /// line end.
    fn inputs(&self, batch: &SentenceBatch, step: u64) -> Result<Tensor> {
        match self.unknown {
            Some(unknown) if self.latent.word_keep < 1.0 => {
                let mut rng = Rng::keyed(self.seed, "latent.word_keep", step);
                hide(&batch.inputs, unknown, |_| rng.uniform() < self.latent.word_keep)
            }
            _ => Ok(batch.inputs.clone()),
        }
    }
}

/// `inputs`, `(time, batch)` of u32, with `unknown` in place of each word that `is_kept` says no of; it is asked for all
/// words, time step by time step. The first line end stays.
pub(crate) fn hide(inputs: &Tensor, unknown: u32, mut is_kept: impl FnMut(usize) -> bool) -> Result<Tensor> {
    let (time, batch) = inputs.dims2()?;
    let kept: Vec<u8> = (0..time * batch).map(|at| u8::from(at < batch || is_kept(at))).collect();
    let kept = Tensor::from_vec(kept, (time, batch), &Device::Cpu)?.to_device(inputs.device())?;
    Ok(kept.where_cond(inputs, &Tensor::full(unknown, (time, batch), inputs.device())?)?)
}

impl Objective for Elbo {
    type Batch = SentenceBatch;
    type Noise = ElboNoise;

    /// Sentences carry nothing from one to the next.
    fn zero_state(&self) -> Result<State> {
        Ok(State(Vec::new()))
    }

    fn noise(&self, batch: &SentenceBatch, step: u64) -> Result<ElboNoise> {
        let shape = (batch.lengths.len(), self.model.latent().size);
        let mut rng = Rng::keyed(self.seed, "latent.epsilon", step);
        let epsilon: Vec<f64> = (0..shape.0 * shape.1).map(|_| rng.normal()).collect();
        let dtype = self.model.precision().dtype();
        let epsilon = Tensor::from_vec(epsilon, shape, &Device::Cpu)?.to_dtype(dtype)?;
        let inputs = self.inputs(batch, step)?;
        Ok(ElboNoise {
            masks: self.noise.draw(&inputs, step, step)?,
            encoder_masks: self.encoder_noise.draw(&batch.words()?, step)?,
            epsilon: epsilon.to_device(self.model.device())?,
            inputs,
            kl_weight: self.latent.schedule.weight(step, self.steps_per_epoch),
            free_bits: self.latent.free_bits(step, self.steps_per_epoch),
        })
    }

    fn rows(
        &self,
        batch: &SentenceBatch,
        noise: ElboNoise,
        rows: Rows,
    ) -> Result<(SentenceBatch, ElboNoise)> {
        let own = SentenceBatch {
            inputs: rows.of_tensor(&batch.inputs, 1)?,
            targets: rows.of_tensor(&batch.targets, 1)?,
            lengths: batch.lengths[rows.first..rows.first + rows.count].to_vec(),
        };
        let noise = ElboNoise {
            masks: rows.of_noise(noise.masks)?,
            encoder_masks: rows.of_encoder_noise(noise.encoder_masks)?,
            epsilon: rows.of_tensor(&noise.epsilon, 0)?,
            inputs: rows.of_tensor(&noise.inputs, 1)?,
            kl_weight: noise.kl_weight,
            free_bits: noise.free_bits,
        };
        Ok((own, noise))
    }

    /// What is reported of a batch is the weighed loss, over the words and ends that are predicted.
    fn loss(&self, batch: &SentenceBatch, carried: &State, noise: &ElboNoise) -> Result<Loss> {
        let posterior = self.model.posterior(&batch.words()?, &batch.lengths, &noise.encoder_masks)?;
        let z = posterior.sample(&noise.epsilon)?;
        let nats = self.model.nats(&noise.inputs, &batch.targets, &z, &noise.masks)?;
        let inside = Lengths::new(nats.dim(0)?, batch.steps())?.mask(nats.dtype(), nats.device())?;
        let nats = (nats * inside)?;
        let divergence = self.model.divergence(&posterior)?;
        let counted = match noise.free_bits {
            0.0 => divergence.clone(),
            least => divergence.maximum(least)?,
        };
        let mut cost = counted.sum_all()?;
        let mut reported = vec![nats.flatten_all()?, (divergence.flatten_all()? * noise.kl_weight)?];
        if let Some(remainder) = self.model.prior_remainder(&z)? {
            cost = (cost + remainder.sum_all()?)?;
            reported.push((remainder * noise.kl_weight)?);
        }
        let sum = (nats.sum_all()? + (cost * noise.kl_weight)?)?;
        let sums = Sums { nats: Tensor::cat(&reported, 0)?.detach(), tokens: batch.predicted() };
        let objective = (sum / batch.lengths.len() as f64)?;
        Ok(Loss { objective, sums, carried: carried.clone(), teacher: None })
    }
}
