//! What training minimizes: the seam between the step and a task.
//!
//! An objective takes two files: its implementation in `task/`, and the arm of the recipe that asks for it.

use crate::error::Result;
use crate::model::State;
use crate::parallel::rows::Rows;
use candle_core::Tensor;

/// A loss of the trained weights on a batch.
pub trait Objective {
    /// What one step is trained on.
    type Batch;

    /// What is random in a step.
    type Noise;

    /// The state before the first batch, and at the beginning of an epoch that does not carry it over.
    fn zero_state(&self) -> Result<State>;

    /// Everything random of step `step`, counted from 0.
    fn noise(&self, batch: &Self::Batch, step: u64) -> Result<Self::Noise>;

    /// What the schedule's rate is multiplied by for a batch.
    fn rate_scale(&self, _batch: &Self::Batch) -> f64 {
        1.0
    }

    /// Some rows of a batch, and what is random in them.
    fn rows(&self, batch: &Self::Batch, noise: Self::Noise, rows: Rows)
    -> Result<(Self::Batch, Self::Noise)>;

    /// The loss of a batch, a mean over its rows, which go on from the state `carried`.
    fn loss(&self, batch: &Self::Batch, carried: &State, noise: &Self::Noise) -> Result<Loss>;
}

/// The loss of a batch.
pub struct Loss {
    /// The number whose gradient is taken, a scalar.
    pub objective: Tensor,
    /// What is reported of the batch.
    pub sums: Sums,
    /// The state after the batch.
    pub carried: State,
    /// −ln p of each of its tokens by a model that it was taught by, if there is one: it is watched, and nothing depends on it.
    pub teacher: Option<Tensor>,
}

/// What is reported of a batch.
pub struct Sums {
    /// −ln p of each of its tokens; they are summed where they are read, which may be on a GPU.
    pub nats: Tensor,
    /// How many tokens were predicted.
    pub tokens: u64,
}
