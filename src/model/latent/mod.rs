//! The sentence VAE: an encoder, a Gaussian vector for the whole sentence, and a decoder (Bowman et al., 2016, arXiv
//! 1511.06349), with highway layers around the vector.
//!
//! ```text
//! h = last state of the encoder over E[w_1] … E[w_n]           q(z | x) = N(μ(h), σ²(h))
//! p(x | z) = Π_t p(w_t | w_<t, z)                               the decoder reads <eos> w_1 … w_n, predicts w_1 … w_n <eos>
//! ```
//!
//! `path.rs` has the layers between. One embedding serves both sides. Weights beside those of a language model, whose core is
//! the decoder: `encoder.core.<k>` as the core's, `encoder.backward.core.<k>` where a second one reads backward, and those of
//! `path.rs`, and of a learned prior those of `prior.rs`.

mod gaussian;
mod path;
mod prior;
mod settings;

pub use gaussian::Gaussian;
pub use prior::MixtureNumbers;
pub use settings::{Inject, LatentConfig};

use super::builder::{Asked, Builder, Source};
use super::config::ModelConfig;
use super::core::encoder::Encoder;
use super::core::{self, CoreConfig};
use super::embedding::Table;
use super::encoder_noise::EncoderNoise;
use super::layers::{Core, Cost, Embedding, Output};
use super::noise::{Noise, masked};
use super::parameters::Parameters;
use super::sequences::Lengths;
use crate::error::{Error, Result};
use candle_core::{D, Device, Tensor};
use path::{Entered, Entry, Recognition};
use prior::Mixture;
use rhn_kernels::precision::Precision;
use rhn_kernels::profile::{self, Part};
use std::cell::RefCell;
use std::sync::Arc;

/// A sentence VAE.
pub struct SentenceVae {
    config: Arc<ModelConfig>,
    latent: LatentConfig,
    embedding: Arc<dyn Embedding>,
    encoder: Encoder,
    recognition: Arc<Recognition>,
    entry: Arc<Entry>,
    /// `None` if the prior is the standard Gaussian.
    prior: Option<Arc<Mixture>>,
    decoder: Arc<dyn Core>,
    output: Arc<dyn Output>,
    precision: Precision,
    device: Device,
}

/// Where the decoder is in each of its sentences.
#[derive(Clone, Debug)]
pub struct Decoding(Entered);

impl Decoding {
    /// The batch rows of these numbers, in their order.
    pub fn select(&self, rows: &[u32]) -> Result<Self> {
        let of_rows = |input: &Tensor| -> Result<Tensor> {
            Ok(input.index_select(&Tensor::from_slice(rows, rows.len(), input.device())?, 0)?)
        };
        let input = self.0.input.as_ref().map(of_rows).transpose()?;
        Ok(Self(Entered { state: self.0.state.select(rows)?, input }))
    }
}

/// The settings of the encoder: the decoder's unless it has its own.
fn encoder_config(config: &ModelConfig) -> &CoreConfig {
    config.spec.encoder.as_ref().unwrap_or(&config.spec.core)
}

impl SentenceVae {
    /// A model on `parameters`, whose gradients are recorded. Fails if `config` has no latent vector.
    pub fn new(
        config: &ModelConfig,
        parameters: &Parameters,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let tensors = parameters.tracked();
        Ok(Self::build(config, &Source::Take(&tensors), precision.into(), device)?.0)
    }

    /// The same on weights that record nothing: the only gradients are those of what is given to it.
    pub fn with_fixed_weights(
        config: &ModelConfig,
        parameters: &Parameters,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let tensors = parameters.tensors();
        Ok(Self::build(config, &Source::Take(&tensors), precision.into(), device)?.0)
    }

