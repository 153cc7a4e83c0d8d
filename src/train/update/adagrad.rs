//! AdaGrad (Duchi et al., 2011), as `torch.optim.Adagrad` has it; its equations are those of `rhn_kernels::update::adagrad`.
//!
//! Without weight decay, a row of a table that has no gradient stays as it is, and so does what is remembered of it: such a
//! step takes no time for it. Of such a table one sum a row can be remembered in place of one a number
//! (`rhn_kernels::update::adagrad_rows`). It has no kernels for a GPU, where it is applied from the host.

use super::rule::{Numbers, Rule, Weight};
use crate::config::TrainConfig;
use crate::config::train::Accumulator;
use crate::error::Result;
use rhn_kernels::update::adagrad::{AdagradStep, adagrad, is_finite};
use rhn_kernels::update::adagrad_rows::{self, adagrad_by_row};

pub(super) struct Adagrad {
    decay: f64,
    epsilon: f64,
    initial: f64,
    accumulator: Accumulator,
}

impl Adagrad {
    pub(super) fn new(config: &TrainConfig) -> Self {
        let &TrainConfig { weight_decay: decay, epsilon, initial_accumulator, accumulator, .. } = config;
        Self { decay, epsilon, initial: initial_accumulator.unwrap_or(1.0), accumulator }
    }

    fn step(&self, Numbers { rate, scale, .. }: Numbers) -> AdagradStep {
        AdagradStep { rate, scale, decay: self.decay, epsilon: self.epsilon, initial: self.initial }
    }
}

/// Whether one sum a row is remembered of the weight.
fn is_by_row(weight: &Weight<'_>) -> bool {
    weight.memory().dims().len() == weight.var.dims().len()
}

impl Rule for Adagrad {
    /// The sums of squares, without what they start from.
    fn memory(&self) -> usize {
        1
    }

    fn memory_shape(&self, dims: &[usize], is_table: bool) -> Vec<usize> {
        match (self.accumulator, dims) {
            (Accumulator::Row, &[rows, _]) if is_table => vec![1, rows],
            _ => [&[1], dims].concat(),
        }
    }

    fn coupled_decay(&self) -> f64 {
        self.decay
    }

    fn takes_rows(&self) -> bool {
        self.decay == 0.0
    }

    fn is_finite(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<bool> {
        let check = if is_by_row(weight) { adagrad_rows::is_finite } else { is_finite };
        Ok(check(weight.var, weight.memory(), weight.gradient, weight.touched(), self.step(numbers))?)
    }

    fn apply(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<()> {
        let update = if is_by_row(weight) { adagrad_by_row } else { adagrad };
        Ok(update(weight.var, weight.memory(), weight.gradient, weight.touched(), self.step(numbers))?)
    }
}
