//! The language model: embedding, recurrent layers, output, and the dropout between them.
//!
//! ```text
//! x̃ = (E[w_t] · m_x[w_t]) ⊙ m_i      y = core(x̃)      logits = (y ⊙ m_o) W_out + b_out, W_out = Eᵀ if tied
//! ```

use super::builder::{Builder, Source};
use super::cell::{Cell, State, TrainedCell};
use super::core;
use super::embedding::Embedding;
use super::noise::Noise;
use super::parameters::Parameters;
use super::reader::Layers;
use crate::config::ModelConfig;
use crate::error::Result;
use candle_core::{Device, Tensor};
use rhn_kernels::linear::{self, Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::profile::{self, Part};
use rhn_kernels::scan::HiddenMask;
use rhn_kernels::softmax as loss;

/// A model with its weights.
pub struct LanguageModel {
    config: ModelConfig,
    embedding: Embedding,
    cells: Vec<Box<dyn TrainedCell>>,
    output: Output,
    precision: Precision,
    device: Device,
}

/// From states to logits.
struct Output {
    /// `(hidden, vocabulary)`, or the embedding's `(vocabulary, hidden)` if tied.
    weight: Tensor,
    tied: bool,
    bias: Tensor,
    precision: Precision,
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
        Self::build(config, &Builder::new(Source::Take(&tensors), precision.into(), device))
    }

    /// A model on the same storage as `parameters` that records nothing: for evaluation.
    pub fn frozen(
        config: &ModelConfig,
        parameters: &Parameters,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let tensors = parameters.tensors();
        Self::build(config, &Builder::new(Source::Take(&tensors), precision.into(), device))
    }

    pub(super) fn build(config: &ModelConfig, builder: &Builder<'_>) -> Result<Self> {
        let embedding = Embedding::build(config, builder)?;
        let cells = core::build(config, builder)?;
        let output = Output::build(config, &embedding, builder)?;
        let (precision, device) = (builder.precision(), builder.device().clone());
        Ok(Self { config: config.clone(), embedding, cells, output, precision, device })
    }

    /// What fixes the weights' shapes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What it computes with.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The state before the first token.
    pub fn zero_state(&self, batch: usize) -> Result<State> {
        State::zero(&self.cells, batch, self.precision.dtype(), &self.device)
    }

    /// Nats of each target, `(time, batch)`, and the state after the window.
    ///
    /// `tokens` and `targets`: `(time, batch)` of u32.
    pub fn nats(
        &self,
        tokens: &Tensor,
        targets: &Tensor,
        state: &State,
        masks: &Noise,
    ) -> Result<(Tensor, State)> {
        let (ys, state) = self.masked_outputs(tokens, state, masks)?;
        Ok((self.output.nats(&ys, targets)?, state))
    }

    /// Logits `(time, batch, vocabulary)`, and the state after the window.
    pub fn logits(&self, tokens: &Tensor, state: &State, masks: &Noise) -> Result<(Tensor, State)> {
        let (ys, state) = self.masked_outputs(tokens, state, masks)?;
        Ok((self.output.logits(&ys)?, state))
    }

    /// For evaluation: the vectors of the whole vocabulary are computed once, and every weight is laid out once.
    pub fn evaluator(&self) -> Result<Evaluator<'_>> {
        let table = self.embedding.table(self.config.vocab_size)?.detach();
        let cells = self.cells.iter().map(|cell| cell.prepared()).collect::<Result<_>>()?;
        let output = linear::Prepared::new(&self.output.weight, self.output.stored(), self.precision)?;
        Ok(Evaluator { model: self, embedding: Embedding::Table(table), cells, output })
    }

    /// What the output layer sees, `(time, batch, hidden)`.
    fn masked_outputs(&self, tokens: &Tensor, state: &State, masks: &Noise) -> Result<(Tensor, State)> {
        let cells = self.cells.iter().map(|cell| &**cell as &dyn Cell);
        masked_outputs(self.embedding.forward(tokens)?, cells, state, masks)
    }
}

