//! What teachers say of one window.

use super::Teachers;
use crate::error::Result;
use crate::model::output::log_softmax::log_softmax;
use crate::model::output::{Soft, SoftTargets};
use crate::model::{Noise, State};
use crate::task::next_token::Window;
use candle_core::{D, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// The most logits of a teacher that are made at a time: 128 MiB of f32, as of the student.
const LOGITS: usize = 1 << 25;

/// What teachers say of a window.
pub(in crate::task) struct Lesson {
    /// Their states after it.
    pub(in crate::task) state: State,
    /// −ln of what they give each target without a temperature, `(time, batch)`.
    pub(in crate::task) nats: Tensor,
    /// Their distributions.
    pub(in crate::task) soft: Arc<dyn SoftTargets>,
}

/// What the teachers' output layers see of a window, from which their distributions are made.
struct Seen {
    teachers: Teachers,
    /// Of each teacher, `(time, passes · batch, hidden)`.
    ys: Vec<Tensor>,
    noise: Vec<Noise>,
    vocabulary: usize,
    batch: usize,
    at_once: usize,
    /// The distributions of the whole window, if they are made at once.
    whole: Option<Soft>,
}

impl Lesson {
    pub(super) fn new(
        teachers: Teachers,
        window: &Window,
        ys: Vec<Tensor>,
        noise: Vec<Noise>,
        state: State,
    ) -> Result<Self> {
        let (time, batch) = window.targets.dims2()?;
        let vocabulary = teachers.vocabulary();
        let at_once = (LOGITS / (batch * teachers.passes() * vocabulary).max(1)).clamp(1, time.max(1));
        let mut seen = Seen { teachers, ys, noise, vocabulary, batch, at_once, whole: None };
        let mut nats = Vec::new();
        for start in (0..time).step_by(at_once) {
            let steps = start..time.min(start + at_once);
            let targets = window.targets.narrow(0, steps.start, steps.len())?.flatten_all()?.unsqueeze(1)?;
            let (log_q, soft) = seen.distributions(&steps)?;
            nats.push(log_q.gather(&targets, D::Minus1)?.squeeze(1)?.neg()?);
            seen.whole = (steps.len() == time).then_some(soft);
        }
        let nats = Tensor::cat(&nats, 0)?.reshape((time, batch))?;
        Ok(Self { state, nats, soft: Arc::new(seen) })
    }
}

impl Seen {
    /// ln q without a temperature, `(rows, vocabulary)`, and what the student learns from, after these steps.
    fn distributions(&self, steps: &Range<usize>) -> Result<(Tensor, Soft)> {
        let temperature = self.teachers.settings().temperature;
        let plain = self.log_probabilities(steps, 1.0)?;
        let at_temperature = match temperature {
            1.0 => plain.clone(),
            _ => self.log_probabilities(steps, temperature)?,
        };
        Ok((plain, self.soft(at_temperature)?))
    }

    fn soft(&self, log_q: Tensor) -> Result<Soft> {
        match self.teachers.settings().told_apart(self.vocabulary) {
            None => Ok(Soft::All(log_q)),
            Some(count) => Soft::top(&log_q, count),
        }
    }

    /// ln of the mean of all teachers' probabilities.
    fn log_probabilities(&self, steps: &Range<usize>, temperature: f64) -> Result<Tensor> {
        let count = self.teachers.each().len();
        if count == 1 {
            return self.of_teacher(0, steps, temperature);
        }
        let weights = &self.teachers.settings().weights;
        let sum: f64 = weights.iter().sum();
        let weighted = |index: usize| -> Result<Tensor> {
            let share = weights.get(index).map_or(1.0 / count as f64, |weight| weight / sum);
            Ok((self.of_teacher(index, steps, temperature)? + share.ln())?)
        };
        (1..count).try_fold(weighted(0)?, |mean, index| log_add_exp(&mean, &weighted(index)?))
    }

    /// ln of the mean of a teacher's probabilities over its passes.
    fn of_teacher(&self, index: usize, steps: &Range<usize>, temperature: f64) -> Result<Tensor> {
        let teacher = &self.teachers.each()[index];
        let ys = self.ys[index].narrow(0, steps.start, steps.len())?.contiguous()?;
        let logits = teacher.model.logits_of(&ys, &self.noise[index].of_steps(steps)?)?;
        let log_q = log_softmax(&(logits / temperature)?)?;
        let passes = self.teachers.passes();
        let apart = log_q.reshape((steps.len(), passes, self.batch, self.vocabulary))?;
        let pass = |index: usize| -> Result<Tensor> { Ok(apart.narrow(1, index, 1)?.contiguous()?) };
        let sum = (1..passes).try_fold(pass(0)?, |sum, index| log_add_exp(&sum, &pass(index)?))?;
        let mean = if passes == 1 { sum } else { (sum - (passes as f64).ln())? };
        Ok(mean.reshape((steps.len() * self.batch, self.vocabulary))?)
    }
}

/// ln(eᵃ + eᵇ), safe from overflow.
fn log_add_exp(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let highest = a.maximum(b)?;
    Ok(((a - &highest)?.exp()? + (b - &highest)?.exp()?)?.log()?.add(&highest)?)
}

impl SoftTargets for Seen {
    fn at(&self, steps: Range<usize>) -> Result<Soft> {
        match &self.whole {
            Some(whole) if steps.len() == self.ys[0].dim(0)? => Ok(whole.clone()),
            _ => self.soft(self.log_probabilities(&steps, self.teachers.settings().temperature)?),
        }
    }

    fn steps_at_once(&self) -> usize {
        self.at_once
    }
}