    /// The model, and what it has asked `source` for.
    pub(super) fn build(
        config: &ModelConfig,
        source: &Source<'_>,
        precision: Precision,
        device: &Device,
    ) -> Result<(Self, Asked)> {
        let Some(latent) = config.spec.latent.clone() else {
            return Err(Error::config(
                "this model has no latent vector, [model.latent]: it is no sentence VAE",
            ));
        };
        let asked = RefCell::default();
        let builder = Builder::new(source, precision, device, &asked);
        let spec = &config.spec;
        let embedding =
            spec.embedding.settings().build(config.vocab_size, config.embedding_size(), &builder)?;
        let embedding: Arc<dyn Embedding> = embedding.into();
        let encoder = Encoder::build(
            encoder_config(config),
            config.embedding_size(),
            latent.bidirectional,
            &builder.under("encoder"),
        )?;
        let decoder = spec.core.settings().build(config.core_input_size(), &builder)?;
        let output = spec.output.build(config.output_sizes(), (&*embedding, &spec.embedding), &builder)?;
        let directions = if latent.bidirectional { 2 } else { 1 };
        let hidden = directions * encoder_config(config).hidden_size();
        let under = builder.under("latent");
        let prior = latent.prior_components.map(|components| {
            let under = under.under("prior").without_gradient_at_times(); // while the KL weighs exactly 0
            Ok::<_, Error>(Arc::new(Mixture::build((components, latent.size), &under)?))
        });
        let model = Self {
            prior: prior.transpose()?,
            recognition: Arc::new(Recognition::build(&latent, hidden, &under)?),
            entry: Arc::new(Entry::build(&latent, &decoder.zero_state(1)?, &under)?),
            config: Arc::new(config.clone()),
            latent,
            embedding,
            encoder,
            decoder,
            output,
            precision,
            device: device.clone(),
        };
        Ok((model, asked.into_inner()))
    }

    /// q(z | x) of each sentence: `words` is `(time, batch)` of u32, padded at the end; `lengths` are the words of each, at
    /// least one; `noise` is the encoder's.
    pub fn posterior(&self, words: &Tensor, lengths: &[usize], noise: &EncoderNoise) -> Result<Gaussian> {
        profile::enter(Part::EmbeddingForward);
        let lengths = Lengths::new(words.dim(0)?, lengths.to_vec())?;
        let [forward, backward] = &noise.each;
        let xs = masked(self.embedding.forward(words)?, forward.word.as_ref())?;
        let last = self.encoder.last(&xs, &lengths, [forward, backward])?;
        self.recognition.forward(&masked(last, noise.pooled.as_ref())?)
    }

    /// KL(q ‖ p) of each sentence's posterior, the part of each number, `(batch, size)`, in nats; exact. Of a learned prior it is
    /// the KL from the Gaussian that has its mean and variances, and [`SentenceVae::prior_remainder`] is to be added.
    pub fn divergence(&self, posterior: &Gaussian) -> Result<Tensor> {
        match &self.prior {
            None => posterior.divergence(),
            Some(prior) => posterior.divergence_from(prior.matched()?.each_ref()),
        }
    }

    /// What each row of `z`, `(batch, size)`, drawn from a posterior, adds to its [`SentenceVae::divergence`], `(batch)`: the KL is
    /// that plus the mean of this. `None` if the prior is the standard Gaussian.
    pub fn prior_remainder(&self, z: &Tensor) -> Result<Option<Tensor>> {
        self.prior.as_ref().map(|prior| prior.remainder(z)).transpose()
    }

    /// ln p(z) of each row of `z`, `(batch, size)` to `(batch)`, without the −½ ln 2π of each number.
    pub fn log_prior(&self, z: &Tensor) -> Result<Tensor> {
        match &self.prior {
            None => Ok((z.sqr()?.sum(D::Minus1)? * -0.5)?),
            Some(prior) => prior.log_density(z),
        }
    }

    /// ln p(z) − ln q(z | x) of each row at the z that `epsilon` gives, `(batch)`: with the reconstruction's −ln p(x | z) it
    /// makes the weight of a sample in an importance-weighted bound.
    pub fn log_prior_ratio(&self, posterior: &Gaussian, epsilon: &Tensor) -> Result<Tensor> {
        Ok((self.log_prior(&posterior.sample(epsilon)?)? - posterior.log_density(epsilon)?)?)
    }

