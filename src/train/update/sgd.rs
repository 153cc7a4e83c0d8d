//! Plain stochastic gradient descent: θ ← θ − rate · (scale · (g + decay · θ)).

use super::rule::{DeviceNumbers, DeviceRule, Numbers, Rule, Weight};
use crate::config::TrainConfig;
use crate::error::Result;
use rhn_kernels::update::guard::{Check, DeviceGuard};
use rhn_kernels::update::{self, Touched, finite};

pub(super) struct Sgd {
    decay: f64,
    /// Whether some rows of a table are updated alone. The norm of a gradient is then summed in another order, so runs with
    /// the loss of the whole vocabulary do without.
    takes_rows: bool,
}

impl Sgd {
    pub(super) fn new(config: &TrainConfig) -> Self {
        let takes_rows = config.loss.is_sampled() && config.weight_decay == 0.0;
        Self { decay: config.weight_decay, takes_rows }
    }
}

impl Rule for Sgd {
    fn coupled_decay(&self) -> f64 {
        self.decay
    }

    fn takes_rows(&self) -> bool {
        self.takes_rows
    }

    fn is_finite(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<bool> {
        let Numbers { rate, scale, .. } = numbers;
        if let Touched::Rows(ids) = weight.touched() {
            return Ok(finite::sgd_rows(weight.var, weight.gradient, ids, rate, scale)?);
        }
        Ok(finite::sgd(weight.var, weight.gradient, rate, scale, self.decay)?)
    }

    fn apply(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<()> {
        let Numbers { rate, scale, .. } = numbers;
        if let Touched::Rows(ids) = weight.touched() {
            return Ok(update::sgd_rows(weight.var, weight.gradient, ids, rate, scale)?);
        }
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

    fn apply(&self, guard: &dyn DeviceGuard, weight: &Weight<'_>, numbers: DeviceNumbers) -> Result<()> {
        Ok(guard.sgd(weight.var, weight.gradient, numbers.rate, self.decay)?)
    }
}
