//! The loss of the next token, and what a recipe may add to it.
//!
//! ```text
//! loss = Σ_t mean over batch rows of −ln p(w_{t+1})                                 a window of `bptt_steps`
//!      + bptt_steps (ar mean(h̃²) + tar mean((h_{t+1} − h_t)²))                      h̃ = h ⊙ m_o, of the last layer
//! ```
//!
//! Papers write the mean over tokens and what is added to it; this is `bptt_steps` times that, so that coefficients mean
//! what they do there, and a published rate and norm to clip at are divided and multiplied by `bptt_steps`.
//!
//! A window of T' steps, where that is another number, has the loss `bptt_steps` · (mean over tokens) too, and the rate
//! times T' / `bptt_steps`, as the authors' code has it. Unclipped SGD then goes along T' · (mean over tokens): the sum over
//! the window's steps at the schedule's rate. Clipping and Adam, which the length of a gradient matters to, get one of a
//! size that does not depend on T'.
//!
//! With a sampled `train.loss` the −ln p of a token is that of words drawn for the step (`model/sampler.rs`).
//!
//! With `train.loss.kind = "distill"` (Hinton et al., 2015), q being the teachers' distribution (`task/teachers`):
//!
//! ```text
//! (1 − α) loss + α τ² Σ_t mean over batch rows of KL(q_τ ‖ p_τ)
//! ```
//!
//! Two passes (Żołna et al., 2018; `'` is the second pass, l are logits):
//!
//! ```text
//! fraternal   ½ (loss + loss') + bptt_steps κ mean((l − l')²)
//! eld, pi     loss + bptt_steps κ mean((l − l')²)
//! ```

use super::teachers::{Lesson, Teachers};
use crate::config::TrainConfig;
use crate::config::train::{ActivationConfig, FraternalConfig, FraternalVariant};
use crate::error::Result;
use crate::model::sampler::CandidateSource;
use crate::model::{LanguageModel, Noise, NoiseSource, Outputs, Pieces, State};
use crate::parallel::rows::Rows;
use crate::train::objective::{Loss, Objective, Sums};
use candle_core::Tensor;
use rhn_kernels::rng::Rng;
use std::sync::Arc;

/// A window of every batch row, and what follows each of its tokens: `(time, batch)` of u32.
pub struct Window {
    /// The tokens that are read.
    pub inputs: Tensor,
    /// The tokens that are predicted.
    pub targets: Tensor,
}

/// What is random in a window's step.
#[derive(Clone, Debug, Default)]
pub struct WindowNoise {
    /// The dropout masks.
    pub first: Noise,
    /// Those of the second pass, where there is one.
    pub second: Noise,
    /// The masks of each teacher, where there are some.
    pub teachers: Vec<Noise>,
    /// Whether the window begins with the zero state.
    pub resets_state: bool,
}

/// The loss of the next token, summed over a window's steps and averaged over its batch rows, with what the recipe adds.
pub struct NextToken {
    /// The model, whose gradients are recorded.
    pub model: LanguageModel,
    /// Draws each window's dropout masks.
    pub noise: NoiseSource,
    rows: usize,
    bptt_steps: f64,
    activation: ActivationConfig,
    fraternal: Option<FraternalConfig>,
    state_reset: f64,
    /// The line end at which the state goes back to zero, if it does.
    line_end: Option<u32>,
    /// Draws the words that a step's loss is over, if not the whole vocabulary.
    candidates: Option<CandidateSource>,
    /// From whom it learns beside the text.
    teachers: Option<Teachers>,
    seed: u64,
}

impl NextToken {
    /// The objective of a recipe.
    pub fn new(model: LanguageModel, config: &TrainConfig) -> Self {
        let dtype = model.precision().dtype();
        let noise = NoiseSource::new(model.config(), &config.dropout, config.seed, dtype, model.device());
        let candidates = CandidateSource::new(&config.loss, model.config().vocab_size, config.seed);
        Self {
            model,
            noise,
            rows: config.batch_size,
            bptt_steps: config.bptt_steps as f64,
            activation: config.activation,
            fraternal: config.fraternal,
            state_reset: config.state_reset,
            line_end: None,
            candidates,
            teachers: None,
            seed: config.seed,
        }
    }

