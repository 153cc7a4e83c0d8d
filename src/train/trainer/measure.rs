//! The validation split and the test split, which a signal or the end of the time breaks off.

use super::Trainer;
use crate::config::TaskKind;
use crate::config::train::OnDivergence;
use crate::error::{Error, Result};
use crate::eval::Evaluation;
use crate::events::{self, Event, Measured};
use crate::model::Parameters;
use crate::train::divergence::Alarm;
use crate::train::limits::Stop;
use crate::train::recorder::Progress;
use crate::train::task::Task;

/// Of a rank whose validation failed for another reason than that it was asked to stop.
const NOT_STOPPED: u8 = 1;

/// Of a rank whose validation failed for another reason than a number that is not finite.
const NOT_BY_NUMBERS: u8 = 2;

/// What became of a validation.
pub(super) enum Validated {
    /// It was made.
    Measured(Box<Evaluation>),
    /// The run was asked to stop meanwhile.
    Stopped,
    /// It was not finite, and the run went back to the best weights.
    RolledBack,
}

impl<T: Task> Trainer<'_, T> {
    /// Why an evaluation was broken off.
    pub(super) fn interrupted(&self) -> Result<Stop> {
        Ok(self.stop()?.unwrap_or(Stop::TimeLimit))
    }

    /// The validation split.
    pub(super) fn validate(&mut self) -> Result<Validated> {
        let Self { task, stepper, recorder, signals, limits, clock, .. } = self;
        let progress = &mut |done, all| {
            recorder.show(&Progress::Evaluating("validating", done, all));
            signals.check()?;
            limits.check_time(clock.started)
        };
        let error = match task.validate(stepper.measured(), &**stepper.world(), progress) {
            Ok(valid) => {
                self.clock.validation = valid.seconds;
                return Ok(Validated::Measured(Box::new(valid)));
            }
            Err(error) => error,
        };
        // All ranks come here, some of them perhaps with other errors, and do the same.
        let is_not_finite = error.exit_code() == Error::NOT_FINITE;
        let own = (NOT_STOPPED * u8::from(!error.is_stop())) | (NOT_BY_NUMBERS * u8::from(!is_not_finite));
        let flags = self.world().any(own)?;
        if flags & NOT_STOPPED == 0 {
            Ok(Validated::Stopped)
        } else if flags & NOT_BY_NUMBERS == 0 {
            self.not_finite(error)
        } else {
            Err(self.save_after(error)?) // the steps before it are not lost
        }
    }

    /// Goes back to the best weights after a validation that was not finite, if the recipe says so and there are some; else the
    /// error that ends the run, which is saved then.
    fn not_finite(&mut self, error: Error) -> Result<Validated> {
        let step = self.position.step;
        let what = match &error {
            Error::NotFinite { what, .. } => format!("validation: {what}"),
            other => other.to_string(), // that it was so on another rank
        };
        let config = self.config();
        let may_roll_back = self.position.best.is_some() && self.rate.rollbacks() < config.max_rollbacks;
        match config.on_divergence {
            OnDivergence::Rollback if may_roll_back => {
                self.roll_back(&Alarm { what, has_stopped: false })?;
                Ok(Validated::RolledBack)
            }
            OnDivergence::Stop | OnDivergence::Warn
                if may_roll_back && matches!(error, Error::NotFinite { .. }) =>
            {
                let advice =
                    "with --resume, --set train.on_divergence=rollback goes back to the best weights";
                Err(Error::NotFinite { step, what: format!("{what}; {advice}") })
            }
            _ if matches!(error, Error::NotFinite { .. }) => Err(Error::NotFinite { step, what }),
            _ => Err(error),
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
