//! Stochastic gradient descent with a velocity, as `torch.optim.SGD` has it.
//!
//! ```text
//! v ← momentum · v + g          θ ← θ − rate · v          Nesterov: θ ← θ − rate · (g + momentum · v)
//! ```
//!
//! It has no kernels for a GPU, where it is applied from the host.

use super::rule::{Numbers, Rule, Weight};
use crate::config::TrainConfig;
use crate::error::Result;
use rhn_kernels::update::{self, VelocityStep, finite};

pub(super) struct Velocity {
    decay: f64,
    momentum: f64,
    nesterov: bool,
}

impl Velocity {
    pub(super) fn new(config: &TrainConfig) -> Self {
        Self { decay: config.weight_decay, momentum: config.momentum, nesterov: config.nesterov }
    }

    fn step(&self, Numbers { rate, scale, .. }: Numbers) -> VelocityStep {
        VelocityStep { rate, scale, decay: self.decay, momentum: self.momentum, nesterov: self.nesterov }
    }
}

impl Rule for Velocity {
    fn memory(&self) -> usize {
        1
    }

    fn coupled_decay(&self) -> f64 {
        self.decay
    }

    fn is_finite(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<bool> {
        Ok(finite::velocity(weight.var, weight.memory(), weight.gradient, self.step(numbers))?)
    }

    fn apply(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<()> {
        Ok(update::velocity(weight.var, weight.memory(), weight.gradient, self.step(numbers))?)
    }
}
