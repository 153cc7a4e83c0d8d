//! Two cores over the same sequences, of which one reads from their ends (Schuster and Paliwal, 1997).

use crate::error::Result;
use crate::model::layers::Core;
use crate::model::noise::Noise;
use crate::model::sequences::Lengths;
use candle_core::Tensor;
use std::sync::Arc;

/// A core that reads forward and one that reads backward, each from the zero state.
pub(crate) struct Bidirectional {
    pub(crate) forward: Arc<dyn Core>,
    pub(crate) backward: Arc<dyn Core>,
}

impl Bidirectional {
    /// What both cores give at each step: `(time, batch, input)` to `(time, batch, 2 · hidden)`, the forward one's first.
    /// `noise` holds the masks of each.
    pub(crate) fn forward(&self, xs: &Tensor, lengths: &Lengths, noise: [&Noise; 2]) -> Result<Tensor> {
        let [forward, backward] = self.each(xs, lengths, noise)?;
        Ok(Tensor::cat(&[forward, lengths.reversed(&backward)?], 2)?)
    }

    /// What both cores give after the last step that they read, `(batch, 2 · hidden)`: the forward one at a row's end, the
    /// backward one at its beginning.
    pub(crate) fn last(&self, xs: &Tensor, lengths: &Lengths, noise: [&Noise; 2]) -> Result<Tensor> {
        let [forward, backward] = self.each(xs, lengths, noise)?;
        Ok(Tensor::cat(&[lengths.last(&forward)?, lengths.last(&backward)?], 1)?)
    }

    /// The outputs of each core in the order in which it reads.
    fn each(&self, xs: &Tensor, lengths: &Lengths, noise: [&Noise; 2]) -> Result<[Tensor; 2]> {
        let zero = self.forward.zero_state(lengths.rows().len())?;
        let (forward, _) = self.forward.forward(xs, &zero, noise[0])?;
        let zero = self.backward.zero_state(lengths.rows().len())?;
        let (backward, _) = self.backward.forward(&lengths.reversed(xs)?, &zero, noise[1])?;
        Ok([forward, backward])
    }
}
