//! What an embedding, a recurrent core and an output layer offer to the model: the traits behind which each kind hides.
//!
//! A kind's settings build its layer. `frozen` and `steps` have defaults, with which a layer of plain tensor operations
//! is used as it is for evaluation, a window at a time; a layer with kernels lays out its weights once and reads one
//! token after another without allocation.

use super::core::state::State;
use super::noise::{Noise, RecurrentNoise};
use super::output::{SoftTargets, of_window};
use super::stage::StageTrace;
use crate::error::{Error, Result};
use candle_core::Tensor;
use std::sync::Arc;

/// How far a vector that is computed from characters is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorStage {
    /// To what enters the core.
    Whole,
    /// To what enters the highway layers.
    BeforeHighway,
}

/// From tokens to vectors.
pub trait Embedding: Send + Sync {
    /// `(time, batch)` of u32 to `(time, batch, size)`; of images, `(time, batch, pixels)`.
    fn forward(&self, tokens: &Tensor) -> Result<Tensor>;

    /// The vectors of the whole vocabulary, `(vocabulary, size)`, without their history.
    fn table(&self) -> Result<Tensor>;

    /// The trained table, `(vocabulary, size)`, to which an output layer can be tied.
    fn tied(&self) -> Option<&Tensor> {
        None
    }

    /// The trained tables of its clusters, the most frequent words' first, if it has several.
    fn clusters(&self) -> Option<&[Tensor]> {
        None
    }

    /// Multiplications for a distinct token of a window; looking up a row takes none.
    fn cost(&self) -> u64 {
        0
    }

    /// Whether vectors are computed from characters.
    fn reads_characters(&self) -> bool {
        false
    }

    /// The vectors of words by their characters, `(words, length)` of u32, as [`Spelling::spell`] gives them, to `(words,
    /// size)`, without their history; where [`Embedding::reads_characters`] says so.
    ///
    /// [`Spelling::spell`]: super::spelling::Spelling::spell
    fn of_characters(&self, _characters: &Tensor, _stage: VectorStage) -> Result<Tensor> {
        Err(Error::config("this model's word vectors are not computed from characters"))
    }

    /// Whether words that the vocabulary lacks have vectors too, whatever they are made of.
    fn reads_any_string(&self) -> bool {
        false
    }

    /// The vectors of any words by their bytes, `(words, size)`, without their history; where
    /// [`Embedding::reads_any_string`] says so.
    fn spelled(&self, _words: &[&[u8]]) -> Result<Tensor> {
        Err(Error::config("this model reads the words of its vocabulary alone"))
    }

    /// What the highway layers do for the words `ids`, `(words)` of u32; `None` where there are none.
    fn trace(&self, _ids: &Tensor) -> Result<Option<StageTrace>> {
        Ok(None)
    }
}

/// What carries the state from token to token.
pub trait Core: Send + Sync {
    /// `(time, batch, input)` and the state that enters to `(time, batch, hidden)` and the state after the window.
    ///
    /// `noise` holds the masks inside the core. The history behind `state` is followed where it has one.
    fn forward(&self, xs: &Tensor, state: &State, noise: &Noise) -> Result<(Tensor, State)>;

    /// The state before the first token.
    fn zero_state(&self, batch: usize) -> Result<State>;

    /// Multiplications a token; biases, gates and masks are no products.
    fn cost(&self) -> u64;

    /// The same core with its weights laid out for evaluation; `None` if it is used as it is.
    fn frozen(&self) -> Result<Option<Arc<dyn Core>>> {
        Ok(None)
    }

    /// What happens within the time steps of a window, for each layer, and the state after it; nothing is dropped.
    /// `None` where a time step has no stage.
    fn trace(&self, _xs: &Tensor, _state: &State) -> Result<Option<(Vec<StageTrace>, State)>> {
        Ok(None)
    }

    /// The same core at batch 1, one token at a time from the zero state; `None` where only tensors can do it.
    fn steps(&self) -> Result<Option<Box<dyn Steps>>> {
        Ok(None)
    }
}

