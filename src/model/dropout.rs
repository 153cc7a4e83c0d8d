//! Dropout masks, drawn from the run's seed by what they are for and the step they belong to.
//!
//! Inverted: what is kept is divided by the probability of being kept. Variational masks (Gal and Ghahramani, 2016)
//! are drawn once a window and batch row and shared by its time steps and sublayers; the word mask is one number a row
//! and word type, so that all occurrences of a word in a row's window share it; the embedding mask is one number a word
//! type, whichever row it is in (Merity et al., 2017, section 4.3).

use super::config::ModelConfig;
use super::core::CoreConfig;
use super::noise::{Noise, WeightMasks};
use crate::error::{Error, Result};
use candle_core::{DType, Device, Shape, Tensor};
use rhn_kernels::dropout::{self as masks, Stream};
use rhn_kernels::profile::{self, Part};
use rhn_kernels::scan::HiddenMask;
use serde::{Deserialize, Serialize};

/// Which values are dropped; each rate is the probability that one is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropoutConfig {
    /// When masks are drawn anew.
    #[serde(default)]
    pub kind: DropoutKind,
    /// Whole word types, a batch row at a time.
    #[serde(default)]
    pub word: f64,
    /// Whole word types, in all batch rows of a window alike; as inputs alone, also where the output is tied.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub embedding: f64,
    /// The first layer's input.
    #[serde(default)]
    pub input: f64,
    /// The input of each further layer; as `input` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<f64>,
    /// The state inside the recurrent products (`variational` only).
    #[serde(default)]
    pub hidden: f64,
    /// What the output layer sees.
    #[serde(default)]
    pub output: f64,
    /// The gates through which the layers of a highway LSTM take the cells of the layers below.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub depth: f64,
    /// The vectors that a mixture of softmaxes makes of a state.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub components: f64,
    /// Single recurrent weights: the same ones for a whole window, all its time steps and batch rows (Merity et al., 2018).
    /// An evaluation drops none, Monte-Carlo dropout neither.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recurrent_weights: f64,
    /// Draw separate hidden masks for H and T, as the authors' Torch7 version does.
    #[serde(default)]
    pub separate_gate_masks: bool,
}

/// When masks are drawn anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropoutKind {
    /// Once a window and batch row, shared by its time steps (Gal and Ghahramani, 2016).
    #[default]
    Variational,
    /// At every time step (Zaremba et al., 2014).
    PerStep,
}

impl DropoutConfig {
    /// Whether no rate is above 0.
    pub fn is_off(&self) -> bool {
        self.drops_nothing(2)
    }

    /// Whether nothing is ever dropped in a core of so many layers: one alone has nothing between its layers.
    pub fn drops_nothing(&self, layers: usize) -> bool {
        let rates =
            [self.word, self.embedding, self.input, self.hidden, self.output, self.depth, self.components];
        let others = [self.input_rate(layers.saturating_sub(1)), self.recurrent_weights];
        rates.iter().chain(&others).all(is_zero)
    }

    /// Whether values are dropped in a core of so many layers, not weights alone: what passes with dropout differ by in
    /// evaluation.
    pub fn masks_values(&self, layers: usize) -> bool {
        !Self { recurrent_weights: 0.0, ..self.clone() }.drops_nothing(layers)
    }
}

fn is_zero(rate: &f64) -> bool {
    *rate == 0.0
}

impl DropoutConfig {
    /// The rate at the input of layer `layer`, counted from 0.
    pub fn input_rate(&self, layer: usize) -> f64 {
        if layer == 0 { self.input } else { self.between.unwrap_or(self.input) }
    }

    /// Refuses what is no rate; `key` is the table's, for messages.
    pub(crate) fn validate(&self, key: &str) -> Result<()> {
        let rates = [
            ("word", self.word),
            ("embedding", self.embedding),
            ("input", self.input),
            ("between", self.between.unwrap_or(0.0)),
            ("hidden", self.hidden),
            ("output", self.output),
            ("depth", self.depth),
            ("components", self.components),
            ("recurrent_weights", self.recurrent_weights),
        ];
        if let Some((name, rate)) = rates.into_iter().find(|(_, rate)| !(0.0..1.0).contains(rate)) {
            return Err(Error::config(format!(
                "{key}.{name} is {rate}, wanted a dropout rate of 0 ≤ rate < 1"
            )));
        }
        if self.kind == DropoutKind::PerStep && (self.hidden > 0.0 || self.word > 0.0) {
            return Err(Error::config(format!(
                "{key}.word and {key}.hidden need {key}.kind = \"variational\""
            )));
        }
        Ok(())
    }
}

