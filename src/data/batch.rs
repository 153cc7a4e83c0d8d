//! Batches and windows: a stream of tokens cut into contiguous batch rows that are read side by side.

use super::tokens::TokenSource;
use crate::error::{Error, Result};
use crate::parallel::rows::Rows;
use crate::readable::too_few;
use candle_core::{Device, Tensor};

/// How a stream is laid out: `count` batch rows, of which each predicts its first `predicted` tokens after the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batches {
    /// Batch rows.
    pub count: usize,
    /// Tokens that each batch row predicts.
    pub predicted: usize,
    /// The first of the batch rows, where others come before them.
    first: usize,
    length: usize,
    steps: usize,
}

impl Batches {
    /// `count` batch rows of equal length, the tail dropped; whole windows of `steps`, again without the
    /// tail. Fails if the `tokens` of the text called `text` are too few for one window.
    pub(crate) fn batched(text: &str, tokens: usize, count: usize, steps: usize) -> Result<Self> {
        if count == 0 || steps == 0 {
            return Err(Error::config("a batch and a window must be at least 1"));
        }
        let length = tokens / count;
        let windows = length.saturating_sub(1) / steps;
        if windows == 0 {
            let wanted = count.saturating_mul(steps.saturating_add(1));
            let advice = match (count, steps) {
                (1, 1) => "a longer text is wanted",
                _ => "make batch_size or bptt_steps smaller",
            };
            let what = format!(
                "{}: {count} batch rows with a window of {steps} steps need at least {wanted}; {advice}",
                too_few(tokens, "token")
            );
            return Err(Error::data(text, what));
        }
        Ok(Self { count, first: 0, length, predicted: windows * steps, steps })
    }

    /// `count` batch rows of sentences, which have `tokens` tokens together, all of them predicted: whole windows of
    /// `steps`. Fails as [`Batches::batched`].
    pub(crate) fn of_sentences(text: &str, tokens: usize, count: usize, steps: usize) -> Result<Self> {
        if count > 0 && steps > 0 && tokens / count < steps {
            let wanted = count.saturating_mul(steps);
            let what = format!(
                "{}: {count} batch rows of sentences with a window of {steps} steps need at least {wanted}; make batch_size or \
                 bptt_steps smaller",
                too_few(tokens, "token")
            );
            return Err(Error::data(text, what));
        }
        Self::batched(text, tokens + count, count, steps)
    }

    /// One batch row over everything, in windows of at most `steps`. Fails if there is no token after the
    /// first.
    pub(crate) fn stream(text: &str, tokens: usize, steps: usize) -> Result<Self> {
        if tokens < 2 {
            let what = "at least 2 are needed: the first is context, the second is predicted";
            return Err(Error::data(text, format!("{}; {what}", too_few(tokens, "token"))));
        }
        Ok(Self { count: 1, first: 0, length: tokens, predicted: tokens - 1, steps })
    }

    /// Some of the batch rows.
    pub(crate) fn rows(self, rows: Rows) -> Self {
        Self { count: rows.count, first: self.first + rows.first, ..self }
    }

    /// Where each window starts within its batch row, and how many steps it has.
    pub(crate) fn windows(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let steps = self.steps;
        let end = self.predicted;
        (0..end).step_by(steps).map(move |start| (start, steps.min(end - start)))
    }

    /// Of a token of the stream, its number in the order in which inputs are read: time step by time step all batch rows. `None` if
    /// it is none of them.
    pub(crate) fn reading_order(&self, token: usize) -> Option<usize> {
        let row = (token / self.length).checked_sub(self.first).filter(|row| *row < self.count)?;
        let step = token % self.length;
        (step < self.predicted).then(|| step * self.count + row)
    }

    pub(crate) fn window_count(&self) -> usize {
        self.predicted.div_ceil(self.steps)
    }

    /// Tokens of a batch row after its first.
    pub(crate) fn following(&self) -> usize {
        self.length - 1
    }

    /// Where in the stream the token is that batch row `row` predicts at `step`.
    pub(crate) fn target(&self, row: usize, step: usize) -> usize {
        (self.first + row) * self.length + step + 1
    }