/// One layer of a [`Core`] whose layers see nothing of each other but their outputs.
pub trait Cell: Send + Sync {
    /// `(time, batch, input)` and the state that enters to `(time, batch, hidden)` and the state that leaves.
    ///
    /// `state` has [`Cell::parts`] tensors of `(batch, hidden)`, or as [`Cell::part_size`] says; the history behind them is followed.
    fn forward(
        &self,
        xs: &Tensor,
        state: &[Tensor],
        noise: RecurrentNoise<'_>,
    ) -> Result<(Tensor, Vec<Tensor>)>;

    /// How many tensors the state has.
    fn parts(&self) -> usize {
        1
    }

    /// Numbers of a batch row in part `part` of the state, for a layer that gives `outputs`.
    fn part_size(&self, _part: usize, outputs: usize) -> usize {
        outputs
    }

    /// Multiplications a token.
    fn cost(&self) -> u64;

    /// What happens within the time steps of a window, the rows in the order of `(time, batch)`; `None` where a time step
    /// has no stage.
    fn trace(&self, _xs: &Tensor, _state: &[Tensor]) -> Result<Option<StageTrace>> {
        Ok(None)
    }

    /// As [`Core::frozen`].
    fn frozen(&self) -> Result<Option<Arc<dyn Cell>>> {
        Ok(None)
    }

    /// As [`Core::steps`].
    fn steps(&self) -> Result<Option<Box<dyn Steps>>> {
        Ok(None)
    }
}

/// A layer, or a whole core, that goes one token at a time at batch 1; nothing is allocated for a token.
pub trait Steps: Send {
    /// `(input)` to `(hidden)`.
    fn step(&mut self, xs: &[f32]) -> &[f32];

    /// The state, `(1, hidden)` a part.
    fn state(&self) -> Result<State>;

    /// Goes on from `state`, as [`Steps::state`] gives it.
    fn set_state(&mut self, state: &State) -> Result<()>;
}

/// From what the core gives to a distribution over the vocabulary.
pub trait Output: Send + Sync {
    /// Nats of each target, `(time, batch)`, for `ys` of `(time, batch, hidden)`; `noise` holds what is random in it.
    fn nats(&self, ys: &Tensor, targets: &Tensor, noise: &Noise) -> Result<Tensor>;

    /// Numbers whose softmax is the distribution: `(time, batch, hidden)` to `(time, batch, vocabulary)`; `noise` as for
    /// [`Output::nats`].
    fn logits(&self, ys: &Tensor, noise: &Noise) -> Result<Tensor>;

    /// The squares of the differences of the logits of `one` and `other`, whose gradients are recorded:
    /// `(time, batch, hidden)` twice to `(time, batch, vocabulary)`, with what is random in the layer for each.
    fn squared_distance(&self, [one, other]: [&Tensor; 2], noise: [&Noise; 2]) -> Result<Tensor> {
        Ok((self.logits(one, noise[0])? - self.logits(other, noise[1])?)?.sqr()?)
    }

    /// The KL of the distribution at `temperature` from a teacher's at each position, `(time, batch)`, for `ys` of
    /// `(time, batch, hidden)`; its gradient is recorded, nothing of the teacher's is. All logits of the window are held at a
    /// time unless a kind makes them in blocks.
    fn divergence(
        &self,
        ys: &Tensor,
        soft: Arc<dyn SoftTargets>,
        noise: &Noise,
        temperature: f64,
    ) -> Result<Tensor> {
        of_window(&self.logits(ys, noise)?, &*soft, temperature)
    }

    /// How many words there are.
    fn vocabulary(&self) -> usize;

    /// Multiplications a token.
    fn cost(&self) -> u64;

    /// The same layer with its weights laid out for evaluation; `None` if it is used as it is.
    fn frozen(&self) -> Result<Option<Arc<dyn Output>>> {
        Ok(None)
    }

    /// The same layer for one token at a time; `None` where only tensors can do it.
    fn rows(&self) -> Result<Option<Box<dyn OutputRows>>> {
        Ok(None)
    }
}

/// An output layer for one token at a time; nothing is allocated for a token.
pub trait OutputRows: Send {
    /// `(hidden)` to the logits, `(vocabulary)`.
    fn logits(&mut self, ys: &[f32], logits: &mut Vec<f64>);
}

/// Multiplications in the products of a forward pass; products are all but a few per cent of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// For every token: the recurrent layers and the output.
    pub per_token: u64,
    /// For every distinct token of a window: vectors that are computed from characters.
    pub per_distinct: u64,
}
