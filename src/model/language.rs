//! The language model: embedding, recurrent core, output, and the dropout between them.
//!
//! ```text
//! x̃ = (E[w_t] · m_x[w_t]) ⊙ m_i      y = core(x̃)      logits = (y ⊙ m_o) W_out + b_out, W_out = Eᵀ if tied
//! ```

use super::builder::{Asked, Builder, Source};
use super::config::ModelConfig;
use super::core::pieces::Pieces;
use super::core::{self, state::State};
use super::frozen::FrozenModel;
use super::layers::{Core, Cost, Embedding, Output};
use super::noise::{Noise, masked};
use super::output::{SoftTargets, nats_at};
use super::parameters::Parameters;
use super::stage::StageTrace;
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use rhn_kernels::profile::{self, Part};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a model with a latent vector is refused where text is to be predicted token by token.
pub(crate) const NO_LANGUAGE_MODEL: &str = "is a sentence VAE ([model.latent]), which gives a bound for whole sentences and no \
    probability of a next token: `rhn train`, `rhn eval`, `rhn sample` and `rhn inspect` take it";

/// A model on weights that training changes.
pub struct LanguageModel {
    config: Arc<ModelConfig>,
    embedding: Arc<dyn Embedding>,
    core: Arc<dyn Core>,
    output: Arc<dyn Output>,
    precision: Precision,
    device: Device,
}

/// What the core gives for a window.
pub(crate) struct Outputs {
    /// `(time, batch, hidden)`, of the last layer.
    pub(crate) given: Tensor,
    /// The same with the mask of the output layer's input.
    pub(crate) seen: Tensor,
    /// The state after the window.
    pub(crate) state: State,
}

impl LanguageModel {
    /// A model on `parameters`, whose gradients are recorded.
    pub fn new(
        config: &ModelConfig,
        parameters: &Parameters,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let tensors = parameters.tracked();
        Ok(Self::build(config, &Source::Take(&tensors), precision.into(), device)?.0)
    }

    /// A model on `tensors` as they are, for evaluation: no gradient is recorded, and a recurrent layer has as many
    /// sublayers as its weights, which may be another number than `config` says.
    pub(crate) fn of_tensors(
        config: &ModelConfig,
        tensors: &BTreeMap<String, Tensor>,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        Ok(Self::build(config, &Source::Take(tensors), precision, device)?.0)
    }

    /// The model, and what it has asked `source` for.
    pub(super) fn build(
        config: &ModelConfig,
        source: &Source<'_>,
        precision: Precision,
        device: &Device,
    ) -> Result<(Self, Asked)> {
        if config.spec.latent.is_some() {
            return Err(Error::config(format!("this model {NO_LANGUAGE_MODEL}")));
        }
        let asked = RefCell::default();
        let builder = Builder::new(source, precision, device, &asked);
        let spec = &config.spec;
        let embedding =
            spec.embedding.settings().build(config.vocab_size, config.embedding_size(), &builder)?;
        let embedding: Arc<dyn Embedding> = embedding.into();
        let core = spec.core.settings().build(config.embedding_size(), &builder)?;
        let output = spec.output.build(config.output_sizes(), (&*embedding, &spec.embedding), &builder)?;
        let config = Arc::new(config.clone());
        let model = Self { config, embedding, core, output, precision, device: device.clone() };
        Ok((model, asked.into_inner()))
    }

    /// The state before the first token.
    pub fn zero_state(&self, batch: usize) -> Result<State> {
        self.core.zero_state(batch)
    }

    /// Nats of each target, `(time, batch)`, and the state after the window.
    /// `tokens` and `targets`: `(time, batch)` of u32.
    pub fn nats(
        &self,
        tokens: &Tensor,
        targets: &Tensor,
        state: &State,
        noise: &Noise,
    ) -> Result<(Tensor, State)> {
        let (ys, state) = self.hidden(tokens, state, noise)?;
        Ok((self.nats_of(&ys, targets, noise, 1.0)?, state))
    }