    /// The places of all tokens that are predicted.
    pub(crate) fn predicted_positions(&self) -> impl Iterator<Item = usize> + use<> {
        let batches = *self;
        let row = move |row| (0..batches.predicted).map(move |step| batches.target(row, step));
        (0..self.count).flat_map(row)
    }

    /// Window number `index`: its inputs and its targets, `(time, batch)` of u32 each.
    pub(crate) fn window(
        &self,
        tokens: &dyn TokenSource,
        index: usize,
        device: &Device,
    ) -> Result<(Tensor, Tensor)> {
        let start = index * self.steps;
        self.window_at(tokens, (start, self.steps.min(self.predicted - start)), device)
    }

    /// The window of so many `steps` from `start` on in every batch row: as [`Batches::window`].
    pub(crate) fn window_at(
        &self,
        tokens: &dyn TokenSource,
        (start, steps): (usize, usize),
        device: &Device,
    ) -> Result<(Tensor, Tensor)> {
        let part = |start| self.part(tokens, start, steps, device);
        Ok((part(start)?, part(start + 1)?))
    }

    /// `(time, batch)`: `steps` tokens of every batch row from `start` on.
    fn part(&self, tokens: &dyn TokenSource, start: usize, steps: usize, device: &Device) -> Result<Tensor> {
        let mut by_row = vec![0u32; self.count * steps];
        for (row, out) in by_row.chunks_exact_mut(steps).enumerate() {
            tokens.copy_to((self.first + row) * self.length + start, out)?;
        }
        Ok(Tensor::from_vec(by_row, (self.count, steps), device)?.t()?.contiguous()?)
    }
}

#[cfg(test)]
mod tests {
    use super::Batches;
    use crate::data::Tokens;
    use candle_core::Device;

    fn window(batches: Batches, tokens: &Tokens, index: usize) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
        let (inputs, targets) = batches.window(tokens, index, &Device::Cpu).unwrap();
        (inputs.to_vec2().unwrap(), targets.to_vec2().unwrap())
    }

    #[test]
    fn batch_rows_are_contiguous_and_windows_follow_each_other() {
        let tokens = Tokens::U8((0..23).collect());
        let batches = Batches::batched("test", 23, 2, 5).unwrap(); // two batch rows of 11, two windows of 5
        assert_eq!((batches.window_count(), batches.predicted), (2, 10));
        let (inputs, targets) = window(batches, &tokens, 0);
        assert_eq!(inputs, [[0, 11], [1, 12], [2, 13], [3, 14], [4, 15]]);
        assert_eq!(targets, [[1, 12], [2, 13], [3, 14], [4, 15], [5, 16]]);
        assert_eq!(window(batches, &tokens, 1).0[0], [5, 16]);
        // The token 13 is the sixth that is read: 0, 11, 1, 12, 2, 13; 10 and 22 are in no window.
        assert_eq!(
            [0, 11, 13, 10, 22].map(|token| batches.reading_order(token)),
            [Some(0), Some(1), Some(5), None, None]
        );
    }

    #[test]
    fn a_stream_predicts_every_token_but_the_first() {
        let tokens = Tokens::U8((0..8).collect());
        let batches = Batches::stream("test", 8, 5).unwrap();
        assert_eq!(batches.windows().collect::<Vec<_>>(), [(0, 5), (5, 2)]);
        assert_eq!(window(batches, &tokens, 1), (vec![vec![5], vec![6]], vec![vec![6], vec![7]]));
    }

    #[test]
    fn a_text_too_short_for_its_batch_rows_is_an_error_that_says_what_is_needed() {
        let message = Batches::batched("tiny.txt (train)", 23, 4, 5).unwrap_err().to_string();
        assert!(message.contains("tiny.txt (train)") && message.contains("at least 24"), "{message}");
        assert!(Batches::stream("tiny.txt", 1, 5).is_err());
        let message = Batches::of_sentences("tiny.txt (train)", 19, 4, 5).unwrap_err().to_string();
        assert!(message.contains("19 tokens are too few") && message.contains("at least 20"), "{message}");
        assert_eq!(Batches::of_sentences("tiny.txt", 20, 4, 5).unwrap().window_count(), 1);
    }
}
