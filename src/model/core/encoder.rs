//! What reads whole sequences: a core from their beginnings, and another one from their ends where that is asked for
//! (Schuster and Paliwal, 1997).

use super::CoreConfig;
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::layers::Core;
use crate::model::noise::Noise;
use crate::model::sequences::Lengths;
use candle_core::Tensor;
use std::sync::Arc;

/// One core or two, each from the zero state. Their weights are the core's, and again under `backward`.
pub(in crate::model) struct Encoder {
    forward: Arc<dyn Core>,
    backward: Option<Arc<dyn Core>>,
}

impl Encoder {
    /// For inputs of `input` numbers.
    pub(in crate::model) fn build(
        core: &CoreConfig,
        input: usize,
        is_bidirectional: bool,
        builder: &Builder<'_>,
    ) -> Result<Self> {
        let build = |weights: &Builder<'_>| core.settings().build(input, weights);
        let forward = build(builder)?;
        let backward = is_bidirectional.then(|| build(&builder.under("backward"))).transpose()?;
        Ok(Self { forward, backward })
    }

    /// What the cores give after the last step that they read, `(batch, size)`: the forward one at a row's end, the backward
    /// one at its beginning.
    pub(in crate::model) fn last(
        &self,
        xs: &Tensor,
        lengths: &Lengths,
        noise: [&Noise; 2],
    ) -> Result<Tensor> {
        let (forward, backward) = self.states(xs, lengths, noise)?;
        let forward = lengths.last(&forward)?;
        let Some(backward) = backward else { return Ok(forward) };
        Ok(Tensor::cat(&[forward, lengths.last(&backward)?], 1)?)
    }

    /// What each core gives at each step in the order in which it reads, `(time, batch, input)` to `(time, batch, hidden)`.
    /// `noise` holds the masks of each.
    pub(in crate::model) fn states(
        &self,
        xs: &Tensor,
        lengths: &Lengths,
        noise: [&Noise; 2],
    ) -> Result<(Tensor, Option<Tensor>)> {
        let read = |core: &Arc<dyn Core>, xs: &Tensor, noise: &Noise| -> Result<Tensor> {
            Ok(core.forward(xs, &core.zero_state(lengths.rows().len())?, noise)?.0)
        };
        let forward = read(&self.forward, xs, noise[0])?;
        let Some(backward) = &self.backward else { return Ok((forward, None)) };
        Ok((forward, Some(read(backward, &lengths.reversed(xs)?, noise[1])?)))
    }

    /// The same with its weights laid out for evaluation.
    pub(in crate::model) fn frozen(&self) -> Result<Self> {
        let frozen = |core: &Arc<dyn Core>| -> Result<Arc<dyn Core>> {
            Ok(core.frozen()?.unwrap_or_else(|| core.clone()))
        };
        Ok(Self {
            forward: frozen(&self.forward)?,
            backward: self.backward.as_ref().map(frozen).transpose()?,
        })
    }

    /// Multiplications a step.
    pub(in crate::model) fn cost(&self) -> u64 {
        self.forward.cost() + self.backward.as_ref().map_or(0, |core| core.cost())
    }
}