    /// Logits `(time, batch, vocabulary)`, and the state after the window.
    pub fn logits(&self, tokens: &Tensor, state: &State, noise: &Noise) -> Result<(Tensor, State)> {
        let (ys, state) = self.hidden(tokens, state, noise)?;
        Ok((self.output.logits(&ys, noise)?, state))
    }

    /// What the output layer sees, `(time, batch, hidden)`, and the state after the window.
    pub fn hidden(&self, tokens: &Tensor, state: &State, noise: &Noise) -> Result<(Tensor, State)> {
        profile::enter(Part::EmbeddingForward);
        core::forward(&*self.core, self.embedding.forward(tokens)?, None, state, noise)
    }

    /// What a window's loss may be made of beside its nats; with `pieces` each sentence begins with the zero state.
    pub(crate) fn outputs(
        &self,
        tokens: &Tensor,
        pieces: Option<&Pieces>,
        state: &State,
        noise: &Noise,
    ) -> Result<Outputs> {
        profile::enter(Part::EmbeddingForward);
        let embedded = self.embedding.forward(tokens)?;
        let (given, state) = core::unmasked(&*self.core, embedded, pieces, state, noise)?;
        Ok(Outputs { seen: masked(given.clone(), noise.output.as_ref())?, given, state })
    }

    /// The squares of the differences of the logits of `one` and `other`, `(time, batch, vocabulary)`, both of them
    /// [`Outputs::seen`], with what is random in the output layer for each.
    pub(crate) fn squared_distance(&self, seen: [&Tensor; 2], noise: [&Noise; 2]) -> Result<Tensor> {
        self.output.squared_distance(seen, noise)
    }

    /// How far its distribution at `temperature` is from a teacher's at each position, `(time, batch)`, in nats, from what
    /// [`LanguageModel::hidden`] gave. The history of the model's own numbers is recorded.
    pub fn divergence(
        &self,
        ys: &Tensor,
        soft: Arc<dyn SoftTargets>,
        noise: &Noise,
        temperature: f64,
    ) -> Result<Tensor> {
        self.output.divergence(ys, soft, noise, temperature)
    }

    /// Nats of each target, `(time, batch)`, from what [`LanguageModel::hidden`] gave, the logits divided by
    /// `temperature`. Only at 1 is their history recorded.
    pub fn nats_of(&self, ys: &Tensor, targets: &Tensor, noise: &Noise, temperature: f64) -> Result<Tensor> {
        nats_at(&*self.output, ys, targets, noise, temperature)
    }

    /// The model for evaluation, on the weights as they are now: each word's vector is computed once, and every weight
    /// is laid out once. It must not be used after the weights change: on a GPU it shares their memory.
    pub fn freeze(&self) -> Result<FrozenModel> {
        Ok(FrozenModel {
            config: self.config.clone(),
            table: self.embedding.table()?,
            spells: self.embedding.reads_characters().then(|| self.embedding.clone()),
            core: self.core.frozen()?.unwrap_or_else(|| self.core.clone()),
            output: self.output.frozen()?.unwrap_or_else(|| self.output.clone()),
            precision: self.precision,
            device: self.device.clone(),
        })
    }

    /// What fixes the weights' shapes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What it computes with.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the embedding's highway layers do for the words `ids`, `(words)` of u32; `None` where there are none.
    pub fn trace_words(&self, ids: &Tensor) -> Result<Option<StageTrace>> {
        self.embedding.trace(ids)
    }

    /// What happens within the time steps of a window of tokens, `(time, batch)` of u32, for each recurrent layer, and
    /// the state after it; `None` where a time step has no stage.
    pub fn trace_steps(&self, tokens: &Tensor, state: &State) -> Result<Option<(Vec<StageTrace>, State)>> {
        self.core.trace(&self.embedding.forward(tokens)?.detach(), state)
    }

    pub(super) fn cost(&self) -> Cost {
        let per_token = self.core.cost() + self.output.cost();
        Cost { per_token, per_distinct: self.embedding.cost() }
    }
}
