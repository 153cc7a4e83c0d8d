//! What teachers say of one window.

use super::Teachers;
use crate::error::Result;
use crate::model::output::{Soft, SoftTargets};
use crate::model::{Noise, State};
use crate::task::next_token::Window;
use candle_core::{D, Tensor};
use rhn_kernels::softmax::log_softmax;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The most logits of a teacher that are made at a time, 32 MiB of f32: the comparison holds four or five tensors of the
/// size.
const LOGITS: usize = 1 << 23;

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
    /// The distributions of the whole window, if they are made at once, until they are asked for.
    whole: Mutex<Option<Soft>>,
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
        let mut seen = Seen { teachers, ys, noise, vocabulary, batch, at_once, whole: Mutex::new(None) };
        let mut nats = Vec::new();
        for start in (0..time).step_by(at_once) {
            let steps = start..time.min(start + at_once);
            let targets = window.targets.narrow(0, steps.start, steps.len())?.flatten_all()?.unsqueeze(1)?;
            let plain = seen.log_probabilities(&steps, 1.0)?;
            nats.push(plain.gather(&targets, D::Minus1)?.squeeze(1)?.neg()?);
            if steps.len() == time {
                let log_q = match seen.teachers.settings().temperature {
                    1.0 => plain,
                    temperature => seen.log_probabilities(&steps, temperature)?,
                };
                seen.whole = Mutex::new(Some(seen.soft(log_q)?));
            }
        }
        let nats = Tensor::cat(&nats, 0)?.reshape((time, batch))?;
        Ok(Self { state, nats, soft: Arc::new(seen) })
    }
}

impl Seen {
    /// What the student learns from.
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
        let log_q = log_softmax(&logits.flatten(0, 1)?, temperature)?;
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
        let is_whole = steps.len() == self.ys[0].dim(0)?;
        let kept =
            if is_whole { self.whole.lock().unwrap_or_else(PoisonError::into_inner).take() } else { None };
        match kept {
            Some(whole) => Ok(whole),
            None => self.soft(self.log_probabilities(&steps, self.teachers.settings().temperature)?),
        }
    }

    fn steps_at_once(&self) -> usize {
        self.at_once
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DistillConfig;
    use crate::model::dropout::DropoutConfig;
    use crate::predict::tiny;
    use crate::task::teachers::Teacher;
    use candle_core::Device;

    fn teacher(scale: f64) -> Teacher {
        let dropout = DropoutConfig { input: 0.3, hidden: 0.2, output: 0.4, ..DropoutConfig::default() };
        Teacher { name: String::new(), sha256: String::new(), model: tiny::drawn(5, scale), dropout }
    }

    fn window() -> Window {
        let ids = |shift: u32| {
            let ids: Vec<u32> = (0..8).map(|id| (id * id + shift) % 5).collect();
            Tensor::from_vec(ids, (4, 2), &Device::Cpu).unwrap()
        };
        Window { inputs: ids(0), targets: ids(2) }
    }

    fn lesson(settings: DistillConfig, step: u64) -> Lesson {
        let teachers = Teachers::new(vec![teacher(1.0), teacher(2.0)], settings).unwrap();
        let noise = teachers.noise(&window().inputs, 7, step).unwrap();
        teachers.read(&window(), &teachers.zero_state(2).unwrap(), &noise).unwrap()
    }

    fn log_q(lesson: &Lesson, steps: Range<usize>) -> Vec<Vec<f64>> {
        let Soft::All(log_q) = lesson.soft.at(steps).unwrap() else { panic!("all words") };
        log_q.to_vec2().unwrap()
    }

    #[test]
    fn distributions_are_the_same_whole_and_in_parts_and_each_sums_to_one() {
        let settings =
            DistillConfig { temperature: 1.7, teacher_mc: 3, weights: vec![1.0, 4.0], ..Default::default() };
        let lesson = lesson(settings, 0);
        let whole = log_q(&lesson, 0..4); // which was kept
        let parts = [0..1, 1..3, 3..4].map(|steps| log_q(&lesson, steps)).concat();
        let again = log_q(&lesson, 0..4);
        assert_eq!(whole.len(), 8);
        for other in [parts, again] {
            for (found, wanted) in other.concat().iter().zip(whole.concat()) {
                assert!((found - wanted).abs() < 1e-12);
            }
        }
        assert!(
            whole.iter().all(|row| (row.iter().map(|log_q| log_q.exp()).sum::<f64>() - 1.0).abs() < 1e-12)
        );
    }

    #[test]
    fn passes_have_masks_of_the_step_and_of_the_seed_and_without_them_nothing_is_dropped() {
        let of =
            |teacher_mc, step| log_q(&lesson(DistillConfig { teacher_mc, ..Default::default() }, step), 0..4);
        assert_eq!(of(2, 5), of(2, 5));
        assert_ne!(of(2, 5), of(2, 6));
        assert_eq!(of(0, 5), of(0, 6));
        assert_ne!(of(0, 5), of(2, 5));
    }

    #[test]
    fn teachers_of_other_vocabularies_and_none_are_refused() {
        let other = Teacher { model: tiny::drawn(6, 1.0), ..teacher(1.0) };
        let settings = DistillConfig::default;
        let error = |teachers, settings| Teachers::new(teachers, settings).err().unwrap().to_string();
        assert!(
            error(vec![teacher(1.0), other], settings()).contains("predict 5 and 6 tokens, wanted the same")
        );
        assert!(error(vec![], settings()).contains("no teacher"));
        let weights = DistillConfig { weights: vec![1.0; 3], ..settings() };
        assert!(error(vec![teacher(1.0)], weights).contains("3 weights for 1 teachers"));
    }
}
