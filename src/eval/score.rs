//! Surprisal: −ln p of each token of any text, given all the text before it.

use super::perplexity::{STREAM_STEPS, finite};
use crate::error::Result;
use crate::model::{Evaluator, LanguageModel, Masks, State};
use candle_core::Tensor;

/// Reads a text piece by piece, the state carried from one to the next.
pub struct Scorer<'a> {
    model: &'a LanguageModel,
    evaluator: Evaluator<'a>,
    state: State,
    previous: Option<u32>,
    read: usize,
}

impl<'a> Scorer<'a> {
    /// A reader at the start of a text. `context`, the line end, comes before the first token; where a
    /// vocabulary has none, the first token has no surprisal.
    pub fn new(model: &'a LanguageModel, context: Option<u32>) -> Result<Self> {
        let (evaluator, state) = (model.evaluator()?, model.zero_state(1)?);
        Ok(Self { model, evaluator, state, previous: context, read: 0 })
    }

    /// Nats of each of the next tokens.
    pub fn nats(&mut self, tokens: &[u32]) -> Result<Vec<Option<f64>>> {
        let mut nats = Vec::with_capacity(tokens.len());
        for window in tokens.chunks(STREAM_STEPS) {
            self.window(window, &mut nats)?;
        }
        Ok(nats)
    }

    fn window(&mut self, tokens: &[u32], nats: &mut Vec<Option<f64>>) -> Result<()> {
        let (Some(&first), Some(&last)) = (tokens.first(), tokens.last()) else { return Ok(()) };
        let targets = if self.previous.is_some() { tokens } else { &tokens[1..] };
        if self.previous.is_none() {
            nats.push(None);
        }
        let mut inputs = vec![self.previous.unwrap_or(first)];
        inputs.extend_from_slice(targets);
        inputs.truncate(targets.len()); // the last token is read when the next one is predicted
        self.previous = Some(last);
        if targets.is_empty() {
            return Ok(());
        }
        let column = |ids: &[u32]| Tensor::from_slice(ids, (ids.len(), 1), self.model.device());
        let (window, next) =
            self.evaluator.nats(&column(&inputs)?, &column(targets)?, &self.state, &Masks::none())?;
        nats.extend(finite(&window, self.read, 1)?.into_iter().map(Some));
        self.read += targets.len();
        self.state = next;
        Ok(())
    }
}
