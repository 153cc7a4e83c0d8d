//! Whether a step was applied, for what depends on it.

use crate::error::Result;
use crate::model::State;
use candle_core::Tensor;
use rhn_kernels::update::guard::DeviceGuard;

/// Whether a step was applied: it was, or a GPU decides and the host learns it later.
pub struct Applied<'a> {
    /// Where that is decided, if not here.
    guard: Option<&'a dyn DeviceGuard>,
}

impl<'a> Applied<'a> {
    /// It was, and the host knows it.
    pub const fn here() -> Self {
        Self { guard: None }
    }

    /// As `guard` decides, or it was.
    pub(super) fn new(guard: Option<&'a dyn DeviceGuard>) -> Self {
        Self { guard }
    }

    /// Whether the host does not know it yet.
    pub fn is_decided_elsewhere(&self) -> bool {
        self.guard.is_some()
    }

    /// What is carried on: the state `after` the step if it was applied, else the state `before`.
    pub fn choose(&self, after: &State, before: &State) -> Result<State> {
        if self.guard.is_none() {
            return after.apart();
        }
        let layer = |(after, before): (&Vec<Tensor>, &Vec<Tensor>)| {
            let parts = after.iter().zip(before);
            parts
                .map(|(after, before)| self.choose_tensor(&after.detach(), before))
                .collect::<Result<Vec<_>>>()
        };
        Ok(State(after.0.iter().zip(&before.0).map(layer).collect::<Result<_>>()?))
    }

    /// `after` if the step was applied, else `before`, both of the weights' type.
    pub fn choose_tensor(&self, after: &Tensor, before: &Tensor) -> Result<Tensor> {
        match self.guard {
            None => Ok(after.clone()),
            Some(guard) => Ok(guard.choose(after, before)?),
        }
    }
}
