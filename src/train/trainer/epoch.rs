//! The windows of an epoch: one step after another, and what each of them did, once it is known.

use super::Trainer;
use super::measure::Validated;
use crate::config::train::{LossConfig, OnNonFinite};
use crate::error::{Error, Result};
use crate::events::{self, Event};
use crate::readable::counted;
use crate::train::divergence::WINDOW;
use crate::train::limits::Stop;
use crate::train::recorder::{Progress, Training};
use crate::train::task::Task;
use crate::train::update::StepReport;
use std::time::Instant;

/// Steps between two `step` events.
const STEP_EVENTS: u64 = 100;

impl<T: Task> Trainer<'_, T> {
    /// The rest of the epoch's windows, or the reason to stop among them.
    pub(super) fn train_epoch(&mut self) -> Result<Option<Stop>> {
        while self.position.window + self.pending() < self.windows() {
            if let Some(stop) = self.evaluate()? {
                return Ok(Some(stop));
            }
            if let Some(stop) = self.stop()? {
                self.observe(true)?;
                return Ok(Some(stop));
            }
            self.advance()?;
            self.observe(self.is_mark())?;
            self.return_to_course()?;
            if self.is_save_due()? {
                self.observe(true)?;
                self.save()?;
            }
        }
        self.observe(true)?;
        Ok(None)
    }

    /// Whether something depends on the steps so far, so that all of them must have been reported.
    fn is_mark(&self) -> bool {
        let step = self.position.step + self.pending();
        let every = self.config().evaluate_steps;
        step.is_multiple_of(WINDOW) || (every > 0 && step.is_multiple_of(every))
    }

    /// Measures the validation split within an epoch if `train.evaluate_steps` asks for it now, and publishes the model
    /// if it is the best. Gives the reason to stop if one came meanwhile; the resumed run then measures again.
    fn evaluate(&mut self) -> Result<Option<Stop>> {
        let every = self.config().evaluate_steps;
        let position = &self.position;
        let is_done = position.window == 0 || position.evaluated_step == position.step;
        if every == 0 || is_done || self.pending() > 0 || !position.step.is_multiple_of(every) {
            return Ok(None);
        }
        match self.validate()? {
            Validated::Measured(valid) => {
                let best = self.keep_if_best(&valid, self.position.epoch + 1)?;
                let row = self.row(&valid, best)?;
                self.record(&Event::Evaluation(row))?;
            }
            Validated::Stopped => return self.interrupted().map(Some),
            Validated::RolledBack => {}
        }
        self.position.evaluated_step = self.position.step;
        self.save()?;
        Ok(None)
    }

    /// Measures and publishes the weights that the run goes on with, in place of a best model that was lost. Gives the reason to
    /// stop if one came meanwhile.
    pub(super) fn replace_lost_best(&mut self) -> Result<Option<Stop>> {
        if !self.lost_best {
            return Ok(None);
        }
        self.save()?; // that it is lost is known from now on, whatever happens next
        // There are no other weights to go back to.
        let Validated::Measured(valid) = self.validate()? else { return self.interrupted().map(Some) };
        let epoch = if self.position.window > 0 { self.position.epoch + 1 } else { self.position.epoch };
        let best = self.keep_if_best(&valid, epoch)?;
        let row = events::Epoch { epoch, ..self.row(&valid, best)? };
        self.record(&Event::Evaluation(row))?;
        self.position.evaluated_step = self.position.step;
        self.save()?;
        Ok(None)
    }

    /// Steps that were made and not reported: `position` lacks them.
    pub(super) fn pending(&self) -> u64 {
        self.stepper.update.pending() as u64
    }

    /// The next window's step.
    fn advance(&mut self) -> Result<()> {
        let window = self.position.window + self.pending();
        let step = self.position.step + self.pending();
        let epoch = self.position.epoch;
        let rate = self.rate.at(epoch, step);
        let Self { task, stepper, clock, tuner, .. } = self;
        let start = Instant::now();
        let done = clock.train(|| match task.batch(epoch, window as usize) {
            Ok(batch) => stepper.advance(&batch, step, rate),
            Err(error) => stepper.fail(error),
        });
        if let Some(tuner) = tuner {
            tuner.observe(start.elapsed().as_secs_f64());
        }
        match done {
            Err(Error::NotFinite { step, what }) => {
                self.observe(true)?; // the steps before it come first
                self.skip(step, what)
            }
            done => done,
        }
    }

    /// Counts what steps did: those that are known, or with `wait` all.
    pub(super) fn observe(&mut self, wait: bool) -> Result<()> {
        let Self { stepper, clock, .. } = self;
        for report in clock.train(|| stepper.reports(wait))? {
            match report {
                Ok(report) => self.count(&report)?,
                Err(Error::NotFinite { step, what }) => self.skip(step, what)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn count(&mut self, report: &StepReport) -> Result<()> {
        self.clock.tokens += report.tokens;
        self.clock.windows += 1;
        let uniform = self.uniform();
        let position = &mut self.position;
        position.window += 1;
        position.step += 1;
        position.tokens += report.tokens;
        position.epoch_sums.add(report);
        position.course.observe_step(report, uniform);
        position.course.end_window(position.step, uniform);
        let nats = report.nats / report.tokens as f64;
        if position.step.is_multiple_of(STEP_EVENTS) {
            let event = events::Step {
                step: position.step,
                epoch: position.epoch + 1,
                train_nats_per_token: Some(nats),
                learning_rate: Some(report.rate),
                grad_norm: Some(report.grad_norm),
            };
            self.record(&Event::Step(event))?;
        }
        let progress = Progress::Training(self.progress(nats));
        self.recorder.show(&progress);
        Ok(())
    }

    /// Counts a step that changed nothing because a number was not finite, if the recipe allows one more.
    fn skip(&mut self, step: u64, what: String) -> Result<()> {
        let config = self.config();
        let skipped = self.position.skipped_steps;
        match config.on_non_finite {
            OnNonFinite::Stop => return Err(Error::NotFinite { step, what }),
            OnNonFinite::Skip if skipped >= config.max_skipped_steps => {
                let skipped = counted(skipped, "step");
                let what = format!("{what}; {skipped} skipped before, which is train.max_skipped_steps");
                return Err(Error::NotFinite { step, what });
            }
            OnNonFinite::Skip => {}
        }
        let uniform = self.uniform();
        let position = &mut self.position;
        position.window += 1;
        position.step += 1;
        position.skipped_steps += 1;
        position.course.end_window(position.step, uniform);
        let event = events::Skip {
            step,
            epoch: position.epoch + 1,
            skipped_steps: position.skipped_steps,
            reason: what,
        };
        self.record(&Event::Skip(event))
    }

    fn progress(&self, nats: f64) -> Training {
        let config = self.config();
        let speed = self.clock.tokens_per_second().unwrap_or(0.0);
        let windows = self.windows();
        let window_seconds = self.clock.window_seconds();
        let epoch_left = (windows - self.position.window) as f64 * window_seconds;
        let epochs_left = (config.epochs - self.position.epoch - 1) as f64;
        let validation = self.clock.validation;
        Training {
            epoch: self.position.epoch + 1,
            epochs: config.epochs,
            window: self.position.window,
            windows,
            nats,
            loss: if config.loss.is_sampled() { config.loss.as_str() } else { LossConfig::Exact {}.as_str() },
            tokens_per_second: speed,
            epoch_left,
            run_left: epoch_left + validation + epochs_left * (windows as f64 * window_seconds + validation),
        }
    }
}
