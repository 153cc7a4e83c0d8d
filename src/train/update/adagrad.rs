//! AdaGrad (Duchi et al., 2011), as `torch.optim.Adagrad` has it; its equations are those of `rhn_kernels::update::adagrad`.
//!
//! Without weight decay, a row of a table that has no gradient stays as it is, and so does what is remembered of it: such a
//! step takes no time for it. It has no kernels for a GPU, where it is applied from the host.

use super::rule::{Numbers, Rule, Weight};
use crate::config::TrainConfig;
use crate::error::Result;
use rhn_kernels::update::adagrad::{AdagradStep, adagrad, is_finite};
use rhn_kernels::update::squared_norm;

pub(super) struct Adagrad {
    decay: f64,
    epsilon: f64,
    initial: f64,
}

impl Adagrad {
    pub(super) fn new(config: &TrainConfig) -> Self {
        let &TrainConfig { weight_decay: decay, epsilon, initial_accumulator, .. } = config;
        Self { decay, epsilon, initial: initial_accumulator.unwrap_or(1.0) }
    }

    fn step(&self, Numbers { rate, scale, .. }: Numbers) -> AdagradStep {
        AdagradStep { rate, scale, decay: self.decay, epsilon: self.epsilon, initial: self.initial }
    }
}

impl Rule for Adagrad {
    /// The sums of squares, without what they start from.
    fn memory(&self) -> usize {
        1
    }

    fn coupled_decay(&self) -> f64 {
        self.decay
    }

    fn takes_rows(&self) -> bool {
        self.decay == 0.0
    }

    fn is_finite(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<bool> {
        if !weight.var.device().is_cpu() {
            let norms = [weight.gradient, weight.memory().as_tensor()]
                .map(|tensor| squared_norm(tensor, tensor, 0.0));
            return norms.into_iter().try_fold(true, |all, norm| Ok(all && norm?.is_finite()));
        }
        Ok(is_finite(weight.var, weight.memory(), weight.gradient, weight.touched(), self.step(numbers))?)
    }

    fn apply(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<()> {
        Ok(adagrad(weight.var, weight.memory(), weight.gradient, weight.touched(), self.step(numbers))?)
    }
}