    /// A learned prior as plain numbers, to draw from; `None` if it is the standard Gaussian.
    pub fn prior_numbers(&self) -> Result<Option<MixtureNumbers>> {
        self.prior.as_ref().map(|prior| prior.numbers()).transpose()
    }

    /// The decoder before its first word, with `z`, `(batch, size)`.
    pub fn begin(&self, z: &Tensor) -> Result<Decoding> {
        Ok(Decoding(self.entry.forward(z, self.decoder.zero_state(z.dim(0)?)?)?))
    }

    /// What the output layer sees of the words that the decoder reads, `(time, batch)` of u32 to `(time, batch, hidden)`, and
    /// where it is then.
    fn decode(&self, words: &Tensor, from: &Decoding, noise: &Noise) -> Result<(Tensor, Decoding)> {
        let (time, batch) = words.dims2()?;
        let mut xs = masked(self.embedding.forward(words)?, noise.word.as_ref())?;
        let Entered { state, input } = &from.0;
        if let Some(input) = input {
            let (_, size) = input.dims2()?;
            xs = Tensor::cat(&[&xs, &input.unsqueeze(0)?.broadcast_as((time, batch, size))?], 2)?;
        }
        let noise = Noise { word: None, ..noise.clone() };
        let (ys, state) = core::forward(&*self.decoder, xs, None, state, &noise)?;
        Ok((ys, Decoding(Entered { state, input: input.clone() })))
    }

    /// −ln p of each target, `(time, batch)`, after the words that the decoder reads, `(time, batch)` of u32 both, from its
    /// beginning with `z`, `(batch, size)`. Padding is predicted too: its nats are for the caller to leave out.
    pub fn nats(&self, words: &Tensor, targets: &Tensor, z: &Tensor, noise: &Noise) -> Result<Tensor> {
        let (ys, _) = self.decode(words, &self.begin(z)?, noise)?;
        self.output.nats(&ys, targets, noise)
    }

    /// The logits after one more word of each sentence, `(batch)` of u32 to `(batch, vocabulary)`, and where the decoder is
    /// then; no history is followed.
    pub fn step(&self, words: &[u32], from: &Decoding) -> Result<(Tensor, Decoding)> {
        let words = Tensor::from_slice(words, (1, words.len()), &self.device)?;
        let (ys, Decoding(Entered { state, input })) = self.decode(&words, from, &Noise::none())?;
        let logits = self.output.logits(&ys, &Noise::none())?.detach().squeeze(0)?;
        Ok((logits, Decoding(Entered { state: state.detach(), input })))
    }

    /// The model for evaluation, on the weights as they are now; no gradient of its numbers should be asked for. It must not
    /// be used after the weights change: on a GPU it shares their memory.
    pub fn freeze(&self) -> Result<Self> {
        Ok(Self {
            embedding: Arc::new(Table::fixed(self.embedding.table()?)),
            encoder: self.encoder.frozen()?,
            decoder: self.decoder.frozen()?.unwrap_or_else(|| self.decoder.clone()),
            output: self.output.frozen()?.unwrap_or_else(|| self.output.clone()),
            config: self.config.clone(),
            latent: self.latent.clone(),
            recognition: self.recognition.clone(),
            entry: self.entry.clone(),
            prior: self.prior.clone(),
            precision: self.precision,
            device: self.device.clone(),
        })
    }

    /// What fixes the weights' shapes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The part of it that is about the latent vector.
    pub fn latent(&self) -> &LatentConfig {
        &self.latent
    }

    /// What it computes with.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The layers around z are left out: they are passed once a sentence.
    pub(super) fn cost(&self) -> Cost {
        let per_token = self.encoder.cost() + self.decoder.cost() + self.output.cost();
        Cost { per_token, per_distinct: self.embedding.cost() }
    }
}
