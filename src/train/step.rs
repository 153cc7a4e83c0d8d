//! The training step, on one page.

use super::optimizer::{Gradients, Optimizer};
use crate::error::{Error, Result};
use crate::model::{LanguageModel, MaskSource, Parameters, State};
use candle_core::{DType, Tensor};

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
    pub masks: MaskSource,
    /// The gradient's global norm is cut to this; 0 leaves it.
    pub max_grad_norm: f64,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// −ln p summed over the window's tokens.
    pub nats: f64,
    /// The window's tokens.
    pub tokens: u64,
    /// The gradient's global norm before it was clipped.
    pub grad_norm: f64,
}

impl Stepper {
    /// One truncated-BPTT update; the state carries over, its history does not.
    ///
    /// `inputs` and `targets`: `(time, batch)` of u32. `step` counts from 0 and names the window's masks.
    ///
    /// # Errors
    /// If the loss, the gradient's norm or the update is not finite; all is then as it was.
    pub fn step(&mut self, inputs: &Tensor, targets: &Tensor, step: u64, rate: f64) -> Result<StepReport> {
        let (_, lanes) = inputs.dims2()?;
        let masks = self.masks.draw(inputs, step, step)?;
        let (nats, state) = self.model.nats(inputs, targets, &self.state, &masks)?;
        let total = finite(step, "the loss", nats.to_dtype(DType::F64)?.sum_all()?.to_scalar()?)?;
        let loss = (nats.sum_all()? / lanes as f64)?; // summed over the steps, averaged over the lanes
        let grads = self.gradients(&loss)?;
        let grad_norm = self.optimizer.grad_norm(&self.parameters, &grads)?;
        let grad_norm = finite(step, "the gradient's norm", grad_norm)?;
        let scale = self.clip(grad_norm);
        if let Some(name) = self.optimizer.spoils(&self.parameters, &grads, rate, scale)? {
            return Err(not_finite(step, format!("the update of {name} is not finite")));
        }
        self.optimizer.update(&self.parameters, &grads, rate, scale)?;
        self.state = state.detach();
        Ok(StepReport { nats: total, tokens: targets.elem_count() as u64, grad_norm })
    }

    fn gradients(&self, loss: &Tensor) -> Result<Gradients> {
        let mut store = loss.backward()?;
        let named = self.parameters.trained();
        Ok(named.filter_map(|(name, var)| Some((name.to_string(), store.remove(var)?))).collect())
    }

    fn clip(&self, grad_norm: f64) -> f64 {
        let clips = self.max_grad_norm > 0.0 && grad_norm > self.max_grad_norm;
        if clips { self.max_grad_norm / grad_norm } else { 1.0 }
    }
}

fn finite(step: u64, what: &str, value: f64) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(not_finite(step, format!("{what} is {value}"))) }
}

fn not_finite(step: u64, what: String) -> Error {
    let advice = "the update was not applied; a lower train.learning_rate or train.max_grad_norm may help";
    Error::NotFinite { step: step + 1, what: format!("{what}; {advice}") }
}
