//! Reading windows, the state carried from each to the next.

use super::reader::Reader;
use crate::error::Result;
use crate::model::{FrozenModel, Noise, Pieces, State};
use candle_core::Tensor;

/// Time steps of a window at batch 1: enough for an efficient product, few enough logits to hold.
pub const STREAM_STEPS: usize = 256;

/// Reads batch rows side by side, the state carried from each window to the next.
pub struct WindowReader {
    model: FrozenModel,
    state: State,
    temperature: f64,
    /// The line end at which the state goes back to zero, if it does.
    line_end: Option<u32>,
}

impl WindowReader {
    /// A reader of `batch` rows that has read nothing yet.
    pub fn new(model: &FrozenModel, batch: usize) -> Result<Self> {
        Ok(Self { state: model.zero_state(batch)?, model: model.clone(), temperature: 1.0, line_end: None })
    }

    /// The same reader, which divides the logits by `temperature`.
    pub fn at_temperature(self, temperature: f64) -> Self {
        Self { temperature, ..self }
    }

    /// The same reader, for which a sentence begins with the zero state wherever this token is read.
    pub fn resetting_at(self, line_end: Option<u32>) -> Self {
        Self { line_end, ..self }
    }

    /// The model.
    pub fn model(&self) -> &FrozenModel {
        &self.model
    }

    /// What it remembers.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Goes on from another memory.
    pub(crate) fn set_state(&mut self, state: State) {
        self.state = state;
    }

    /// As [`Reader::nats`], with the masks of `noise`.
    pub fn nats_with(&mut self, inputs: &Tensor, targets: &Tensor, noise: &Noise) -> Result<Tensor> {
        let ys = self.hidden(inputs, noise)?;
        self.model.nats_of(&ys, targets, noise, self.temperature)
    }

    /// Reads `inputs`: what the output layer sees, `(time, batch, hidden)`.
    pub fn hidden(&mut self, inputs: &Tensor, noise: &Noise) -> Result<Tensor> {
        let pieces = self.line_end.map(|line_end| Pieces::of(inputs, line_end)).transpose()?;
        let (ys, state) = self.model.hidden_of(inputs, pieces.as_ref(), &self.state, noise)?;
        self.state = state;
        Ok(ys)
    }
}

impl WindowReader {
    /// As [`WindowReader::hidden`], of tokens that are read as they stand in `words` where they have one there, both in the
    /// order of `(time, batch)`.
    ///
    /// # Errors
    /// If there is a word and the model reads the words of its vocabulary alone.
    pub(crate) fn hidden_of_words(&mut self, tokens: &Tensor, words: &[Option<&[u8]>]) -> Result<Tensor> {
        if words.iter().all(Option::is_none) {
            return self.hidden(tokens, &Noise::none());
        }
        let (time, batch) = tokens.dims2()?;
        let vectors = self.model.vectors(&tokens.flatten_all()?.to_vec1::<u32>()?, words)?;
        let vectors = vectors.reshape((time, batch, ()))?;
        let (ys, state) = self.model.hidden_of_vectors(vectors, None, &self.state, &Noise::none())?;
        self.state = state;
        Ok(ys)
    }
}

impl Reader for WindowReader {
    fn nats(&mut self, inputs: &Tensor, targets: &Tensor) -> Result<Tensor> {
        self.nats_with(inputs, targets, &Noise::none())
    }
}
