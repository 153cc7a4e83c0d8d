//! The loop around the step: epochs, validation, the best model kept, the state saved so that any stop can be resumed.

mod report;
mod skip;
mod windows;

use super::progress::Line;
use super::saved::{self, Best, EpochSums, Position};
use super::schedule::Rate;
use super::session::Session;
use super::signals::Signals;
use super::step::Stepper;
use super::stop::{Limits, Outcome, Stop};
use crate::checkpoint;
use crate::config::Unit;
use crate::error::{Error, Result};
use crate::eval::{self, Evaluation};
use crate::metrics::Metrics;
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A run under way in a directory that it has locked.
pub struct Trainer<'a> {
    session: &'a Session,
    stepper: Stepper,
    rate: Rate,
    position: Position,
    out: PathBuf,
    metrics: Metrics,
    signals: Signals,
    limits: Limits,
    line: Line,
    started: Instant,
    seconds_before: f64,
    saved_at: Instant,
    has_state: bool,
    trained: Trained,
    valid_seconds: f64,
}

/// What this process trained, for its speed.
#[derive(Clone, Copy, Debug, Default)]
struct Trained {
    tokens: u64,
    seconds: f64,
}

impl Trained {
    fn rate(&self) -> f64 {
        self.tokens as f64 / self.seconds.max(1e-9)
    }
}

impl<'a> Trainer<'a> {
    /// At the first step, or where the training state in `out` left off.
    ///
    /// The caller holds the directory's lock.
    pub fn new(
        session: &'a Session,
        stepper: Stepper,
        out: &Path,
        resumed: Option<&saved::Resumed>,
        signals: Signals,
        limits: Limits,
    ) -> Result<Self> {
        let mut trainer = Self {
            rate: Rate::new(&session.recipe.train, session.total_steps()),
            session,
            stepper,
            position: Position::first(session),
            out: out.to_path_buf(),
            metrics: Metrics::open(out)?,
            signals,
            limits,
            line: Line::new(),
            started: Instant::now(),
            seconds_before: 0.0,
            saved_at: Instant::now(),
            has_state: resumed.is_some(),
            trained: Trained::default(),
            valid_seconds: 0.0,
        };
        match resumed {
            Some(resumed) => trainer.restore(resumed)?,
            None => trainer.metrics.clear()?, // of an attempt that ended before anything was saved
        }
        Ok(trainer)
    }

    fn restore(&mut self, resumed: &saved::Resumed) -> Result<()> {
        self.position = resumed.position.clone();
        resumed.restore(self.session, &mut self.stepper)?;
        self.rate.load(self.position.rate.clone());
        self.seconds_before = self.position.seconds;
        self.metrics.truncate_after(self.position.step, self.position.epoch)
    }

    /// Trains to the recipe's end or a limit; the state is saved either way.
    pub fn run(&mut self) -> Result<Outcome> {
        self.announce()?;
        let outcome = self.epochs();
        self.line.clear();
        match outcome? {
            ControlFlow::Continue(()) => Ok(Outcome::Finished),
            ControlFlow::Break(stop) => {
                self.save()?;
                self.publish_something()?;
                let event =
                    json!({"event": "stop", "step": self.position.step, "reason": format!("{stop:?}")});
                self.metrics.append(&event)?;
                Ok(Outcome::Stopped(stop))
            }
        }
    }

