//! Which steps may change something, and what they did: known at once on the CPU, on a GPU kept there until it is read.
//!
//! A GPU is read once every `STEPS` steps, and before anything depends on what was read. Until then a step that is
//! not finite has changed nothing, nor has any after it, unless it may be passed over.

use super::optimizer::{Gradients, Optimizer};
use super::step::StepReport;
use crate::error::{Error, Result};
use crate::model::{Parameters, State};
use candle_core::{DType, Device, Tensor};
use rhn_kernels::update::guard::{Control, Judged, Record};

/// Steps that a GPU makes before the host waits for it.
const STEPS: usize = 16;

/// A step, as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Counted from 0.
    pub step: u64,
    /// The learning rate.
    pub rate: f64,
    /// The window's tokens.
    pub tokens: u64,
}

/// What steps did, until it is told.
pub struct Ledger {
    max_grad_norm: f64,
    /// Where a GPU decides; `None` on the CPU.
    control: Option<Control>,
    /// Steps that the GPU has not told of.
    pending: Vec<Step>,
    reports: Vec<Result<StepReport>>,
    /// Steps are told of when there are so many.
    at_once: usize,
    /// Of the step under way, on the CPU.
    nats: f64,
}

/// What a step may do.
#[derive(Clone, Copy)]
pub enum Verdict<'a> {
    /// Its gradient times this.
    Scale(f64),
    /// What the GPU decides.
    OnDevice(&'a Control),
}

impl Ledger {
    /// For weights of type `dtype` on `device`. The gradient's global norm is cut to `max_grad_norm`; 0 leaves it.
    /// So many steps may be passed over because they are not finite; only a GPU has to know.
    pub fn new(device: &Device, dtype: DType, max_grad_norm: f64, may_skip: u64) -> Result<Self> {
        let control = Control::on(device, dtype, STEPS)?;
        let at_once = control.as_ref().map_or(1, Control::room);
        let (pending, reports) = (Vec::new(), Vec::new());
        let ledger = Self { max_grad_norm, control, pending, reports, at_once, nats: 0.0 };
        ledger.begin(0, may_skip)?;
        Ok(ledger)
    }

    /// After so many updates; so many steps may yet be passed over.
    pub fn begin(&self, updates: u64, may_skip: u64) -> Result<()> {
        Ok(self.control.as_ref().map_or(Ok(()), |control| control.set(updates, may_skip))?)
    }

    /// Hears the window's nats, before gradients are taken in vain.
    ///
    /// # Errors
    /// If it is known that they are not finite.
    pub fn hear(&mut self, step: &Step, nats: &Tensor) -> Result<()> {
        if self.control.is_none() {
            let total = nats.to_dtype(DType::F64)?.sum_all()?.to_scalar()?;
            self.nats = finite(step, "the loss", total)?;
        }
        Ok(())
    }

    /// What the step may do, by its loss, its gradient and its update.
    ///
    /// # Errors
    /// If it is known that one of them is not finite.
    pub fn judge(
        &mut self,
        step: Step,
        nats: &Tensor,
        optimizer: &Optimizer,
        parameters: &Parameters,
        grads: &Gradients,
    ) -> Result<Verdict<'_>> {
        if let Some(control) = &self.control {
            let (rule, pairs) = optimizer.judged_by(parameters, grads, step.rate, self.max_grad_norm)?;
            control.judge(nats, &pairs, &rule, self.pending.len())?;
            self.pending.push(step);
            return Ok(Verdict::OnDevice(control));
        }
        let grad_norm = optimizer.grad_norm(parameters, grads)?;
        let grad_norm = finite(&step, "the gradient's norm", grad_norm)?;
        let scale = clip(grad_norm, self.max_grad_norm);
        if let Some(name) = optimizer.spoils(parameters, grads, step.rate, scale)? {
            return Err(not_finite(&step, format!("the update of {name} is not finite")));
        }
        self.reports.push(Ok(report(&step, self.nats, grad_norm)));
        Ok(Verdict::Scale(scale))
    }

    /// Steps that were made and not told of.
    pub fn pending(&self) -> usize {
        self.pending.len() + self.reports.len()
    }

    /// Steps are told of when there are `steps` of them, at most as many as a GPU keeps; of one at a time on the CPU
    /// unless this says otherwise.
    pub fn tell_every(&mut self, steps: usize) {
        self.at_once = self.control.as_ref().map_or(steps, |control| steps.min(control.room()));
    }

    /// What steps did, in their order, if there are enough of them; with `wait`, of all. A GPU tells as well how many
    /// updates it has made.
    pub fn reports(&mut self, wait: bool) -> Result<(Vec<Result<StepReport>>, Option<u64>)> {
        if self.pending() == 0 || !(wait || self.pending() >= self.at_once) {
            return Ok((Vec::new(), None));
        }
        let mut updates = None;
        if let Some(control) = &self.control {
            let (made, records) = control.read(self.pending.len())?;
            let told = self.pending.drain(..).zip(records).filter_map(|(step, record)| tell(&step, &record));
            self.reports.extend(told);
            updates = Some(made);
        }
        Ok((std::mem::take(&mut self.reports), updates))
    }
}

