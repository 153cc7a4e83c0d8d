//! The windows of an epoch: one step after another, and what is heard of them, at once on the CPU, later from a GPU.

use super::Trainer;
use crate::error::{Error, Result};
use crate::train::step::StepReport;
use crate::train::stop::Stop;
use serde_json::json;
use std::ops::ControlFlow;
use std::time::Instant;

/// Steps between two `step` events of `metrics.jsonl`.
const STEP_EVENTS: u64 = 100;

impl Trainer<'_> {
    /// The rest of the epoch's windows.
    pub(super) fn train_epoch(&mut self) -> Result<ControlFlow<Stop>> {
        while self.position.window + self.pending() < self.windows() {
            if let Some(stop) = self.stop() {
                self.hear(true)?;
                return Ok(ControlFlow::Break(stop));
            }
            let start = Instant::now();
            self.advance()?;
            self.trained.seconds += start.elapsed().as_secs_f64();
            self.hear(false)?;
            if self.saved_at.elapsed().as_secs_f64() > 60.0 * self.session.recipe.train.save_minutes {
                self.hear(true)?;
                self.save()?;
            }
        }
        self.hear(true)?;
        Ok(ControlFlow::Continue(()))
    }

    /// Steps that were begun and not told of: `position` lacks them.
    pub(super) fn pending(&self) -> u64 {
        self.stepper.ledger.pending() as u64
    }

    /// The next window's step.
    fn advance(&mut self) -> Result<()> {
        let (window, step) = (self.position.window + self.pending(), self.position.step + self.pending());
        let rate = self.rate.at(self.position.epoch, step);
        let (lanes, device) = (&self.session.lanes, &self.session.device);
        let (inputs, targets) = lanes.window(&self.session.train.tokens, window as usize, device)?;
        match self.stepper.advance(&inputs, &targets, step, rate) {
            Err(Error::NotFinite { step, what }) => {
                self.hear(true)?; // those before it come first
                self.skip(step, what)
            }
            done => done,
        }
    }

    /// Takes in what steps did: those that are known, or with `wait` all.
    fn hear(&mut self, wait: bool) -> Result<()> {
        let start = Instant::now();
        let reports = self.stepper.reports(wait)?;
        self.trained.seconds += start.elapsed().as_secs_f64();
        for report in reports {
            match report {
                Ok(report) => self.count(&report)?,
                Err(Error::NotFinite { step, what }) => self.skip(step, what)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn count(&mut self, report: &StepReport) -> Result<()> {
        self.trained.tokens += report.tokens;
        let position = &mut self.position;
        position.window += 1;
        position.step += 1;
        position.tokens += report.tokens;
        position.epoch_sums.add(report);
        let nats = report.nats / report.tokens as f64;
        if position.step.is_multiple_of(STEP_EVENTS) {
            let (step, epoch) = (position.step, position.epoch + 1);
            let StepReport { rate, grad_norm, .. } = report;
            let event = json!({"event": "step", "step": step, "epoch": epoch, "train_nats_per_token": nats, "learning_rate": rate, "grad_norm": grad_norm});
            self.metrics.append(&event)?;
        }
        let moment = self.moment(nats);
        self.line.training(&moment, self.unit());
        Ok(())
    }
}
