//! The validation split and the test split, which a signal or the end of the time breaks off.

use super::Trainer;
use crate::config::TaskKind;
use crate::error::{Error, Result};
use crate::eval::Evaluation;
use crate::events::{self, Event, Measured};
use crate::model::Parameters;
use crate::train::limits::Stop;
use crate::train::recorder::Progress;
use crate::train::task::Task;

impl<T: Task> Trainer<'_, T> {
    /// Why an evaluation was broken off.
    pub(super) fn interrupted(&self) -> Result<Stop> {
        Ok(self.stop()?.unwrap_or(Stop::TimeLimit))
    }

    /// The validation split; `None` if the run was asked to stop meanwhile.
    pub(super) fn validate(&mut self) -> Result<Option<Evaluation>> {
        let Self { task, stepper, recorder, signals, limits, clock, .. } = self;
        let progress = &mut |done, all| {
            recorder.show(&Progress::Evaluating("validating", done, all));
            signals.check()?;
            limits.check_time(clock.started)
        };
        match task.validate(stepper.measured(), &**stepper.world(), progress) {
            Err(error) if error.is_stop() => Ok(None),
            Err(Error::NotFinite { what, .. }) => {
                Err(Error::NotFinite { step: self.position.step, what: format!("validation: {what}") })
            }
            Err(error) if error.exit_code() == Error::NOT_FINITE => Err(error), // of another rank; saved when the run ends
            // All ranks come here, and the steps before it are not lost.
            Err(error) => Err(self.save_after(error)?),
            Ok(valid) => {
                self.clock.validation = valid.seconds;
                Ok(Some(valid))
            }
        }
    }

    /// Measures the test split with the weights of the best validation, and records the run's result.
    pub fn test(&mut self, best: &Parameters) -> Result<events::Outcome> {
        let Self { task, recorder, signals, limits, clock, .. } = self;
        let progress = &mut |done, all| {
            recorder.show(&Progress::Evaluating("testing", done, all));
            signals.check()?;
            limits.check_time(clock.started)
        };
        let test = task.test(best, progress)?;
        self.recorder.show(&Progress::Over);
        let best = self.position.best.as_ref();
        let outcome = events::Outcome {
            corpus: self.task.data().corpus.into(),
            split: test.as_ref().map(|test| test.split.clone()),
            test: test.as_ref().map(Measured::from).unwrap_or_default(),
            best_epoch: best.map(|best| best.epoch),
            best_step: best.and_then(|best| best.step),
            valid_nats_per_token: best.map(|best| best.valid_nats_per_token),
            valid_perplexity: best
                .filter(|_| !matches!(self.task.recipe().task.kind, TaskKind::Classify | TaskKind::Images))
                .map(|best| best.valid_nats_per_token.exp()),
            steps: self.position.step,
            skipped_steps: self.position.skipped_steps,
            parameters: self.stepper.parameters.count(),
            seconds_total: Some(self.clock.seconds()),
            step: None,
        };
        self.recorder.record(&Event::Result(Box::new(outcome.clone())))?;
        Ok(outcome)
    }
}
