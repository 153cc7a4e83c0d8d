//! The training state that `--resume` goes on from.

use super::averaging::AveragingMemory;
use super::divergence::Course;
use super::schedule::RateMemory;
use super::step::Stepper;
use super::task::{Files, Task};
use super::update::{Saved, StepReport};
use crate::error::{Error, Result};
use crate::model::State;
use crate::parallel::reduce::Layout;
use crate::storage::{OPTIMIZER, STATE, save_tensors, to_json};
use candle_core::Tensor;
use rhn_kernels::update::squared_norm;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The version of `state.json` that this program writes, and the newest that it reads.
pub(super) const FORMAT: u64 = 1;

/// The position of a run; with the tensors beside it, everything that outlives a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    format: u64,
    /// Epochs that are done.
    pub epoch: u64,
    /// Windows of the current epoch that are done.
    pub window: u64,
    /// Steps of the run that are done.
    pub step: u64,
    /// Steps among them whose update was skipped: a number was not finite.
    #[serde(default)]
    pub skipped_steps: u64,
    /// Tokens that were trained on.
    pub tokens: u64,
    /// Sums over the current epoch.
    pub epoch_sums: EpochSums,
    /// The step after which the validation split was last measured within an epoch.
    #[serde(default)]
    pub evaluated_step: u64,
    /// The course of the losses, to know a divergence.
    #[serde(default)]
    pub course: Course,
    /// What the schedule remembers.
    pub rate: RateMemory,
    /// What the mean of the weights remembers.
    #[serde(default)]
    pub averaging: AveragingMemory,
    /// The best validation so far.
    pub best: Option<Best>,
    /// Wall-clock seconds so far.
    pub seconds: f64,
    /// Updates that the optimizer has made.
    pub(super) optimizer_updates: u64,
    /// Of weights that had no gradient in some of them, in how many, where the optimizer counts them. Earlier versions counted all
    /// updates for each weight.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) left_out: BTreeMap<String, u64>,
    /// How the gradients of several ranks are summed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ranks: Option<Layout>,
    /// The SHA-256 of the corpus's text.
    pub corpus_sha256: String,
    /// Tokens of training, validation and test split: one text can be split in several ways.
    pub(super) split_tokens: [u64; 3],
    /// The numbers that the run computes with.
    pub(super) precision: String,
    /// Keys of the recipe whose values were taken from a checkpoint or made to fit the text.
    #[serde(default)]
    pub taken: Vec<String>,
    /// The SHA-256 of each teacher's weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) teachers: Vec<String>,
}

/// Sums over the steps of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochSums {
    /// −ln p over the tokens.
    pub nats: f64,
    /// Tokens.
    pub tokens: u64,
    /// Gradient norms over the steps.
    pub grad_norms: f64,
    /// Steps.
    pub steps: u64,
    /// −ln p over the tokens by the teacher; 0 without one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub teacher_nats: f64,
}

fn is_zero(nats: &f64) -> bool {
    *nats == 0.0
}

impl EpochSums {
    /// Adds a step.
    pub fn add(&mut self, report: &StepReport) {
        self.nats += report.nats;
        self.tokens += report.tokens;
        self.grad_norms += report.grad_norm;
        self.steps += 1;
        self.teacher_nats += report.teacher_nats.unwrap_or(0.0);
    }
}

/// The least loss on the validation split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The epoch at whose end, or within which, it was measured; counted from 1.
    pub epoch: u64,
    /// The steps that the run had made; earlier versions, which measured at the end of epochs alone, did not keep them.
    #[serde(default)]
    pub step: Option<u64>,
    /// By the `batched` protocol.
    pub valid_nats_per_token: f64,
    /// Of n-best lists: what decided instead, the word errors to expect of a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_error_rate: Option<f64>,
    /// Whether it was measured before the weight of the KL had come to its last value: any later one replaces it, and it
    /// ends no run.
    #[serde(default, skip_serializing_if = "is_false")]
    pub provisional: bool,
    /// Epochs since then whose validation could not replace it, because the weight of the KL was on its way again.
    #[serde(default)]
    pub passed_over: u64,
    /// What the validations up to this one had taught the schedule and the mean of the weights: a run that goes back to these
    /// weights goes back to it. Earlier versions did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) learned: Option<Learned>,
}

