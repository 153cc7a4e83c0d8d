//! What a step did, or why it did nothing.

use crate::error::{Error, Result};
use rhn_kernels::update::guard::{Record, Status};

/// A step, as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The step's number, counted from 0.
    pub step: u64,
    /// The learning rate.
    pub rate: f64,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The step's number, counted from 0.
    pub step: u64,
    /// The learning rate.
    pub rate: f64,
    /// The window's tokens.
    pub tokens: u64,
    /// −ln p summed over them.
    pub nats: f64,
    /// The gradient's global norm before clipping.
    pub grad_norm: f64,
    /// −ln p summed over them by the model that the step was taught by, if there is one.
    pub teacher_nats: Option<f64>,
}

/// A device's record of a step over `tokens` as a report; `None` for a step that came after a halt.
pub(super) fn from_record(step: Step, tokens: u64, record: &Record) -> Option<Result<StepReport>> {
    let Step { step: number, rate } = step;
    let &Record { nats, grad_norm, status } = record;
    Some(match status {
        Status::Applied => Ok(StepReport { step: number, rate, tokens, nats, grad_norm, teacher_nats: None }),
        Status::Loss => Err(not_finite(step, format!("the loss is {nats}"))),
        Status::Norm => Err(not_finite(step, format!("the gradient's norm is {grad_norm}"))),
        Status::Update => Err(not_finite(step, "the update is not finite".into())),
        Status::Halted => return None,
    })
}

/// `value`, or the error that names which number of the step is not finite.
pub(super) fn finite(step: Step, what: &str, value: f64) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(not_finite(step, format!("{what} is {value}"))) }
}

/// The error of a step that was not applied.
pub(super) fn not_finite(step: Step, what: String) -> Error {
    let advice = "the update was not applied; a lower train.learning_rate or train.max_grad_norm may help";
    Error::NotFinite { step: step.step + 1, what: format!("{what}; {advice}") }
}

#[cfg(test)]
mod tests {
    use super::{Step, from_record};
    use rhn_kernels::update::guard::{Record, Status};

    #[test]
    fn a_device_s_record_is_reported_as_the_cpu_would_report_it() {
        let step = Step { step: 4, rate: 0.1 };
        let reported =
            |status| from_record(step, 7, &Record { nats: f64::NAN, grad_norm: f64::INFINITY, status });
        let message = |status| reported(status).unwrap().unwrap_err().to_string();
        assert!(message(Status::Loss).starts_with("step 5: the loss is NaN; the update was not applied"));
        assert!(message(Status::Norm).starts_with("step 5: the gradient's norm is inf"));
        assert!(message(Status::Update).starts_with("step 5: the update is not finite"));
        assert!(reported(Status::Halted).is_none());
        let report = from_record(step, 7, &Record { nats: 3.0, grad_norm: 2.0, status: Status::Applied });
        let report = report.unwrap().unwrap();
        assert_eq!((report.step, report.rate, report.tokens, report.nats), (4, 0.1, 7, 3.0));
    }
}
