//! Text from a model: an iterator of tokens, each drawn from the filtered distribution and fed back.

pub mod distribution;
pub mod stop;

use crate::error::{Error, Result};
use crate::model::{Evaluator, LanguageModel, Masks, State};
use crate::rng::Rng;
use candle_core::{DType, Tensor};
use distribution::Filters;
use std::collections::VecDeque;

/// Time steps of a prompt that are read at once.
const PROMPT_STEPS: usize = 256;

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleSettings {
    /// What the model's distribution goes through before a token is drawn from it.
    pub filters: Filters,
    /// How many of the latest tokens, the prompt's included, the repetition penalty looks at.
    pub repetition_window: usize,
    /// A type that is never drawn, say `<unk>`.
    pub forbidden: Option<u32>,
    /// Fixes every draw, together with the sample's index.
    pub seed: u64,
}

impl Default for SampleSettings {
    fn default() -> Self {
        Self { filters: Filters::default(), repetition_window: 256, forbidden: None, seed: 1 }
    }
}

/// A token and how likely it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// The token's id.
    pub id: u32,
    /// Its −ln p under the model itself, before any filter.
    pub nats: f64,
}

/// A text that grows by a token at each `next`, without end.
pub struct Sampler<'a> {
    model: &'a LanguageModel,
    evaluator: &'a Evaluator<'a>,
    settings: SampleSettings,
    state: State,
    pending: Option<u32>, // drawn but not yet read by the model
    logits: Vec<f64>,
    recent: VecDeque<u32>,
    rng: Rng,
}

impl<'a> Sampler<'a> {
    /// Sample number `index` of a model that has read `context`, which holds at least one token.
    pub fn new(
        model: &'a LanguageModel,
        evaluator: &'a Evaluator<'a>,
        settings: SampleSettings,
        context: &[u32],
        index: u64,
    ) -> Result<Self> {
        settings.filters.validate()?;
        if context.is_empty() {
            return Err(Error::config("a sample needs a token to start from"));
        }
        let rng = Rng::keyed(settings.seed, "sample", index);
        let state = model.zero_state(1)?;
        let (logits, recent) = (Vec::new(), VecDeque::new());
        let mut sampler = Self { model, evaluator, settings, state, pending: None, logits, recent, rng };
        for window in context.chunks(PROMPT_STEPS) {
            sampler.read(window)?;
        }
        Ok(sampler)
    }

    /// The same text so far, to be continued by the draws of sample number `index`.
    pub fn fork(&self, index: u64) -> Self {
        Self {
            model: self.model,
            evaluator: self.evaluator,
            settings: self.settings.clone(),
            state: self.state.clone(),
            pending: self.pending,
            logits: self.logits.clone(),
            recent: self.recent.clone(),
            rng: Rng::keyed(self.settings.seed, "sample", index),
        }
    }

    /// The model reads `tokens`; `logits` is then about the token after them.
    fn read(&mut self, tokens: &[u32]) -> Result<()> {
        let inputs = Tensor::from_slice(tokens, (tokens.len(), 1), self.model.device())?;
        let (logits, state) = self.evaluator.logits(&inputs, &self.state, &Masks::none())?;
        let last = logits.get(tokens.len() - 1)?.flatten_all()?;
        self.logits = last.to_dtype(DType::F64)?.to_vec1()?;
        self.state = state;
        tokens.iter().for_each(|&token| self.remember(token));
        match self.logits.iter().find(|logit| !logit.is_finite()) {
            None => Ok(()),
            Some(logit) => Err(Error::NotFinite {
                step: self.recent.len() as u64,
                what: format!("the model gives a logit of {logit} while sampling; its weights are unusable"),
            }),
        }
    }

    fn remember(&mut self, token: u32) {
        if self.recent.len() >= self.settings.repetition_window {
            self.recent.pop_front();
        }
        if self.settings.repetition_window > 0 {
            self.recent.push_back(token);
        }
    }

    fn draw(&mut self) -> Result<Drawn> {
        if let Some(token) = self.pending.take() {
            self.read(&[token])?;
        }
        let recent = self.recent.iter().copied();
        let candidates = self.settings.filters.apply(&self.logits, recent, self.settings.forbidden);
        let id = distribution::draw(&candidates, self.rng.uniform());
        self.pending = Some(id);
        Ok(Drawn { id, nats: distribution::nats(&self.logits, id) })
    }
}

impl Iterator for Sampler<'_> {
    type Item = Result<Drawn>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.draw())
    }
}
