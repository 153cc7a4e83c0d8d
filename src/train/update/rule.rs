//! What an update rule is.

use super::gradient::Taken;
use crate::error::Result;
use candle_core::{Tensor, Var};
use rhn_kernels::update::guard::{Check, DeviceGuard};
use rhn_kernels::update::{Touched, squared_norm};

/// A weight, its gradient, and what the rule remembers of it.
pub(super) struct Weight<'a> {
    pub(super) var: &'a Var,
    /// In the weight's shape; of some rows alone for a rule that takes them.
    pub(super) gradient: &'a Tensor,
    rows: Option<&'a [u32]>,
    memory: Option<&'a Var>,
}

impl<'a> Weight<'a> {
    pub(super) fn new(var: &'a Var, taken: &'a Taken, memory: Option<&'a Var>) -> Self {
        Self {
            var: taken.updated(var),
            gradient: &taken.tensor,
            rows: taken.rows.as_deref(),
            memory: taken.memory(memory),
        }
    }

    /// Which numbers of the weight the gradient is of.
    pub(super) fn touched(&self) -> Touched<'a> {
        self.rows.map_or(Touched::All, Touched::Rows)
    }

    /// Σ (g + decay · θ)²; where the gradient is of rows there is no decay.
    pub(super) fn squared_norm(&self, decay: f64) -> Result<f64> {
        Ok(match self.rows {
            None => squared_norm(self.gradient, self.var, decay)?,
            Some(_) => squared_norm(self.gradient, self.gradient, 0.0)?,
        })
    }

    /// What the rule remembers of the weight, of [`Rule::memory_shape`].
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
    /// The update's number among those of the weight, counted from 1.
    pub(super) update: u64,
}

/// The numbers of one update on a GPU, which has clipped the gradient and counted the updates.
#[derive(Clone, Copy)]
pub(super) struct DeviceNumbers {
    /// The learning rate.
    pub(super) rate: f64,
    /// Updates in which the weight had no gradient.
    pub(super) left_out: u64,
}

/// An update rule.
pub(super) trait Rule {
    /// How many numbers are remembered of each number of a weight.
    fn memory(&self) -> usize {
        0
    }

    /// The shape of what is remembered of a weight of shape `dims`, which may be a table of one row a word; a rule for which
    /// [`Rule::memory`] is 0 remembers nothing.
    fn memory_shape(&self, dims: &[usize], _is_table: bool) -> Vec<usize> {
        [&[self.memory()], dims].concat()
    }

    /// The weight decay that is part of the loss, and so of the gradient's norm.
    fn coupled_decay(&self) -> f64 {
        0.0
    }

    /// Whether a row of a table that has no gradient stays as it is, so that the gradients of the others are enough.
    fn takes_rows(&self) -> bool {
        false
    }

    /// Whether an update depends on its number.
    fn counts_updates(&self) -> bool {
        false
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
    fn apply(&self, guard: &dyn DeviceGuard, weight: &Weight<'_>, numbers: DeviceNumbers) -> Result<()>;
}