    /// The same objective, taught by `teachers`.
    pub fn taught_by(self, teachers: Option<Teachers>) -> Self {
        Self { teachers, ..self }
    }

    /// The same objective, for which a sentence begins with the zero state wherever this token is read.
    pub fn resetting_at(self, line_end: Option<u32>) -> Self {
        Self { line_end, ..self }
    }

    /// The loss of the targets, with what each of them costs, `(time, batch)`.
    fn cross_entropy(&self, batch: &Window, outputs: &Outputs, noise: &Noise) -> Result<(Tensor, Tensor)> {
        let nats = self.model.nats_of(&outputs.seen, &batch.targets, noise, 1.0)?;
        Ok((self.summed(&nats)?, nats))
    }

    /// What counts of a window whose tokens have these losses, `(time, batch)`.
    fn summed(&self, losses: &Tensor) -> Result<Tensor> {
        let (steps, rows) = losses.dims2()?;
        let summed = (losses.sum_all()? / rows as f64)?;
        let steps = steps as f64;
        Ok(if steps == self.bptt_steps { summed } else { (summed * (self.bptt_steps / steps))? })
    }

    /// What a lesson makes of the loss of the text.
    fn taught(
        &self,
        teachers: &Teachers,
        lesson: Lesson,
        noise: &Noise,
        (outputs, loss): (&Outputs, Tensor),
    ) -> Result<Tensor> {
        let alpha = teachers.settings().alpha;
        if alpha == 0.0 {
            return Ok(loss);
        }
        let temperature = teachers.settings().temperature;
        let divergence = self.model.divergence(&outputs.seen, lesson.soft, noise, temperature)?;
        let divergence = (self.summed(&divergence)? * (alpha * temperature * temperature))?;
        Ok(if alpha == 1.0 { divergence } else { ((loss * (1.0 - alpha))? + divergence)? })
    }

    /// What activation regularization adds, the temporal one too; `None` if nothing.
    fn penalty(&self, outputs: &Outputs) -> Result<Option<Tensor>> {
        let ActivationConfig { ar, tar } = self.activation;
        let steps = outputs.given.dim(0)?;
        let mut terms = Vec::new();
        if ar > 0.0 {
            terms.push((ar, outputs.seen.clone()));
        }
        if tar > 0.0 && steps > 1 {
            let later = outputs.given.narrow(0, 1, steps - 1)?;
            terms.push((tar, (later - outputs.given.narrow(0, 0, steps - 1)?)?));
        }
        let terms = terms.iter().map(|(factor, term)| Ok((term.sqr()?.mean_all()? * *factor)?));
        let sum = terms.reduce(|sum: Result<Tensor>, term| Ok((sum? + term?)?));
        sum.map(|sum| Ok((sum? * self.bptt_steps)?)).transpose()
    }

    /// What a second pass makes of the loss of the first.
    fn fraternal(
        &self,
        settings: FraternalConfig,
        batch: &Window,
        (pieces, carried): (Option<&Pieces>, &State),
        noise: &WindowNoise,
        (outputs, loss): (&Outputs, Tensor),
    ) -> Result<Tensor> {
        let second = self.model.outputs(&batch.inputs, pieces, carried, &noise.second)?;
        let loss = match settings.variant {
            FraternalVariant::Eld | FraternalVariant::Pi => loss,
            FraternalVariant::Fraternal => {
                ((loss + self.cross_entropy(batch, &second, &noise.second)?.0)? * 0.5)?
            }
        };
        let seen = [&outputs.seen, &second.seen];
        let distance = self.model.squared_distance(seen, [&noise.first, &noise.second])?.mean_all()?;
        Ok((loss + (distance * (settings.kappa * self.bptt_steps))?)?)
    }
}