    fn epochs(&mut self) -> Result<ControlFlow<Stop>> {
        while !self.is_over() {
            if let ControlFlow::Break(stop) = self.train_epoch()? {
                return Ok(ControlFlow::Break(stop));
            }
            let Some(valid) = self.validate()? else {
                return Ok(ControlFlow::Break(self.stop().unwrap_or(Stop::TimeLimit)));
            };
            self.finish_epoch(&valid)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether the epochs are done, or patience with the validation split is at its end.
    fn is_over(&self) -> bool {
        let (position, train) = (&self.position, &self.session.recipe.train);
        let waited = position.best.as_ref().map_or(0, |best| position.epoch - best.epoch);
        position.epoch >= train.epochs || (train.patience > 0 && waited >= train.patience)
    }

    /// The validation split by lanes; `None` if the run was asked to stop meanwhile.
    fn validate(&mut self) -> Result<Option<Evaluation>> {
        let (session, config) = (self.session, &self.session.recipe.train);
        let model = self.stepper.model.freeze()?;
        let (line, signals) = (&mut self.line, &self.signals);
        let progress = &mut |done, all| {
            line.evaluating("validating", done, all);
            signals.check()
        };
        let split = session.split("valid", &session.valid);
        match eval::batched(&model, &split, config.batch_size, config.bptt_steps, progress) {
            Err(Error::Stopped { .. }) => Ok(None),
            Err(Error::NotFinite { what, .. }) => {
                Err(Error::NotFinite { step: self.position.step, what: format!("validation: {what}") })
            }
            Err(error) => Err(error),
            Ok(valid) => {
                self.valid_seconds = valid.seconds;
                Ok(Some(valid))
            }
        }
    }

    /// Keeps the model if it is the best, tells how the epoch went, and sets out for the next.
    fn finish_epoch(&mut self, valid: &Evaluation) -> Result<()> {
        if !self.has_state {
            self.save()?; // a model that is published belongs to a run that can be resumed
        }
        let epoch = self.position.epoch + 1;
        let better =
            self.position.best.as_ref().is_none_or(|best| valid.nats_per_token < best.valid_nats_per_token);
        if better {
            self.position.best = Some(Best { epoch, valid_nats_per_token: valid.nats_per_token });
            self.publish()?;
        }
        self.report_epoch(valid, better)?;
        self.rate.hear(self.position.epoch, valid.perplexity);
        self.position.epoch = epoch;
        self.position.window = 0;
        self.position.epoch_sums = EpochSums::default();
        let config = &self.session.recipe.train;
        if !config.carry_state {
            self.stepper.state = self.stepper.model.zero_state(config.batch_size)?;
        }
        self.save()
    }

    /// Why to stop before the next step, if there is a reason.
    fn stop(&self) -> Option<Stop> {
        if let Some(code) = self.signals.received() {
            return Some(Stop::Signal(code));
        }
        if self.limits.max_steps.is_some_and(|max| self.position.step + self.pending() >= max) {
            return Some(Stop::MaxSteps);
        }
        let over = |limit: Duration| self.started.elapsed() >= limit;
        self.limits.time.is_some_and(over).then_some(Stop::TimeLimit)
    }

    /// The weights now become the checkpoint that other commands load.
    fn publish(&mut self) -> Result<()> {
        self.check_weights()?;
        let files = saved::published_files(self.session, &self.stepper.parameters)?;
        checkpoint::publish(&self.out, &files)
    }

    /// A run that stops before its first validation still leaves something to look at.
    fn publish_something(&mut self) -> Result<()> {
        if self.position.best.is_none() { self.publish() } else { Ok(()) }
    }

    fn save(&mut self) -> Result<()> {
        self.check_weights()?;
        self.metrics.sync()?; // a state on the disk has its events there
        self.position.seconds = self.seconds();
        self.position.rate = self.rate.save();
        saved::save(&self.out, self.session, &self.stepper, &mut self.position)?;
        self.saved_at = Instant::now();
        self.has_state = true;
        Ok(())
    }

    /// A weight that is not finite never reaches the disk.
    fn check_weights(&self) -> Result<()> {
        for (name, var) in self.stepper.parameters.trained() {
            if !rhn_kernels::update::squared_norm(var, var, 0.0)?.is_finite() {
                let what = format!("weight {name} is not finite; the last saved state is kept");
                return Err(Error::NotFinite { step: self.position.step, what });
            }
        }
        Ok(())
    }

    fn windows(&self) -> u64 {
        self.session.lanes.window_count() as u64
    }

    fn unit(&self) -> Unit {
        self.session.tokenizer.unit()
    }

    /// Wall-clock seconds of the run, over all its processes.
    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }
}