impl From<f64> for Verdict<'_> {
    fn from(scale: f64) -> Self {
        Self::Scale(scale)
    }
}

impl Verdict<'_> {
    /// What the lanes carry on: the state `after` the step if it was applied, else what was `before`.
    pub fn carry(&self, after: &State, before: &State) -> Result<State> {
        let Self::OnDevice(control) = self else { return Ok(after.detach()) };
        let layer = |(after, before): (&Vec<Tensor>, &Vec<Tensor>)| {
            let parts =
                after.iter().zip(before).map(|(after, before)| control.carry(&after.detach(), before));
            parts.collect::<candle_core::Result<Vec<_>>>()
        };
        Ok(State(after.0.iter().zip(&before.0).map(layer).collect::<candle_core::Result<_>>()?))
    }
}

/// A GPU's record as a report; nothing of a step that came after a halt.
fn tell(step: &Step, record: &Record) -> Option<Result<StepReport>> {
    match record.judged {
        Judged::Applied => Some(Ok(report(step, record.nats, record.grad_norm))),
        Judged::Loss => Some(Err(not_finite(step, format!("the loss is {}", record.nats)))),
        Judged::Norm => Some(Err(not_finite(step, format!("the gradient's norm is {}", record.grad_norm)))),
        Judged::Update => Some(Err(not_finite(step, "the update is not finite".into()))),
        Judged::After => None,
    }
}

fn report(step: &Step, nats: f64, grad_norm: f64) -> StepReport {
    StepReport { step: step.step, rate: step.rate, tokens: step.tokens, nats, grad_norm }
}

fn clip(grad_norm: f64, max_grad_norm: f64) -> f64 {
    let clips = max_grad_norm > 0.0 && grad_norm > max_grad_norm;
    if clips { max_grad_norm / grad_norm } else { 1.0 }
}

fn finite(step: &Step, what: &str, value: f64) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(not_finite(step, format!("{what} is {value}"))) }
}

fn not_finite(step: &Step, what: String) -> Error {
    let advice = "the update was not applied; a lower train.learning_rate or train.max_grad_norm may help";
    Error::NotFinite { step: step.step + 1, what: format!("{what}; {advice}") }
}

#[cfg(test)]
mod tests {
    use super::{Step, tell};
    use rhn_kernels::update::guard::{Judged, Record};

    #[test]
    fn a_record_is_told_as_the_cpu_would_have_told_it() {
        let step = Step { step: 4, rate: 0.1, tokens: 7 };
        let told = |judged| tell(&step, &Record { nats: f64::NAN, grad_norm: f64::INFINITY, judged });
        let message = |judged| told(judged).unwrap().unwrap_err().to_string();
        assert!(message(Judged::Loss).starts_with("step 5: the loss is NaN; the update was not applied"));
        assert!(message(Judged::Norm).starts_with("step 5: the gradient's norm is inf"));
        assert!(message(Judged::Update).starts_with("step 5: the update is not finite"));
        assert!(told(Judged::After).is_none());
        let report = tell(&step, &Record { nats: 3.0, grad_norm: 2.0, judged: Judged::Applied });
        let report = report.unwrap().unwrap();
        assert_eq!((report.step, report.rate, report.tokens, report.nats), (4, 0.1, 7, 3.0));
    }
}
