//! What a run does when its loss has left its course: stop, warn, or go back to the best weights.

use super::Trainer;
use crate::config::train::OnDivergence;
use crate::error::{Error, Result};
use crate::events::{self, Event};
use crate::train::divergence::Alarm;
use crate::train::state::Position;
use crate::train::task::Task;

impl<T: Task> Trainer<'_, T> {
    /// What guessing uniformly costs, in nats; of a loss that is not to be compared with it, more than
    /// any loss.
    pub(super) fn uniform(&self) -> f64 {
        if !self.config().loss.is_in_nats_of_a_word() {
            return f64::INFINITY;
        }
        self.task.uniform_nats()
    }

    /// Does what the recipe says if a divergence was found; all steps so far must have been reported.
    pub(super) fn return_to_course(&mut self) -> Result<()> {
        let Some(alarm) = self.position.course.alarm.clone() else { return Ok(()) };
        let config = self.config();
        match config.on_divergence {
            OnDivergence::Stop => {
                let advice = match &self.position.best {
                    Some(_) => {
                        "--set train.on_divergence=rollback goes back to the best weights at half the rate, and "
                    }
                    None => "",
                };
                self.stop_diverged(&alarm, "", advice)
            }
            OnDivergence::Warn => {
                self.position.course.alarm = None;
                self.record_divergence(&alarm, OnDivergence::Warn)
            }
            OnDivergence::Rollback if self.position.best.is_none() => {
                let why = match self.lost_best {
                    true => "; the best weights are lost, so there are none to go back to",
                    false => {
                        "; no validation came before, so there are no weights to go back to: in another run \
                         train.evaluate_steps makes some"
                    }
                };
                self.stop_diverged(&alarm, why, "")
            }
            OnDivergence::Rollback if self.rate.rollbacks() >= config.max_rollbacks => {
                let made = self.rate.rollbacks();
                let what = format!("; train.max_rollbacks is {} and {made} were made", config.max_rollbacks);
                self.stop_diverged(&alarm, &what, "--set train.max_rollbacks=N allows more, and ")
            }
            OnDivergence::Rollback => self.roll_back(&alarm),
        }
    }

    /// Saves the run as it is, with the alarm, and gives the error that ends it. `advice` is what `--resume` may be given
    /// beside going on as it is.
    fn stop_diverged(&mut self, alarm: &Alarm, why: &str, advice: &str) -> Result<()> {
        if !alarm.has_stopped {
            self.record_divergence(alarm, OnDivergence::Stop)?;
            self.position.course.alarm = Some(Alarm { has_stopped: true, ..alarm.clone() });
            self.save()?;
            if self.position.best.is_none() && !self.lost_best {
                self.publish(None)?; // so that the run can be named, looked at and resumed by its directory
            }
        }
        let published = match &self.position.best {
            None if self.lost_best => "the best model is lost".into(),
            None => "the published model is the one that diverged: no validation came before".into(),
            Some(best) => format!("the published model is the best, of epoch {}", best.epoch),
        };
        let rate = self.config().learning_rate;
        let what = format!(
            "{}{why}. The run is saved, and {published}. A lower train.learning_rate (it is {rate}) or \
             train.max_grad_norm, or a longer warm-up, may keep another run on its course; with --resume, \
             {advice}--set train.on_divergence=warn goes on as it is",
            alarm.what
        );
        Err(Error::Diverged { step: self.position.step, what })
    }

    /// Goes on from the best weights with half the rate; the optimizer and the state begin anew, the steps count on.
    pub(super) fn roll_back(&mut self, alarm: &Alarm) -> Result<()> {
        self.world().any(0)?; // all ranks: the best weights may just now have been written by rank 0
        let weights = self.recorder.best_weights()?;
        let Some(weights) = weights else {
            return self.stop_diverged(alarm, "; the best weights are not kept", "");
        };
        self.stepper.parameters.restore(&weights)?;
        self.stepper.update.restart(self.position.skipped_steps)?;
        let learned = self.position.best.as_ref().and_then(|best| best.learned.clone());
        self.stepper.average.restart(learned.as_ref().map(|learned| &learned.averaging));
        self.stepper.reset_state()?;
        let Position { step, .. } = self.position;
        let epoch = self.position.epoch_of_last_step();
        self.rate.roll_back(epoch, step, learned.as_ref().map(|learned| &learned.rate));
        self.position.course.alarm = None;
        self.position.course.restart();
        self.record_divergence(alarm, OnDivergence::Rollback)
    }

    fn record_divergence(&mut self, alarm: &Alarm, action: OnDivergence) -> Result<()> {
        let position = &mut self.position;
        position.course.recorded_step = position.step;
        let divergence = events::Divergence {
            step: position.step,
            epoch: if position.window > 0 { position.epoch + 1 } else { position.epoch },
            reason: alarm.what.clone(),
            action: action.as_str().into(),
            rollbacks: self.rate.rollbacks(),
        };
        self.record(&Event::Divergence(divergence))
    }
}