/// Draws the masks of any window of a run.
#[derive(Clone, Debug)]
pub struct NoiseSource {
    dropout: DropoutConfig,
    input_sizes: Vec<usize>,
    depth_gates: Vec<Option<usize>>,
    /// Of each layer, the same.
    recurrent_weights: Vec<(&'static str, Shape)>,
    hidden_size: usize,
    /// Sizes of a mixture's vectors together.
    components_size: usize,
    separate_gate_masks: bool,
    /// Whether the embedding mask differs from row to row, where rows are passes over one text.
    rows_differ: bool,
    /// What the streams of a window's further passes are called, to be others than the first's.
    pass: String,
    seed: u64,
    dtype: DType,
    device: Device,
}

impl NoiseSource {
    /// A source for a model, its dropout rates and a seed.
    pub fn new(
        model: &ModelConfig,
        dropout: &DropoutConfig,
        seed: u64,
        dtype: DType,
        device: &Device,
    ) -> Self {
        let components = model.spec.output.component_count().unwrap_or(0);
        Self {
            components_size: components * model.embedding_size(),
            ..Self::of_core(&model.spec.core, model.core_input_size(), dropout, seed, dtype, device)
        }
    }

    /// A source for a core that reads `input` numbers at a step; no output layer follows it.
    pub(super) fn of_core(
        core: &CoreConfig,
        input: usize,
        dropout: &DropoutConfig,
        seed: u64,
        dtype: DType,
        device: &Device,
    ) -> Self {
        let hidden_size = core.hidden_size();
        let mut input_sizes = vec![hidden_size; core.layers()];
        input_sizes[0] = input;
        let separate_gate_masks = dropout.separate_gate_masks && core.settings().has_separate_gate_masks();
        Self {
            dropout: dropout.clone(),
            input_sizes,
            depth_gates: (0..core.layers()).map(|layer| core.settings().depth_gate(layer)).collect(),
            recurrent_weights: core.settings().recurrent_weights(),
            hidden_size,
            components_size: 0,
            separate_gate_masks,
            rows_differ: false,
            pass: String::new(),
            seed,
            dtype,
            device: device.clone(),
        }
    }

    /// The same source for a second pass over each window: its masks are others.
    pub fn second_pass(&self) -> Self {
        Self { pass: "second.".into(), ..self.clone() }
    }

    /// The same source for another core that reads the window, which `pass` names: its masks are others.
    pub(super) fn of_pass(self, pass: &str) -> Self {
        Self { pass: pass.into(), ..self }
    }

    /// The same source for the passes of teacher `index` over each window: its masks are others.
    pub(crate) fn of_teacher(self, index: usize) -> Self {
        Self { pass: format!("teacher.{index}."), ..self }
    }

    /// The same source for a batch whose rows are passes over one text: none shares an embedding mask.
    pub(crate) fn of_passes(self) -> Self {
        Self { rows_differ: true, ..self }
    }

