//! Plain stochastic gradient descent: θ ← θ − rate · (scale · (g + decay · θ)).

use super::rule::{DeviceRule, Numbers, Rule, Weight};
use crate::config::TrainConfig;
use crate::error::Result;
use rhn_kernels::update::guard::{Check, DeviceGuard};
use rhn_kernels::update::{self, finite};

pub(super) struct Sgd {
    decay: f64,
}

impl Sgd {
    pub(super) fn new(config: &TrainConfig) -> Self {
        Self { decay: config.weight_decay }
    }
}

impl Rule for Sgd {
    fn coupled_decay(&self) -> f64 {
        self.decay
    }

    fn is_finite(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<bool> {
        let Numbers { rate, scale, .. } = numbers;
        Ok(finite::sgd(weight.var, weight.gradient, rate, scale, self.decay)?)
    }

    fn apply(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<()> {
        let Numbers { rate, scale, .. } = numbers;
        Ok(update::sgd(weight.var, weight.gradient, rate, scale, self.decay)?)
    }

    fn on_device(&self) -> Option<&dyn DeviceRule> {
        Some(self)
    }
}

impl DeviceRule for Sgd {
    fn check(&self, rate: f64, max_norm: f64) -> Check {
        Check { rate, max_norm, decay: self.decay, squares: false, beta1: 0.0, beta2: 0.0 }
    }

    fn apply(&self, guard: &dyn DeviceGuard, weight: &Weight<'_>, rate: f64) -> Result<()> {
        Ok(guard.sgd(weight.var, weight.gradient, rate, self.decay)?)
    }
}
