//! The mean of the weights over the steps: a run is measured and published by it, and trains on from its own weights.
//!
//! ```text
//! mean ← mean + (θ − mean) / n                       n-th step of the mean: the mean of all of them
//! mean ← mean + (θ − mean) max(1 / n, 1 − decay)     ema: the same until n is 1 / (1 − decay), from there exponential
//! ```
//!
//! `nt-asgd` (Merity et al., 2017, algorithm 1) begins the mean once a validation loss was worse than all but the last
//! few before it, or with the first step, and then it is the run that ends so; `ema` begins with the first step. Neither changes how the weights themselves are trained, but for a rate that
//! goes by the validation loss.

use crate::config::train::Averaging;
use crate::error::{Error, Result};
use crate::model::Parameters;
use crate::train::update::Applied;
use candle_core::{DType, Tensor};
use rhn_kernels::update::{towards, towards_by};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The mean of the weights, if the recipe wants one, and whether it has begun.
pub struct Average {
    config: Averaging,
    mean: Option<Parameters>,
    memory: AveragingMemory,
    /// Where a GPU decides which steps are applied, the steps that the mean has, counted there: the host learns later which
    /// they were. `memory` then has them as of the last time that it was saved or begun.
    counted: Option<Tensor>,
}

/// What a resumed run needs beside the mean itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AveragingMemory {
    /// Whether steps are averaged.
    begun: bool,
    /// Steps that the mean has.
    steps: u64,
    /// Validation losses at the end of the epochs so far, for `nt-asgd`.
    losses: Vec<f64>,
    /// Whether the last of them ended a run that averages from its start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    over: bool,
}

impl AveragingMemory {
    /// As [`Average::is_over`].
    pub fn is_over(&self) -> bool {
        self.over
    }
}

impl Average {
    /// Before the first step.
    pub fn new(config: &Averaging) -> Self {
        let begun = match config {
            Averaging::None {} => false,
            Averaging::Ema(_) => true,
            Averaging::NtAsgd(settings) => settings.from_start,
        };
        let memory = AveragingMemory { begun, ..Default::default() };
        Self { config: config.clone(), mean: None, memory, counted: None }
    }

    /// The weights to measure and publish: the mean once it has a step, else `own`.
    pub fn weights<'a>(&'a self, own: &'a Parameters) -> &'a Parameters {
        self.mean.as_ref().unwrap_or(own)
    }

    /// Steps that the mean has; waits for those that a GPU has not made yet.
    pub fn steps(&self) -> Result<u64> {
        match &self.counted {
            None => Ok(self.memory.steps),
            Some(counted) => Ok(counted.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()? as u64),
        }
    }

    /// Takes the weights after a step into the mean, if that has begun and the step was applied.
    pub fn add(&mut self, own: &Parameters, applied: &Applied<'_>) -> Result<()> {
        if !self.memory.begun {
            return Ok(());
        }
        if applied.is_decided_elsewhere() {
            return self.add_if(own, applied);
        }
        self.memory.steps += 1;
        let Some(mean) = &self.mean else {
            self.mean = Some(own.copy()?);
            return Ok(());
        };
        let share = (1.0 / self.memory.steps as f64).max(self.least_share());
        for ((_, mean), (_, own)) in mean.trained().zip(own.trained()) {
            towards(mean, own, share)?;
        }
        Ok(())
    }

    /// The share of the mean that a step has at least.
    fn least_share(&self) -> f64 {
        match &self.config {
            Averaging::Ema(ema) => 1.0 - ema.decay,
            Averaging::None {} | Averaging::NtAsgd(_) => 0.0,
        }
    }

    /// The same where the host does not know yet whether the step was applied: one that was not has a share of 0, and is not
    /// counted.
    fn add_if(&mut self, own: &Parameters, applied: &Applied<'_>) -> Result<()> {
        let Some((_, first)) = own.trained().next() else { return Ok(()) };
        if self.mean.is_none() {
            self.mean = Some(own.copy()?);
        }
        let mean = self.mean.as_ref().expect("it was just made");
        let before = match self.counted.take() {
            Some(counted) => counted,
            None => Tensor::full(self.memory.steps as f64, 1, first.device())?.to_dtype(first.dtype())?,
        };
        let after = (&before + 1.0)?;
        let share = after.recip()?.maximum(self.least_share())?;
        let share = applied.choose_tensor(&share, &share.zeros_like()?)?;
        for ((_, mean), (_, own)) in mean.trained().zip(own.trained()) {
            towards_by(mean, own, &share)?;
        }
        self.counted = Some(applied.choose_tensor(&after, &before)?);
        Ok(())
    }

    /// Whether a run that averages from its start should end: its validation loss no longer falls.
    pub fn is_over(&self) -> bool {
        self.memory.is_over()
    }