/// What the output layer sees, `(time, batch, hidden)`, of embedded tokens.
fn masked_outputs<'a>(
    embedded: Tensor,
    cells: impl ExactSizeIterator<Item = &'a dyn Cell>,
    state: &State,
    masks: &Noise,
) -> Result<(Tensor, State)> {
    let embedded = masked(embedded, masks.word.as_ref())?;
    let mut xs = profile::border(embedded, Part::RecurrenceForward, Part::EmbeddingBackward)?;
    let mut after = Vec::with_capacity(cells.len());
    for (layer, cell) in cells.enumerate() {
        xs = masked(xs, masks.input.get(layer).and_then(Option::as_ref))?;
        let hidden_mask = masks.hidden.get(layer).unwrap_or(&HiddenMask::None);
        let (outputs, left) = cell.forward(&xs, &state.0[layer], hidden_mask)?;
        xs = outputs;
        after.push(left);
    }
    let xs = profile::border(xs, Part::OutputForward, Part::RecurrenceBackward)?;
    Ok((masked(xs, masks.output.as_ref())?, State(after)))
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
            precision: builder.precision(),
        })
    }

    /// `(time, batch, hidden)` to `(time, batch, vocabulary)`.
    fn logits(&self, ys: &Tensor) -> Result<Tensor> {
        let (time, batch, _) = ys.dims3()?;
        Ok(self.products(ys)?.broadcast_add(&self.bias)?.reshape((time, batch, ()))?)
    }

    /// Nats of each target, `(time, batch)`.
    fn nats(&self, ys: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let (ys, flat) = (ys.flatten(0, 1)?, targets.flatten_all()?);
        let nats = loss::nats(&ys, &self.weight, self.stored(), &self.bias, &flat, self.precision)?;
        Ok(profile::border(nats.reshape(targets.shape())?, Part::Rest, Part::OutputBackward)?)
    }

    /// `(time · batch, vocabulary)`, the bias not yet added.
    fn products(&self, ys: &Tensor) -> Result<Tensor> {
        Ok(linear(&ys.flatten(0, 1)?, &self.weight, self.stored(), self.precision)?)
    }

    fn stored(&self) -> Stored {
        if self.tied { Stored::ByOutput } else { Stored::ByInput }
    }
}

/// A model whose weights do not change while this exists.
pub struct Evaluator<'a> {
    model: &'a LanguageModel,
    embedding: Embedding,
    cells: Vec<Box<dyn Cell>>,
    output: linear::Prepared,
}

impl Evaluator<'_> {
    /// The model.
    pub fn model(&self) -> &LanguageModel {
        self.model
    }

    /// As [`LanguageModel::logits`].
    pub fn logits(&self, tokens: &Tensor, state: &State, masks: &Noise) -> Result<(Tensor, State)> {
        let (time, batch) = tokens.dims2()?;
        let (products, state) = self.products(tokens, state, masks)?;
        Ok((products.broadcast_add(&self.model.output.bias.detach())?.reshape((time, batch, ()))?, state))
    }

    /// As [`LanguageModel::nats`].
    pub fn nats(
        &self,
        tokens: &Tensor,
        targets: &Tensor,
        state: &State,
        masks: &Noise,
    ) -> Result<(Tensor, State)> {
        let (products, state) = self.products(tokens, state, masks)?;
        let bias = self.model.output.bias.detach();
        let nats = loss::nats_of_products(&products, &bias, &targets.flatten_all()?)?;
        Ok((nats.reshape(targets.shape())?, state))
    }

    /// The layers for one token after another at batch 1, from the state zero; `None` where only tensors can do it.
    pub(super) fn layers(&self) -> Result<Option<Layers<'_>>> {
        let Some(output) = self.output.rows() else { return Ok(None) };
        let Some(cells) = self.cells.iter().map(|cell| cell.steps()).collect::<Result<Option<_>>>()? else {
            return Ok(None);
        };
        let (table, bias) = (self.embedding.table(self.model.config.vocab_size)?, &self.model.output.bias);
        let embedded = vec![0.0; table.dim(1)?];
        Ok(Some(Layers { table, embedded, cells, output, bias: bias.to_vec1()? }))
    }

    /// `(time · batch, vocabulary)`, the bias not yet added, and the state after the window.
    fn products(&self, tokens: &Tensor, state: &State, masks: &Noise) -> Result<(Tensor, State)> {
        let cells = self.cells.iter().map(|cell| &**cell);
        let (ys, state) = masked_outputs(self.embedding.forward(tokens)?, cells, state, masks)?;
        Ok((self.output.forward(&ys.flatten(0, 1)?)?, state))
    }
}

fn masked(xs: Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    Ok(match mask {
        None => xs,
        Some(mask) => xs.broadcast_mul(mask)?,
    })
}