    /// The masks for the window of `tokens`, `(time, batch)` of u32.
    ///
    /// `position` names the draw that the window's time steps share (the step of training; the first pass of a
    /// Monte-Carlo evaluation); `window` names the window itself, for masks drawn at every time step.
    pub fn draw(&self, tokens: &Tensor, position: u64, window: u64) -> Result<Noise> {
        let _timed = profile::within(Part::Masks);
        let (time, batch) = tokens.dims2()?;
        let shape = |size: usize| -> (Shape, u64) {
            match self.dropout.kind {
                DropoutKind::Variational => ((batch, size).into(), position),
                DropoutKind::PerStep => ((time, batch, size).into(), window),
            }
        };
        let layer_input = |layer: usize| {
            let (shape, position) = shape(self.input_sizes[layer]);
            self.mask(&format!("dropout.input.{layer}"), self.dropout.input_rate(layer), shape, position)
        };
        let depth_gate = |(layer, size): (usize, &Option<usize>)| {
            let Some(size) = size else { return Ok(None) };
            let (shape, position) = shape(*size);
            self.mask(&format!("dropout.depth.{layer}"), self.dropout.depth, shape, position)
        };
        let (output_shape, output_position) = shape(self.hidden_size);
        let (components_shape, components_position) = shape(self.components_size);
        let components_rate = if self.components_size == 0 { 0.0 } else { self.dropout.components };
        let layers = 0..self.input_sizes.len();
        Ok(Noise {
            word: self.word(tokens, position)?,
            input: layers.clone().map(layer_input).collect::<Result<_>>()?,
            hidden: layers.clone().map(|layer| self.hidden(layer, batch, position)).collect::<Result<_>>()?,
            weights: layers.map(|layer| self.weights(layer, position)).collect::<Result<_>>()?,
            depth: self.depth_gates.iter().enumerate().map(depth_gate).collect::<Result<_>>()?,
            output: self.mask("dropout.output", self.dropout.output, output_shape, output_position)?,
            components: self.mask(
                "dropout.components",
                components_rate,
                components_shape,
                components_position,
            )?,
            candidates: None,
        })
    }

    fn hidden(&self, layer: usize, batch: usize, position: u64) -> Result<HiddenMask> {
        let draw = |gate: &str| {
            let shape = Shape::from((batch, self.hidden_size));
            self.mask(&format!("dropout.hidden{gate}.{layer}"), self.dropout.hidden, shape, position)
        };
        let Some(h) = draw("")? else { return Ok(HiddenMask::None) };
        Ok(match self.separate_gate_masks.then(|| draw("_transform")) {
            None => HiddenMask::Shared(h),
            Some(t) => HiddenMask::Separate { h, t: t?.expect("the rate is not zero") },
        })
    }

    fn weights(&self, layer: usize, position: u64) -> Result<WeightMasks> {
        let mask = |(name, shape): &(&'static str, Shape)| {
            let purpose = format!("dropout.recurrent_weights.{layer}.{name}");
            let mask = self.mask(&purpose, self.dropout.recurrent_weights, shape.clone(), position)?;
            Ok(mask.map(|mask| (name.to_string(), mask)))
        };
        let masks = self.recurrent_weights.iter().map(mask).collect::<Result<Vec<_>>>()?;
        Ok(WeightMasks(masks.into_iter().flatten().collect()))
    }

    fn mask(&self, purpose: &str, rate: f64, shape: Shape, position: u64) -> Result<Option<Tensor>> {
        if rate == 0.0 {
            return Ok(None);
        }
        let purpose = &format!("{}{purpose}", self.pass);
        let stream = Stream { seed: self.seed, purpose, position };
        Ok(Some(masks::mask(stream, rate, shape, self.dtype, &self.device)?))
    }

    /// The mask of words, of which `word` draws one number a batch row and word type, `embedding` one a word type.
    fn word(&self, tokens: &Tensor, position: u64) -> Result<Option<Tensor>> {
        let by_row = self.types("dropout.word", self.dropout.word, true, tokens, position)?;
        let shared =
            self.types("dropout.embedding", self.dropout.embedding, self.rows_differ, tokens, position)?;
        Ok(match (by_row, shared) {
            (Some(one), Some(other)) => Some((one * other)?),
            (one, other) => one.or(other),
        })
    }

    /// A number for each of `tokens`, found by its id: those of all rows from one stream, or each row's from its own.
    fn types(
        &self,
        purpose: &str,
        rate: f64,
        rows_differ: bool,
        tokens: &Tensor,
        position: u64,
    ) -> Result<Option<Tensor>> {
        if rate == 0.0 {
            return Ok(None);
        }
        let (_, batch) = tokens.dims2()?;
        let name = |row: usize| match rows_differ {
            true => format!("{}{purpose}.{row}", self.pass),
            false => format!("{}{purpose}", self.pass),
        };
        let purposes: Vec<String> = (0..batch).map(name).collect();
        let streams: Vec<Stream<'_>> =
            purposes.iter().map(|purpose| Stream { seed: self.seed, purpose, position }).collect();
        Ok(Some(masks::words(&streams, rate, tokens, self.dtype, &self.device)?))
    }
}
