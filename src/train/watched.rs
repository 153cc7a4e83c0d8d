//! What teachers cost on the steps of training, kept until the step is known to have been made.

use crate::error::Result;
use candle_core::{DType, Tensor};
use std::collections::VecDeque;

/// The teacher's −ln p of the tokens of steps that were not reported yet, in the order of the steps.
#[derive(Debug, Default)]
pub struct Watched(VecDeque<(u64, Tensor)>);

impl Watched {
    /// Keeps those of step `step`.
    pub(super) fn keep(&mut self, step: u64, nats: Tensor) {
        self.0.push_back((step, nats));
    }

    /// The sum over the tokens of step `step`, if it had a teacher; those of steps before it are dropped.
    pub(super) fn take(&mut self, step: u64) -> Result<Option<f64>> {
        while self.0.front().is_some_and(|(kept, _)| *kept < step) {
            self.0.pop_front();
        }
        if self.0.front().is_none_or(|(kept, _)| *kept > step) {
            return Ok(None);
        }
        let sum = |(_, nats): (u64, Tensor)| Ok(nats.to_dtype(DType::F64)?.sum_all()?.to_scalar()?);
        self.0.pop_front().map(sum).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::Watched;
    use candle_core::{Device, Tensor};

    #[test]
    fn a_step_that_is_never_reported_is_dropped_and_the_others_are_summed() {
        let mut watched = Watched::default();
        for step in [3u64, 4, 6] {
            watched.keep(step, Tensor::new(&[step as f32, 0.5], &Device::Cpu).unwrap());
        }
        let found = [3, 5, 6, 7].map(|step| watched.take(step).unwrap());
        assert_eq!(found, [Some(3.5), None, Some(6.5), None]);
    }
}