    /// Takes the validation loss at an epoch's end: `nt-asgd` may begin the mean with the next step, or end the run.
    pub fn end_epoch(&mut self, loss: f64) {
        let Averaging::NtAsgd(settings) = &self.config else { return };
        let AveragingMemory { begun, losses, over, .. } = &mut self.memory;
        let earlier = losses.len().saturating_sub(settings.non_monotone);
        let no_longer_falls = losses[..earlier].iter().any(|&before| before < loss);
        *begun |= no_longer_falls;
        *over |= no_longer_falls && settings.from_start;
        losses.push(loss);
    }

    /// Forgets the mean: the weights have gone back to earlier ones. What was known of the validation losses when these were
    /// measured is known again, if it was kept.
    pub fn restart(&mut self, then: Option<&AveragingMemory>) {
        self.mean = None;
        self.counted = None;
        self.memory = AveragingMemory { steps: 0, ..then.unwrap_or(&self.memory).clone() };
    }

    /// What is known of the validation losses; no steps are counted there.
    pub(super) fn memory(&self) -> AveragingMemory {
        AveragingMemory { steps: 0, ..self.memory.clone() }
    }

    /// What outlives a step: the counts, and the mean by the names of a training state.
    pub fn save(&self) -> Result<(AveragingMemory, BTreeMap<String, Tensor>)> {
        let memory = AveragingMemory { steps: self.steps()?, ..self.memory.clone() };
        let trained = self.mean.iter().filter(|_| memory.steps > 0).flat_map(Parameters::trained);
        let tensors = trained.map(|(name, var)| (memory_name(name), var.as_detached_tensor()));
        let tensors = tensors.collect();
        Ok((memory, tensors))
    }

    /// Takes back what [`Average::save`] gave, for weights of the shapes of `own`.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape.
    pub fn load(
        &mut self,
        memory: AveragingMemory,
        tensors: &BTreeMap<String, Tensor>,
        own: &Parameters,
    ) -> Result<()> {
        self.mean = None;
        if memory.steps > 0 {
            let mean = own.copy()?;
            for (name, var) in mean.trained() {
                let name = memory_name(name);
                let tensor = tensors.get(&name).ok_or_else(|| Error::tensor(&name, "is missing"))?;
                if tensor.shape() != var.shape() {
                    let what = format!("{:?} where the model has {:?}", tensor.dims(), var.dims());
                    return Err(Error::tensor(&name, what));
                }
                var.set(&tensor.to_device(var.device())?.to_dtype(var.dtype())?)?;
            }
            self.mean = Some(mean);
        }
        self.memory = memory;
        self.counted = None;
        Ok(())
    }
}

fn memory_name(parameter: &str) -> String {
    format!("average.{parameter}")
}

#[cfg(test)]
mod tests {
    use super::Average;
    use crate::config::train::{Averaging, Ema, NtAsgd};

    /// Epochs, counted from 1, at whose end the mean begins.
    fn begins(non_monotone: usize, losses: &[f64]) -> Option<usize> {
        let mut average = Average::new(&Averaging::NtAsgd(NtAsgd { non_monotone, from_start: false }));
        let begun = losses.iter().position(|&loss| {
            average.end_epoch(loss);
            average.memory.begun
        });
        begun.map(|index| index + 1)
    }

    #[test]
    fn the_trigger_is_that_of_the_paper() {
        assert_eq!(begins(2, &[5.0, 4.0, 3.0, 2.0, 1.0]), None);
        assert_eq!(begins(2, &[5.0, 4.0, 4.5, 4.6, 4.2]), Some(5)); // the least but for the last two is 4.0
        assert_eq!(begins(2, &[5.0, 4.0, 4.5, 3.9, 3.8]), None);
        assert_eq!(begins(0, &[5.0, 4.0, 4.1]), Some(3));
        assert_eq!(begins(5, &[1.0, 2.0, 2.0, 2.0, 2.0]), None); // fewer epochs than it waits
        assert_eq!(begins(5, &[1.0, 2.0, 2.0, 2.0, 2.0, 2.0]), None);
        assert_eq!(begins(5, &[1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]), Some(7));
        assert_eq!(begins(1, &[1.0, f64::NAN, f64::NAN]), None);
    }

    #[test]
    fn a_mean_from_the_start_has_begun_and_ends_the_run_by_the_same_trigger() {
        let mut average = Average::new(&Averaging::NtAsgd(NtAsgd { non_monotone: 2, from_start: true }));
        assert!(average.memory.begun);
        for (loss, is_over) in
            [(5.0, false), (4.0, false), (4.5, false), (4.6, false), (4.2, true), (1.0, true)]
        {
            average.end_epoch(loss);
            assert_eq!(average.is_over(), is_over, "after {loss}");
        }
    }

    #[test]
    fn an_exponential_mean_begins_with_the_first_step() {
        assert!(Average::new(&Averaging::Ema(Ema { decay: 0.9 })).memory.begun);
        assert!(!Average::new(&Averaging::None {}).memory.begun);
    }
}
