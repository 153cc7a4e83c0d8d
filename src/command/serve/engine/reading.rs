//! A prompt that is read, a window at a time.

use super::entry::Entries;
use super::{Entry, Event, Job, Served};
use crate::error::Result;
use crate::model::{FrozenModel, Noise, State};
use crate::sample::SampleSettings;
use crate::sample::draws::Draws;
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// Tokens of a prompt that are read at once.
const WINDOW: usize = 128;

/// A prompt on its way through the model.
pub(super) struct Reading<'a> {
    pub(super) job: Arc<Job>,
    pub(super) state: State,
    /// What the samples draw from once the prompt is read: all of them have read the same.
    pub(super) draws: Draws,
    read: usize,
    entries: Entries<'a>,
    scored: Vec<Entry>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(served: &'a Served, job: Job) -> Result<Self> {
        let tokenizer = &served.tokenizer;
        let state = served.model.zero_state(1)?;
        let settings = SampleSettings { unwritten: job.prompt.start(), ..job.settings.clone() };
        let draws = Draws::new(settings, 0);
        let entries = Entries::new(tokenizer, tokenizer.decoder(), None);
        let mut reading = Self { job: Arc::new(job), state, draws, read: 0, entries, scored: Vec::new() };
        if reading.job.prompt.start() == 0 {
            reading.score(0, None); // nothing comes before it
        }
        Ok(reading)
    }

    /// Reads the next window; gives how many tokens it had, and the logits after the last one once the prompt is read.
    pub(super) fn window(&mut self, model: &FrozenModel) -> Result<(usize, Option<Vec<f64>>)> {
        let job = self.job.clone();
        let context = job.prompt.context();
        let end = context.len().min(self.read + WINDOW);
        let tokens = &context[self.read..end];
        let inputs = Tensor::from_slice(tokens, (tokens.len(), 1), model.device())?;
        let (ys, state) = model.hidden(&inputs, &self.state, &Noise::none())?;
        self.state = state;
        tokens.iter().for_each(|&token| self.draws.remember(token));
        let is_over = end == context.len();
        let first = if job.scores_prompt { 0 } else { tokens.len() - 1 };
        let mut last = Vec::new();
        if is_over || job.scores_prompt {
            let ys = ys.narrow(0, first, tokens.len() - first)?;
            for (at, logits) in (self.read + first..).zip(rows(&model.logits_of(&ys, &Noise::none())?)?) {
                self.draws.check(&logits)?;
                self.score(at + 1, Some(&logits));
                last = logits;
            }
        }
        self.read = end;
        if is_over && job.scores_prompt {
            let entries = std::mem::take(&mut self.scored);
            job.send(Event::Prompt { first: job.first, count: job.count, entries });
        }
        Ok((tokens.len(), is_over.then_some(last)))
    }

    /// The entry of token `at` of the context, if it is one of the prompt's own.
    fn score(&mut self, at: usize, logits: Option<&[f64]>) {
        let job = &self.job;
        let start = job.prompt.start();
        let Some(&id) = job.prompt.context().get(at).filter(|_| job.scores_prompt && at >= start) else {
            return;
        };
        let mut entry = self.entries.next(id, logits, job.top.unwrap_or(0));
        if let Some(&offset) = job.offsets.get(at - start) {
            entry.offset = offset;
        }
        self.scored.push(entry);
    }
}

/// `(time, batch, vocabulary)` by rows.
pub(super) fn rows(logits: &Tensor) -> Result<impl Iterator<Item = Vec<f64>> + use<>> {
    let rows = logits.flatten(0, 1)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    Ok(rows.into_iter())
}
