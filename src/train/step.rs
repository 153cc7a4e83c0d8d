//! The training step, on one page.

use super::averaging::Average;
use super::objective::Objective;
use super::update::{Step, StepReport, Update};
use super::watched::Watched;
use crate::error::Result;
use crate::model::{Parameters, State};
use crate::parallel::world::{World, sum_gradients};
use candle_core::Tensor;

/// Everything that a step reads and changes.
pub struct Stepper<O> {
    /// What is minimized.
    pub objective: O,
    /// The weights.
    pub parameters: Parameters,
    /// The update rule and what it remembers.
    pub update: Update,
    /// The mean of the weights.
    pub average: Average,
    /// The state that the batch rows carry from window to window.
    pub carried: State,
    /// What teachers cost on steps that were not reported yet.
    pub watched: Watched,
    /// The ranks that train together.
    pub world: Box<dyn World>,
}

impl<O: Objective> Stepper<O> {
    /// One update by truncated back-propagation; the state carries over, its history does not. What the step did is
    /// among [`Stepper::reports`], then or later.
    ///
    /// `step` counts from 0 and names the batch's noise; `rate` is the schedule's, which the batch may scale.
    ///
    /// # Errors
    /// If it is known that loss, gradient's norm or update are not finite; all is then as it was.
    pub fn advance(&mut self, batch: &O::Batch, step: u64, rate: f64) -> Result<()> {
        let noise = self.objective.noise(batch, step)?;
        let rate = rate * self.objective.rate_scale(batch);
        let loss = self.objective.loss(batch, &self.carried, &noise)?;
        let gradients = self.parameters.gradients_as_they_are(&loss.objective)?;
        let gradients = sum_gradients(&*self.world, &self.parameters, gradients)?;
        let sums = loss.sums.over(&*self.world)?;
        let mut teacher: Vec<Tensor> = loss.teacher.into_iter().collect();
        self.world.sum(&mut teacher)?;
        let applied = self.update.step(&self.parameters, gradients, &sums, Step { step, rate })?;
        teacher.into_iter().for_each(|nats| self.watched.keep(step, nats));
        self.carried = applied.choose(&loss.carried, &self.carried)?;
        self.average.add(&self.parameters)
    }

    /// The weights that the run is measured and published by.
    pub fn measured(&self) -> &Parameters {
        self.average.weights(&self.parameters)
    }

    /// What steps did, in their order: those that are known, or with `wait` all that were not reported yet.
    pub fn reports(&mut self, wait: bool) -> Result<Vec<Result<StepReport>>> {
        let mut reports = self.update.reports(wait)?;
        for report in reports.iter_mut().flatten() {
            report.teacher_nats = self.watched.take(report.step)?;
        }
        Ok(reports)
    }

    /// As [`Stepper::advance`], and waits for what the step did.
    ///
    /// # Errors
    /// If loss, gradient's norm or update are not finite; all is then as it was. After a step that halted the run,
    /// the error is that step's.
    pub fn step(&mut self, batch: &O::Batch, step: u64, rate: f64) -> Result<StepReport> {
        self.advance(batch, step, rate)?;
        let last = self.reports(true)?.pop();
        last.unwrap_or_else(|| Err(self.update.halted()))
    }
}
