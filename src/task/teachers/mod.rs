//! The models that a student learns from: they read its windows with states of their own, and nothing of them changes.
//!
//! ```text
//! q = Σ_i w_i mean over passes of softmax(z_i / τ)          w_i sum to 1; z_i the logits of teacher i
//! ```
//!
//! Without `teacher_mc` nothing is dropped in a teacher. With it, each of its passes has masks of its own, drawn for the
//! step at the rates of the teacher's own recipe, and a state of its own; single recurrent weights are not dropped, as in
//! `rhn eval --mc`.

mod lesson;
mod open;

pub(super) use lesson::Lesson;

use super::next_token::Window;
use crate::config::DistillConfig;
use crate::error::{Error, Result};
use crate::model::dropout::DropoutConfig;
use crate::model::{FrozenModel, Noise, NoiseSource, State};
use candle_core::Tensor;
use std::sync::Arc;

/// The models that a student learns from.
#[derive(Clone)]
pub struct Teachers {
    each: Arc<Vec<Teacher>>,
    /// Layers of the state of each.
    layers: Vec<usize>,
    settings: DistillConfig,
}

/// A model that a student learns from.
pub struct Teacher {
    /// Its checkpoint, as the recipe names it.
    pub name: String,
    /// The SHA-256 of its weights.
    pub sha256: String,
    /// The model.
    pub model: FrozenModel,
    /// The dropout that it was trained with.
    pub dropout: DropoutConfig,
}

impl Teachers {
    /// The `models`, which predict the same words.
    ///
    /// # Errors
    /// If there is none, their vocabularies have other sizes, or `settings` has weights for another number of them.
    pub fn new(models: Vec<Teacher>, settings: DistillConfig) -> Result<Self> {
        let Some(first) = models.first() else { return Err(Error::config("there is no teacher")) };
        let size = |teacher: &Teacher| teacher.model.config().vocab_size;
        if let Some(other) = models.iter().find(|teacher| size(teacher) != size(first)) {
            return Err(Error::config(format!(
                "teachers {} and {} predict {} and {} tokens, wanted the same",
                first.name,
                other.name,
                size(first),
                size(other)
            )));
        }
        let weights = settings.weights.len();
        if weights > 0 && weights != models.len() {
            return Err(Error::config(format!("{weights} weights for {} teachers", models.len())));
        }
        let layers = models.iter().map(|teacher| Ok(teacher.model.zero_state(1)?.0.len()));
        Ok(Self { layers: layers.collect::<Result<_>>()?, each: Arc::new(models), settings })
    }

    /// How many tokens they predict.
    fn vocabulary(&self) -> usize {
        self.each[0].model.config().vocab_size
    }

    /// Each of them.
    pub fn each(&self) -> &[Teacher] {
        &self.each
    }

    /// How they are learned from.
    pub fn settings(&self) -> &DistillConfig {
        &self.settings
    }

    /// Batch rows that a teacher reads for each of the student's.
    fn passes(&self) -> usize {
        self.settings.teacher_mc.max(1)
    }

    /// Layers of the states of all of them.
    pub(super) fn layers(&self) -> usize {
        self.layers.iter().sum()
    }

    /// The states of all teachers before the first of `rows` batch rows' tokens.
    pub(super) fn zero_state(&self, rows: usize) -> Result<State> {
        let states = self.each.iter().map(|teacher| teacher.model.zero_state(rows * self.passes()));
        states.reduce(|all, next| Ok(all?.followed_by(next?))).unwrap_or(Ok(State(Vec::new())))
    }

    /// The masks of step `step` for the window of `inputs`, for each teacher.
    pub(super) fn noise(&self, inputs: &Tensor, seed: u64, step: u64) -> Result<Vec<Noise>> {
        if self.settings.teacher_mc == 0 {
            return Ok(vec![Noise::none(); self.each.len()]);
        }
        let inputs = self.repeated(inputs)?;
        let masks = |(index, teacher): (usize, &Teacher)| {
            let dropout = DropoutConfig { recurrent_weights: 0.0, ..teacher.dropout.clone() };
            let model = &teacher.model;
            let source =
                NoiseSource::new(model.config(), &dropout, seed, model.precision().dtype(), model.device());
            source.of_teacher(index).of_passes().draw(&inputs, step, step)
        };
        self.each.iter().enumerate().map(masks).collect()
    }

    /// `(time, batch)` to `(time, passes · batch)`.
    fn repeated(&self, column: &Tensor) -> Result<Tensor> {
        if self.passes() == 1 {
            return Ok(column.clone());
        }
        Ok(column.repeat((1, self.passes()))?)
    }

    /// What they say of a window, from the states `carried`; `noise` as [`Teachers::noise`] gives it.
    pub(super) fn read(&self, window: &Window, carried: &State, noise: &[Noise]) -> Result<Lesson> {
        let inputs = self.repeated(&window.inputs)?;
        let mut rest = carried.clone();
        let mut state = State(Vec::new());
        let mut seen = Vec::with_capacity(self.each.len());
        for ((teacher, &layers), noise) in self.each.iter().zip(&self.layers).zip(noise) {
            let (own, others) = rest.split_at(layers);
            let (ys, after) = teacher.model.hidden(&inputs, &own, noise)?;
            seen.push(ys);
            state = state.followed_by(after);
            rest = others;
        }
        Lesson::new(self.clone(), window, seen, noise.to_vec(), state)
    }
}
