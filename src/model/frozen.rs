//! A model whose weights do not change: for evaluation, scoring and sampling.

use super::config::ModelConfig;
use super::core::pieces::Pieces;
use super::core::{self, state::State};
use super::layers::{Core, Embedding, Output, OutputRows, Steps, VectorStage};
use super::noise::Noise;
use super::output::nats_at;
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use rhn_kernels::embedding::{copy_row, lookup};
use rhn_kernels::precision::Precision;
use std::collections::HashMap;
use std::sync::Arc;

/// A model whose weights do not change. It owns them; clones share them.
#[derive(Clone)]
pub struct FrozenModel {
    pub(super) config: Arc<ModelConfig>,
    /// `(vocabulary, size)`.
    pub(super) table: Tensor,
    /// What computes the vectors of words from characters, if anything does.
    pub(super) spells: Option<Arc<dyn Embedding>>,
    pub(super) core: Arc<dyn Core>,
    pub(super) output: Arc<dyn Output>,
    pub(super) precision: Precision,
    pub(super) device: Device,
}

impl FrozenModel {
    /// What fixes the weights' shapes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The vectors of the whole vocabulary, `(vocabulary, size)`.
    pub fn table(&self) -> &Tensor {
        &self.table
    }

    /// Whether words that the vocabulary lacks have vectors too.
    pub fn reads_any_string(&self) -> bool {
        self.spells.as_ref().is_some_and(|embedding| embedding.reads_any_string())
    }

    /// The vectors of `tokens`, `(count, size)`; that of a token beside which a word is given is the word's own, computed from
    /// its bytes.
    ///
    /// # Errors
    /// If a word is given and the model reads the words of its vocabulary alone.
    pub fn vectors(&self, tokens: &[u32], words: &[Option<&[u8]>]) -> Result<Tensor> {
        let mut rows: Vec<u32> = (0..tokens.len() as u32).collect();
        let mut distinct: Vec<&[u8]> = Vec::new();
        let mut places: HashMap<&[u8], u32> = HashMap::new();
        for (row, word) in rows.iter_mut().zip(words) {
            let Some(word) = *word else { continue };
            *row = *places.entry(word).or_insert_with(|| {
                distinct.push(word);
                (tokens.len() + distinct.len() - 1) as u32
            });
        }
        let ids = |ids: &[u32]| Tensor::from_slice(ids, ids.len(), &self.device);
        let known = lookup(&self.table, &ids(tokens)?, None)?;
        if distinct.is_empty() {
            return Ok(known);
        }
        let Some(spells) = self.spells.as_ref().filter(|embedding| embedding.reads_any_string()) else {
            return Err(Error::config("this model reads the words of its vocabulary alone"));
        };
        let all = Tensor::cat(&[known, spells.spelled(&distinct)?], 0)?;
        Ok(lookup(&all, &ids(&rows)?, None)?)
    }

    /// The vectors at `stage` of words by their characters, `(words, length)` of u32, to `(words, size)`.
    ///
    /// # Errors
    /// If the model does not compute them from characters.
    pub fn of_characters(&self, characters: &Tensor, stage: VectorStage) -> Result<Tensor> {
        let Some(spells) = &self.spells else {
            return Err(Error::config("this model's word vectors are not computed from characters"));
        };
        spells.of_characters(characters, stage)
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
        self.core.zero_state(batch)
    }

    /// Nats of each target, `(time, batch)`, and the state after the window; no history is followed.
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

    /// Logits `(time, batch, vocabulary)`, and the state after the window; no history is followed.
    pub fn logits(&self, tokens: &Tensor, state: &State, noise: &Noise) -> Result<(Tensor, State)> {
        let (ys, state) = self.hidden(tokens, state, noise)?;
        Ok((self.logits_of(&ys, noise)?, state))
    }

    /// Logits, `(time, batch, vocabulary)`, from what [`FrozenModel::hidden`] gave; `noise` holds what is random in the output layer.
    pub fn logits_of(&self, ys: &Tensor, noise: &Noise) -> Result<Tensor> {
        Ok(self.output.logits(ys, noise)?.detach())
    }

    /// Nats of each target, `(time, batch)`, from what [`FrozenModel::hidden`] gave, the logits divided by `temperature`.
    pub fn nats_of(&self, ys: &Tensor, targets: &Tensor, noise: &Noise, temperature: f64) -> Result<Tensor> {
        Ok(nats_at(&*self.output, ys, targets, noise, temperature)?.detach())
    }

    /// The layers for one token after another at batch 1, from the zero state; `None` where only tensors can do it.
    pub(crate) fn steps(&self) -> Result<Option<TokenSteps>> {
        let Some(output) = self.output.rows()? else { return Ok(None) };
        let Some(core) = self.core.steps()? else { return Ok(None) };
        let vector = vec![0.0; self.table.dim(1)?];
        Ok(Some(TokenSteps { table: self.table.clone(), vector, core, output, hidden: None }))
    }

    /// What the output layer sees, `(time, batch, hidden)`, and the state after the window; no history is followed.
    pub fn hidden(&self, tokens: &Tensor, state: &State, noise: &Noise) -> Result<(Tensor, State)> {
        self.hidden_of(tokens, None, state, noise)
    }

    /// As [`FrozenModel::hidden`]; with `pieces` each sentence begins with the zero state.
    pub(crate) fn hidden_of(
        &self,
        tokens: &Tensor,
        pieces: Option<&Pieces>,
        state: &State,
        noise: &Noise,
    ) -> Result<(Tensor, State)> {
        let vectors = lookup(&self.table, tokens, None)?;
        self.hidden_of_vectors(vectors, pieces, state, noise)
    }

    /// As [`FrozenModel::hidden`], of tokens whose vectors are `(time, batch, size)`.
    pub(crate) fn hidden_of_vectors(
        &self,
        vectors: Tensor,
        pieces: Option<&Pieces>,
        state: &State,
        noise: &Noise,
    ) -> Result<(Tensor, State)> {
        let (ys, state) = core::forward(&*self.core, vectors, pieces, state, noise)?;
        Ok((ys.detach(), state.detach()))
    }
}

/// A model that reads one token after another; nothing is allocated for a token.
pub(crate) struct TokenSteps {
    table: Tensor,
    /// A row of the table.
    vector: Vec<f32>,
    core: Box<dyn Steps>,
    output: Box<dyn OutputRows>,
    /// Where what the output layer sees is kept, if anyone asks for it.
    hidden: Option<Vec<f32>>,
}

impl TokenSteps {
    /// Reads `token`; `logits` are then about the one after it.
    pub(crate) fn read(&mut self, token: u32, logits: &mut Vec<f64>) -> Result<()> {
        copy_row(&self.table, token as usize, &mut self.vector)?;
        let ys = self.core.step(&self.vector);
        if let Some(hidden) = &mut self.hidden {
            hidden.clear();
            hidden.extend_from_slice(ys);
        }
        self.output.logits(ys, logits);
        Ok(())
    }

    /// What the output layer sees is kept from now on.
    pub(crate) fn keep_hidden(&mut self) {
        self.hidden.get_or_insert_default();
    }

    /// What the output layer saw of the last token, if that is kept.
    pub(crate) fn hidden(&self) -> Option<&[f32]> {
        self.hidden.as_deref()
    }

    pub(crate) fn state(&self) -> Result<State> {
        self.core.state()
    }

    pub(crate) fn set_state(&mut self, state: &State) -> Result<()> {
        self.core.set_state(state)
    }
}
