//! The language model: embedding, recurrent layers, output, and the dropout between them.
//!
//! ```text
//! x̃ = (E[w_t] · m_x[w_t]) ⊙ m_i      y = core(x̃)      logits = (y ⊙ m_o) W_out + b_out, W_out = Eᵀ if tied
//! ```

use super::builder::{Builder, Source};
use super::cell::{Cell, State};
use super::core;
use super::dropout::Masks;
use super::embedding::Embedding;
use super::parameters::Parameters;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::ops::loss;
use crate::ops::profile::{self, Part};
use crate::ops::recurrence::HiddenMask;
use candle_core::{DType, Device, Tensor};

/// A model with its weights.
pub struct LanguageModel {
    config: ModelConfig,
    embedding: Embedding,
    cells: Vec<Box<dyn Cell>>,
    output: Output,
    dtype: DType,
    device: Device,
}

/// From states to logits.
struct Output {
    /// `(hidden, vocabulary)`, or the embedding's `(vocabulary, hidden)` if tied.
    weight: Tensor,
    tied: bool,
    bias: Tensor,
}

impl LanguageModel {
    /// A model on `parameters`, whose gradients are recorded.
    pub fn new(config: &ModelConfig, parameters: &Parameters, dtype: DType, device: &Device) -> Result<Self> {
        let tensors = parameters.tracked();
        Self::build(config, &Builder::new(Source::Take(&tensors), dtype, device))
    }

    /// A model on the same storage as `parameters` that records nothing: for evaluation.
    pub fn frozen(
        config: &ModelConfig,
        parameters: &Parameters,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let tensors = parameters.tensors();
        Self::build(config, &Builder::new(Source::Take(&tensors), dtype, device))
    }

    pub(super) fn build(config: &ModelConfig, builder: &Builder<'_>) -> Result<Self> {
        let embedding = Embedding::build(config, builder)?;
        let cells = core::build(config, builder)?;
        let output = Output::build(config, &embedding, builder)?;
        let (dtype, device) = (builder.dtype(), builder.device().clone());
        Ok(Self { config: config.clone(), embedding, cells, output, dtype, device })
    }

    /// What fixes the weights' shapes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the weights are made of.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The state before the first token.
    pub fn zero_state(&self, batch: usize) -> Result<State> {
        State::zero(&self.cells, batch, self.dtype, &self.device)
    }

    /// Nats of each target, `(time, batch)`, and the state after the window.
    ///
    /// `tokens` and `targets`: `(time, batch)` of u32.
    pub fn nats(
        &self,
        tokens: &Tensor,
        targets: &Tensor,
        state: &State,
        masks: &Masks,
    ) -> Result<(Tensor, State)> {
        let (ys, state) = self.masked_outputs(self.embedding.forward(tokens)?, state, masks)?;
        Ok((self.output.nats(&ys, targets)?, state))
    }

    /// Logits `(time, batch, vocabulary)`, and the state after the window.
    pub fn logits(&self, tokens: &Tensor, state: &State, masks: &Masks) -> Result<(Tensor, State)> {
        let (ys, state) = self.masked_outputs(self.embedding.forward(tokens)?, state, masks)?;
        Ok((self.output.logits(&ys)?, state))
    }

    /// For evaluation: the vectors of the whole vocabulary are computed once.
    pub fn evaluator(&self) -> Result<Evaluator<'_>> {
        let table = self.embedding.table(self.config.vocab_size)?.detach();
        Ok(Evaluator { model: self, embedding: Embedding::Table(table) })
    }

    /// What the output layer sees, `(time, batch, hidden)`.
    fn masked_outputs(&self, embedded: Tensor, state: &State, masks: &Masks) -> Result<(Tensor, State)> {
        let embedded = masked(embedded, masks.word.as_ref())?;
        let mut xs = profile::border(embedded, Part::RecurrenceForward, Part::EmbeddingBackward)?;
        let mut after = Vec::with_capacity(self.cells.len());
        for (layer, cell) in self.cells.iter().enumerate() {
            xs = masked(xs, masks.input.get(layer).and_then(Option::as_ref))?;
            let hidden_mask = masks.hidden.get(layer).unwrap_or(&HiddenMask::None);
            let (outputs, left) = cell.forward(&xs, &state.0[layer], hidden_mask)?;
            xs = outputs;
            after.push(left);
        }
        let xs = profile::border(xs, Part::OutputForward, Part::RecurrenceBackward)?;
        Ok((masked(xs, masks.output.as_ref())?, State(after)))
    }
}

impl Output {
    fn build(config: &ModelConfig, embedding: &Embedding, builder: &Builder<'_>) -> Result<Self> {
        let weight = match embedding {
            Embedding::Table(table) if config.spec.output.tied => table.clone(),
            _ => builder.weight("output.weight", (config.spec.core.hidden_size(), config.vocab_size))?,
        };
        Ok(Self {
            weight,
            tied: config.spec.output.tied,
            bias: builder.weight("output.bias", config.vocab_size)?,
        })
    }

    /// `(time, batch, hidden)` to `(time, batch, vocabulary)`.
    fn logits(&self, ys: &Tensor) -> Result<Tensor> {
        let (time, batch, _) = ys.dims3()?;
        Ok(self.products(ys)?.broadcast_add(&self.bias)?.reshape((time, batch, ()))?)
    }

    /// Nats of each target, `(time, batch)`.
    fn nats(&self, ys: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let nats = loss::nats(&self.products(ys)?, &self.bias, &targets.flatten_all()?)?;
        profile::border(nats.reshape(targets.shape())?, Part::Rest, Part::OutputBackward)
    }

    /// `(time · batch, vocabulary)`, the bias not yet added.
    fn products(&self, ys: &Tensor) -> Result<Tensor> {
        let weight = if self.tied { self.weight.t()? } else { self.weight.clone() };
        Ok(ys.flatten(0, 1)?.matmul(&weight)?)
    }
}

/// A model whose weights do not change while this exists.
pub struct Evaluator<'a> {
    model: &'a LanguageModel,
    embedding: Embedding,
}

impl Evaluator<'_> {
    /// The model.
    pub fn model(&self) -> &LanguageModel {
        self.model
    }

    /// As [`LanguageModel::logits`].
    pub fn logits(&self, tokens: &Tensor, state: &State, masks: &Masks) -> Result<(Tensor, State)> {
        let (ys, state) = self.model.masked_outputs(self.embedding.forward(tokens)?, state, masks)?;
        Ok((self.model.output.logits(&ys)?, state))
    }

    /// As [`LanguageModel::nats`].
    pub fn nats(
        &self,
        tokens: &Tensor,
        targets: &Tensor,
        state: &State,
        masks: &Masks,
    ) -> Result<(Tensor, State)> {
        let (ys, state) = self.model.masked_outputs(self.embedding.forward(tokens)?, state, masks)?;
        Ok((self.model.output.nats(&ys, targets)?, state))
    }
}

fn masked(xs: Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    Ok(match mask {
        None => xs,
        Some(mask) => xs.broadcast_mul(mask)?,
    })
}