impl NextToken {
    /// The state before the first token of so many batch rows.
    fn zero_state_of(&self, rows: usize) -> Result<State> {
        let own = self.model.zero_state(rows)?;
        Ok(match &self.teachers {
            None => own,
            Some(teachers) => own.followed_by(teachers.zero_state(rows)?),
        })
    }
}

impl Objective for NextToken {
    type Batch = Window;
    type Noise = WindowNoise;

    /// The layers of the model's own state, then those of each teacher's.
    fn zero_state(&self) -> Result<State> {
        self.zero_state_of(self.rows)
    }

    fn noise(&self, batch: &Window, step: u64) -> Result<WindowNoise> {
        let reset = || Rng::keyed(self.seed, "train.state_reset", step).uniform() < self.state_reset;
        Ok(WindowNoise {
            first: Noise {
                candidates: self.candidates.as_ref().map(|source| Arc::new(source.draw(step))),
                ..self.noise.draw(&batch.inputs, step, step)?
            },
            second: match self.fraternal.map(|settings| settings.variant) {
                None | Some(FraternalVariant::Eld) => Noise::none(),
                Some(FraternalVariant::Fraternal | FraternalVariant::Pi) => {
                    self.noise.second_pass().draw(&batch.inputs, step, step)?
                }
            },
            teachers: match &self.teachers {
                None => Vec::new(),
                Some(teachers) => teachers.noise(&batch.inputs, self.seed, step)?,
            },
            resets_state: self.state_reset > 0.0 && reset(),
        })
    }

    /// T' / `bptt_steps`: 1 but for windows of drawn lengths.
    fn rate_scale(&self, batch: &Window) -> f64 {
        batch.inputs.dims()[0] as f64 / self.bptt_steps
    }

    fn rows(&self, batch: &Window, noise: WindowNoise, rows: Rows) -> Result<(Window, WindowNoise)> {
        let window =
            Window { inputs: rows.of_tensor(&batch.inputs, 1)?, targets: rows.of_tensor(&batch.targets, 1)? };
        let noise = WindowNoise {
            first: rows.of_noise(noise.first)?,
            second: rows.of_noise(noise.second)?,
            teachers: noise.teachers.into_iter().map(|noise| rows.of_noise(noise)).collect::<Result<_>>()?,
            resets_state: noise.resets_state,
        };
        Ok((window, noise))
    }

    /// What is reported is of the first pass alone, without what is added; its state is carried.
    fn loss(&self, batch: &Window, carried: &State, noise: &WindowNoise) -> Result<Loss> {
        let rows = batch.inputs.dim(1)?;
        let zero = if noise.resets_state { Some(self.zero_state_of(rows)?) } else { None };
        let carried = zero.as_ref().unwrap_or(carried);
        let (own, theirs) = match &self.teachers {
            None => (carried.clone(), State(Vec::new())),
            Some(teachers) => carried.split_at(carried.0.len() - teachers.layers()),
        };
        let carried = &own;
        let pieces = self.line_end.map(|line_end| Pieces::of(&batch.inputs, line_end)).transpose()?;
        let first = self.model.outputs(&batch.inputs, pieces.as_ref(), carried, &noise.first)?;
        let (mut objective, nats) = self.cross_entropy(batch, &first, &noise.first)?;
        if let Some(settings) = self.fraternal {
            objective =
                self.fraternal(settings, batch, (pieces.as_ref(), carried), noise, (&first, objective))?;
        }
        let mut after = first.state.clone();
        let mut teacher = None;
        if let Some(teachers) = &self.teachers {
            let lesson = teachers.read(batch, &theirs, &noise.teachers)?;
            after = after.followed_by(lesson.state.clone());
            teacher = Some(lesson.nats.clone());
            objective = self.taught(teachers, lesson, &noise.first, (&first, objective))?;
        }
        if let Some(penalty) = self.penalty(&first)? {
            objective = (objective + penalty)?;
        }
        let sums = Sums { nats: nats.detach(), tokens: batch.targets.elem_count() as u64 };
        Ok(Loss { objective, sums, carried: after, teacher })
    }
}
