//! Adam (Kingma and Ba, 2015), and AdamW (Loshchilov and Hutter, 2019), whose weight decay is decoupled.
//!
//! m ← β₁ m + (1 − β₁) g     v ← β₂ v + (1 − β₂) g²     g = scale · (gradient + coupled decay · θ)
//! θ ← (1 − rate · decoupled decay) θ − rate · m̂ / (√v̂ + ε), m̂ and v̂ corrected by the number of the weight's updates: one without
//! a gradient has none

use super::rule::{DeviceNumbers, DeviceRule, Numbers, Rule, Weight};
use crate::config::TrainConfig;
use crate::error::Result;
use rhn_kernels::update::guard::{Check, DeviceAdam, DeviceGuard};
use rhn_kernels::update::{self, AdamStep, MomentsStep, finite};

pub(super) struct Adam {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    coupled_decay: f64,
    decoupled_decay: f64,
}

impl Adam {
    /// Adam, whose weight decay is part of the loss.
    pub(super) fn new(config: &TrainConfig) -> Self {
        let &TrainConfig { beta1, beta2, epsilon, weight_decay, .. } = config;
        Self { beta1, beta2, epsilon, coupled_decay: weight_decay, decoupled_decay: 0.0 }
    }

    /// AdamW.
    pub(super) fn decoupled(config: &TrainConfig) -> Self {
        Self { coupled_decay: 0.0, decoupled_decay: config.weight_decay, ..Self::new(config) }
    }

    fn moments_step(&self, scale: f64) -> MomentsStep {
        MomentsStep { scale, beta1: self.beta1, beta2: self.beta2, decay: self.coupled_decay }
    }

    fn adam_step(&self, numbers: Numbers) -> AdamStep {
        let correction = |beta: f64| 1.0 - beta.powf(numbers.update as f64);
        AdamStep {
            rate: numbers.rate / correction(self.beta1),
            root_scale: 1.0 / correction(self.beta2).sqrt(),
            epsilon: self.epsilon,
            keep: 1.0 - numbers.rate * self.decoupled_decay,
        }
    }
}

impl Rule for Adam {
    /// Both moments.
    fn memory(&self) -> usize {
        2
    }

    fn coupled_decay(&self) -> f64 {
        self.coupled_decay
    }

    fn counts_updates(&self) -> bool {
        true
    }

    fn is_finite(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<bool> {
        let moments_step = self.moments_step(numbers.scale);
        let step = self.adam_step(numbers);
        Ok(finite::adam(weight.var, weight.memory(), weight.gradient, moments_step, step)?)
    }

    fn apply(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<()> {
        let parameter = weight.var.as_detached_tensor();
        let moments_step = self.moments_step(numbers.scale);
        update::adam_moments(weight.memory(), weight.gradient, &parameter, moments_step)?;
        Ok(update::adam(weight.var, weight.memory(), self.adam_step(numbers))?)
    }

    fn on_device(&self) -> Option<&dyn DeviceRule> {
        Some(self)
    }
}

impl DeviceRule for Adam {
    fn check(&self, rate: f64, max_norm: f64) -> Check {
        let &Self { beta1, beta2, coupled_decay: decay, .. } = self;
        Check { rate, max_norm, decay, squares: true, beta1, beta2 }
    }

    fn apply(&self, guard: &dyn DeviceGuard, weight: &Weight<'_>, numbers: DeviceNumbers) -> Result<()> {
        let DeviceNumbers { rate, left_out } = numbers;
        let &Self { beta1, beta2, epsilon, coupled_decay: decay, decoupled_decay: decoupled } = self;
        let step = DeviceAdam { rate, beta1, beta2, epsilon, decay, decoupled, left_out };
        Ok(guard.adam(weight.var, weight.memory(), weight.gradient, &step)?)
    }
}
