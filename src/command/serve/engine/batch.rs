//! The samples that are drawn side by side: each is a batch row, which joins and leaves between tokens.
//!
//! On the CPU in single precision a row's numbers do not depend on the rows beside it: every sum runs along the inner
//! dimension in order, by one accumulator. So a text is the same alone, in a batch, and by `rhn sample`.

use super::super::metrics::Metrics;
use super::entry::Entries;
use super::reading::{Reading, rows};
use super::{Event, Job, Reason, Served};
use crate::data::Characters;
use crate::error::Result;
use crate::model::{FrozenModel, Noise, State};
use crate::sample::draws::Draws;
use crate::sample::text::Writing;
use candle_core::Tensor;
use std::sync::Arc;

/// Samples under way, and their state.
#[derive(Default)]
pub(super) struct Batch<'a> {
    rows: Vec<Row<'a>>,
    /// Of the first rows; those that joined since are in `joining`.
    state: Option<State>,
    joining: Vec<State>,
}

/// One sample.
struct Row<'a> {
    job: Arc<Job>,
    choice: usize,
    draws: Draws,
    writing: Writing<'a>,
    characters: Characters,
    entries: Entries<'a>,
    drawn: usize,
    /// Drawn, and not yet read by the model.
    pending: u32,
}

impl<'a> Batch<'a> {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The prompt is read: its samples begin, the first token of each from `logits`.
    pub(super) fn begin(
        &mut self,
        served: &'a Served,
        reading: Reading<'a>,
        logits: &[f64],
        metrics: &Metrics,
    ) -> Result<()> {
        for index in 0..reading.job.count {
            let mut row = Row::new(served, &reading, index);
            let ended = if row.job.limit == 0 { Some(Reason::Length) } else { row.take(logits, metrics)? };
            match ended {
                Some(reason) => row.finish(reason),
                None => {
                    self.rows.push(row);
                    self.joining.push(reading.state.clone());
                }
            }
        }
        Ok(())
    }

    /// Every row gets its next token. Rows that nobody waits for leave first, those that end leave after it.
    pub(super) fn step(&mut self, model: &FrozenModel, metrics: &Metrics) -> Result<()> {
        self.join()?;
        self.keep(|row| !row.job.is_abandoned())?;
        let Some(state) = self.state.take() else { return Ok(()) };
        let pending: Vec<u32> = self.rows.iter().map(|row| row.pending).collect();
        let inputs = Tensor::from_slice(&pending, (1, pending.len()), model.device())?;
        let (ys, state) = model.hidden(&inputs, &state, &Noise::none())?;
        self.state = Some(state);
        let logits = rows(&model.logits_of(&ys, &Noise::none())?)?;
        let mut ended = Vec::with_capacity(self.rows.len());
        for (row, logits) in self.rows.iter_mut().zip(logits) {
            row.draws.remember(row.pending);
            ended.push(row.take(&logits, metrics));
        }
        let mut ended = ended.into_iter();
        self.leave(|_| ended.next().unwrap_or(Ok(None)))
    }

    /// The states of rows that joined are put behind the others'.
    fn join(&mut self) -> Result<()> {
        if !self.joining.is_empty() {
            let joining = std::mem::take(&mut self.joining);
            let states: Vec<&State> = self.state.iter().chain(&joining).collect();
            self.state = Some(State::join(&states)?);
        }
        Ok(())
    }

    fn keep(&mut self, stays: impl Fn(&Row<'_>) -> bool) -> Result<()> {
        if self.rows.iter().all(&stays) {
            return Ok(());
        }
        let kept: Vec<u32> = (0..).zip(&self.rows).filter(|(_, row)| stays(row)).map(|(at, _)| at).collect();
        self.rows.retain(|row| stays(row));
        self.select(&kept)
    }

    /// Rows leave for which `ended` has a reason or an error.
    fn leave(&mut self, mut ended: impl FnMut(&Row<'a>) -> Result<Option<Reason>>) -> Result<()> {
        let mut kept = Vec::new();
        let before = self.rows.len();
        for (at, row) in (0..).zip(std::mem::take(&mut self.rows)) {
            match ended(&row) {
                Ok(None) => {
                    kept.push(at);
                    self.rows.push(row);
                }
                Ok(Some(reason)) => row.finish(reason),
                Err(error) => row.job.send(Event::Failed(error.to_string())),
            }
        }
        if kept.len() < before { self.select(&kept) } else { Ok(()) }
    }

    fn select(&mut self, kept: &[u32]) -> Result<()> {
        self.state = match &self.state {
            Some(state) if !kept.is_empty() => Some(state.select(kept)?),
            _ => None,
        };
        Ok(())
    }

    /// The model cannot go on: all rows end.
    pub(super) fn fail(&mut self, message: &str) {
        self.state = None;
        self.joining.clear();
        self.rows.drain(..).for_each(|row| row.job.send(Event::Failed(message.into())));
    }
}

impl<'a> Row<'a> {
    fn new(served: &'a Served, reading: &Reading<'a>, index: usize) -> Self {
        let job = reading.job.clone();
        let tokenizer = &served.tokenizer;
        let own = &job.prompt.context()[job.prompt.start()..];
        Self {
            choice: job.first + index,
            draws: reading.draws.fork(index as u64),
            writing: Writing::new(tokenizer, &job.prompt, &job.stops),
            characters: Characters::default(),
            entries: Entries::new(tokenizer, job.prompt.decoder(tokenizer), own.last().copied()),
            drawn: 0,
            pending: 0,
            job,
        }
    }

    /// Draws a token from `logits`; why no other follows, if none does.
    fn take(&mut self, logits: &[f64], metrics: &Metrics) -> Result<Option<Reason>> {
        self.draws.check(logits)?;
        let drawn = self.draws.draw(logits);
        metrics.drawn(1);
        self.drawn += 1;
        self.pending = drawn.id;
        let job = &*self.job;
        let entry = job.top.map(|count| self.entries.next(drawn.id, Some(logits), count));
        let is_end = Some(drawn.id) == job.end;
        let text = match is_end {
            true => String::new(),
            false => self.characters.push(&self.writing.push(&drawn)),
        };
        job.send(Event::Token { choice: self.choice, text, entry });
        Ok(match () {
            () if is_end => Some(Reason::End),
            () if self.writing.stopped() => Some(Reason::Stop),
            () if self.drawn >= job.limit => Some(Reason::Length),
            () => None,
        })
    }

    fn finish(mut self, reason: Reason) {
        let (rest, _) = self.writing.finish();
        let text = self.characters.push(&rest) + &self.characters.finish();
        self.job.send(Event::Done { choice: self.choice, text, reason });
    }
}
