//! Whether a step may change anything, decided and obeyed on a GPU, so that the host need not wait for every step.
//!
//! A step whose loss, gradient or update is not finite changes nothing. The guard lets a given number of such steps
//! be skipped; the next one halts it, and no later step changes anything, so that weights, moments and states stay as
//! they were before that step. The host reads what happened when it wants to know.

use candle_core::{Result, Tensor, Var};

/// What a step's check and its clipping depend on.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The learning rate.
    pub rate: f64,
    /// The gradient's global norm is clipped to this; 0 leaves it.
    pub max_norm: f64,
    /// The decay that is part of the loss, and so of the norm.
    pub decay: f64,
    /// Whether the update squares the gradient.
    pub squares: bool,
    /// Adam's decay of the first moment.
    pub beta1: f64,
    /// Adam's decay of the second moment.
    pub beta2: f64,
}

/// The numbers of an update by Adam or AdamW; the guard counts all updates.
#[derive(Clone, Copy, Debug)]
pub struct DeviceAdam {
    /// The learning rate.
    pub rate: f64,
    /// The decay of the first moment.
    pub beta1: f64,
    /// The decay of the second moment.
    pub beta2: f64,
    /// The guard against division by zero.
    pub epsilon: f64,
    /// The weight decay that is part of the gradient.
    pub decay: f64,
    /// The weight decay that is not.
    pub decoupled: f64,
    /// Updates before this one in which the weight had no gradient: they correct no bias of its moments.
    pub left_out: u64,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was applied.
    Applied,
    /// Its loss is not finite.
    Loss,
    /// Its gradient's norm is not finite.
    Norm,
    /// Its update is not finite.
    Update,
    /// It came after a step that halted the run.
    Halted,
}

impl Status {
    /// The status with this number in `guard.cuh`; any other number counts as a loss that is not finite.
    pub fn of(number: f64) -> Self {
        match number as u64 {
            0 if number == 0.0 => Self::Applied,
            2 => Self::Norm,
            3 => Self::Update,
            4 => Self::Halted,
            _ => Self::Loss,
        }
    }
}

/// What the guard keeps of a step.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// −ln p summed over the window's tokens.
    pub nats: f64,
    /// The gradient's global norm before clipping.
    pub grad_norm: f64,
    /// What became of the step.
    pub status: Status,
}

/// Decides on a device which steps may change something, and applies those that may.
pub trait DeviceGuard {
    /// How many steps it records before they must be read.
    fn capacity(&self) -> usize;

    /// Sets how many updates were made before, and how many steps may yet be skipped.
    fn begin(&self, updates: u64, may_skip: u64) -> Result<()>;

    /// Checks a step by its `nats` and the gradients beside their parameters, and keeps it as record `index`.
    fn check(&self, nats: &Tensor, pairs: &[(&Tensor, &Var)], check: &Check, index: usize) -> Result<()>;

    /// The updates so far and the first `count` records; waits for the steps that made them.
    fn read(&self, count: usize) -> Result<(u64, Vec<Record>)>;

    /// θ ← θ − rate · (scale · (g + decay · θ)), if the step may change something.
    fn sgd(&self, parameter: &Var, grad: &Tensor, rate: f64, decay: f64) -> Result<()>;

    /// Adam or AdamW on a parameter and its moments `(2, …)`, if the step may change something.
    fn adam(&self, parameter: &Var, moments: &Var, grad: &Tensor, step: &DeviceAdam) -> Result<()>;

    /// `after` if the step was applied, else `before`, in a tensor of its own.
    fn choose(&self, after: &Tensor, before: &Tensor) -> Result<Tensor>;
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn a_number_that_means_nothing_is_no_step_that_was_applied() {
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0, 4.0].map(Status::of),
            [Status::Applied, Status::Loss, Status::Norm, Status::Update, Status::Halted]
        );
        for wrong in [f64::NAN, -1.0, 0.5, 9.0] {
            assert_ne!(Status::of(wrong), Status::Applied, "{wrong}");
        }
    }
}