/// What is learned from validations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Learned {
    pub(super) rate: RateMemory,
    pub(super) averaging: AveragingMemory,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Best {
    /// What decided, as [`crate::eval::Evaluation::decides`].
    pub fn decides(&self) -> f64 {
        self.expected_error_rate.unwrap_or(self.valid_nats_per_token)
    }

    /// Whether a validation replaces it by which so much decides.
    pub(super) fn is_beaten_by(&self, decides: f64, provisional: bool) -> bool {
        match (self.provisional, provisional) {
            (true, false) => true,
            (false, true) => false,
            _ => decides < self.decides(),
        }
    }

    /// How many epochs have passed since, of `epochs`, as `train.patience` counts them.
    pub fn waited(&self, epochs: u64) -> u64 {
        if self.provisional { 0 } else { epochs.saturating_sub(self.epoch + self.passed_over) } // it may be of this epoch
    }
}

impl Position {
    /// The epoch that the last step was of, counted from 0.
    pub fn epoch_of_last_step(&self) -> u64 {
        if self.window > 0 { self.epoch } else { self.epoch.saturating_sub(1) }
    }

    /// Before the first step of a run.
    pub fn first(task: &impl Task) -> Self {
        Self {
            format: FORMAT,
            epoch: 0,
            window: 0,
            step: 0,
            skipped_steps: 0,
            tokens: 0,
            epoch_sums: EpochSums::default(),
            evaluated_step: 0,
            course: Course::default(),
            rate: RateMemory::default(),
            averaging: AveragingMemory::default(),
            best: None,
            seconds: 0.0,
            optimizer_updates: 0,
            left_out: BTreeMap::new(),
            ranks: None,
            corpus_sha256: task.data().sha256.into(),
            split_tokens: task.data().tokens,
            precision: task.precision().as_str().into(),
            taken: task.taken().to_vec(),
            teachers: task.teachers(),
        }
    }
}

/// The files of the training state: all that is published, and what only a resumed run needs; `carried` is the state of
/// all batch rows.
///
/// # Errors
/// If something remembered is not finite: what would be refused when it is read does not replace what would not.
pub fn files<T: Task>(
    task: &T,
    stepper: &mut Stepper<T::Objective>,
    carried: &State,
    position: &mut Position,
) -> Result<Files> {
    if stepper.world().size() > 1 {
        position.ranks = Some(stepper.reducer().layout().clone());
    }
    let Saved { updates, left_out, tensors: mut remembered } = stepper.update.save();
    position.optimizer_updates = updates;
    position.left_out = left_out;
    let (averaging, mean) = stepper.average.save()?;
    position.averaging = averaging;
    remembered.extend(mean);
    remembered.extend(carried.save().into_iter().map(|(name, tensor)| (name, tensor.detach())));
    check_finite(Path::new(OPTIMIZER), &remembered).map_err(|error| {
        let what = format!("{error}; the last saved state is kept");
        Error::NotFinite { step: position.step, what }
    })?;
    let mut files = task.files(&stepper.parameters)?;
    files.push((OPTIMIZER, save_tensors(&remembered)?));
    files.push((STATE, to_json(position)));
    Ok(files)
}

/// Refuses a tensor that is not finite; `path` is for the message.
pub(super) fn check_finite(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    for (name, tensor) in tensors {
        if !squared_norm(tensor, tensor, 0.0)?.is_finite() {
            return Err(Error::checkpoint(path, format!("tensor {name:?} is not finite")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Best;

    /// A cyclical schedule of the KL's weight ends no run on its way up: its validations there could not be the best.
    #[test]
    fn patience_waits_for_epochs_that_could_have_been_better() {
        let best = Best {
            epoch: 5,
            step: None,
            valid_nats_per_token: 1.0,
            expected_error_rate: None,
            provisional: false,
            passed_over: 0,
            learned: None,
        };
        assert_eq!((best.waited(5), best.waited(9)), (0, 4));
        assert_eq!(Best { passed_over: 3, ..best.clone() }.waited(9), 1);
        assert_eq!(Best { provisional: true, ..best }.waited(9), 0);
    }
}
