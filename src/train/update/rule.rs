//! What an update rule is.

use crate::error::Result;
use candle_core::{Tensor, Var};
use rhn_kernels::update::guard::{Check, DeviceGuard};

/// A weight, its gradient, and what the rule remembers of it.
pub(super) struct Weight<'a> {
    pub(super) var: &'a Var,
    pub(super) gradient: &'a Tensor,
    memory: Option<&'a Var>,
}

impl<'a> Weight<'a> {
    pub(super) fn new(var: &'a Var, gradient: &'a Tensor, memory: Option<&'a Var>) -> Self {
        Self { var, gradient, memory }
    }

    /// What the rule remembers of the weight, `(Rule::memory, …)`.
    pub(super) fn memory(&self) -> &'a Var {
        self.memory.expect("only a rule that asks for memory reads it")
    }
}

/// The numbers of one update.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    /// The learning rate.
    pub(super) rate: f64,
    /// What clipping leaves of the gradient.
    pub(super) scale: f64,
    /// The update's number, counted from 1.
    pub(super) update: u64,
}

/// An update rule.
pub(super) trait Rule {
    /// How many numbers are remembered of each number of a weight.
    fn memory(&self) -> usize {
        0
    }

    /// The weight decay that is part of the loss, and so of the gradient's norm.
    fn coupled_decay(&self) -> f64 {
        0.0
    }

    /// Whether [`Rule::apply`] would write finite numbers alone, into the weight and into its memory. It changes
    /// nothing: a step is refused before any part of it is made.
    fn is_finite(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<bool>;

    /// Updates one weight and what is remembered of it.
    fn apply(&self, weight: &Weight<'_>, numbers: Numbers) -> Result<()>;

    /// The rule's kernels behind a [`DeviceGuard`]. A rule without any is applied from the host on every device, and
    /// then waits for each step.
    fn on_device(&self) -> Option<&dyn DeviceRule> {
        None
    }
}

/// A rule's kernels on a GPU, where the guard decides whether a step changes anything.
pub(super) trait DeviceRule {
    /// What the guard checks a step by.
    fn check(&self, rate: f64, max_norm: f64) -> Check;

    /// Updates one weight and what is remembered of it, if the guard lets it.
    fn apply(&self, guard: &dyn DeviceGuard, weight: &Weight<'_>, rate: f64) -> Result<()>;
}
