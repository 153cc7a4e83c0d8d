//! The training step, on one page.

use super::ledger::{Ledger, Step};
use super::optimizer::{Gradients, Optimizer};
use crate::error::{Error, Result};
use crate::model::{LanguageModel, NoiseSource, Parameters, State};
use candle_core::Tensor;

/// Everything that a step changes.
pub struct Stepper {
    /// The model, on `parameters`.
    pub model: LanguageModel,
    /// The weights.
    pub parameters: Parameters,
    /// The update rule and what it remembers.
    pub optimizer: Optimizer,
    /// What the lanes carry from window to window.
    pub state: State,
    /// Draws each window's masks.
    pub masks: NoiseSource,
    /// Which steps may change something, and what they did.
    pub ledger: Ledger,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Counted from 0.
    pub step: u64,
    /// The learning rate.
    pub rate: f64,
    /// The window's tokens.
    pub tokens: u64,
    /// −ln p summed over them.
    pub nats: f64,
    /// The gradient's global norm before it was clipped.
    pub grad_norm: f64,
}

impl Stepper {
    /// One truncated-BPTT update; the state carries over, its history does not. What it did is among
    /// [`Stepper::reports`], then or later.
    ///
    /// `inputs` and `targets`: `(time, batch)` of u32. `step` counts from 0 and names the window's masks.
    ///
    /// # Errors
    /// If it is known that loss, gradient's norm or update are not finite; all is then as it was.
    pub fn advance(&mut self, inputs: &Tensor, targets: &Tensor, step: u64, rate: f64) -> Result<()> {
        let (_, lanes) = inputs.dims2()?;
        let asked = Step { step, rate, tokens: targets.elem_count() as u64 };
        let masks = self.masks.draw(inputs, step, step)?;
        let (nats, state) = self.model.nats(inputs, targets, &self.state, &masks)?;
        self.ledger.hear(&asked, &nats)?;
        let loss = (nats.sum_all()? / lanes as f64)?; // summed over the steps, averaged over the lanes
        let grads = self.gradients(&loss)?;
        let verdict = self.ledger.judge(asked, &nats, &self.optimizer, &self.parameters, &grads)?;
        self.optimizer.update(&self.parameters, &grads, rate, verdict)?;
        self.state = verdict.carry(&state, &self.state)?;
        Ok(())
    }

    /// What steps did, in their order: of those that are known, or with `wait` of all that were not told yet.
    pub fn reports(&mut self, wait: bool) -> Result<Vec<Result<StepReport>>> {
        let (reports, updates) = self.ledger.reports(wait)?;
        if let Some(updates) = updates {
            self.optimizer.set_updates(updates);
        }
        Ok(reports)
    }

    /// As [`Stepper::advance`]; waits for what it did.
    ///
    /// # Errors
    /// If loss, gradient's norm or update are not finite; all is then as it was.
    pub fn step(&mut self, inputs: &Tensor, targets: &Tensor, step: u64, rate: f64) -> Result<StepReport> {
        self.advance(inputs, targets, step, rate)?;
        let last = self.reports(true)?.pop();
        last.unwrap_or_else(|| {
            let what = "no step is made after one that was not finite".into();
            Err(Error::NotFinite { step: step + 1, what })
        })
    }

    fn gradients(&self, loss: &Tensor) -> Result<Gradients> {
        let mut store = loss.backward()?;
        let named = self.parameters.trained();
        Ok(named.filter_map(|(name, var)| Some((name.to_string(), store.remove(var)?))).collect())
    }
}
