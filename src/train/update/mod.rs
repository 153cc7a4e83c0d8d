//! The update of the weights: the gradient's norm, clipping, the check for numbers that are not finite, and the rule.
//!
//! On the CPU a step is checked and applied at once. A GPU decides by itself, and is read every `DEFERRED` steps and
//! before anything depends on what it decided; until then a step that is not finite has changed nothing, nor has any
//! after it, unless the recipe lets it be skipped. Outside this module only the time of the reports differs.
//!
//! To add an optimizer, write its `Rule` in a file here, with kernels or without, and give its name a variant of
//! [`OptimizerKind`] in `config/train.rs`; the compiler then asks for its line in `rule()`.

mod adagrad;
mod adam;
mod applied;
mod gradient;
mod report;
mod rule;
mod sgd;
mod velocity;

pub use applied::Applied;
pub use report::{Step, StepReport};

use super::objective::Sums;
use crate::config::TrainConfig;
use crate::config::clip::{ClipConfig, PARTS, part_of};
use crate::config::train::{OnNonFinite, OptimizerKind};
use crate::error::{Error, Result};
use crate::model::Parameters;
use candle_core::{DType, Device, Tensor, Var};
use gradient::Taken;
use report::{finite, from_record, not_finite};
use rhn_kernels::embedding::is_two_bytes;
use rhn_kernels::gradients::Gradient;
use rhn_kernels::profile::{self, Part};
use rhn_kernels::rng::Rng;
use rhn_kernels::update::guard::{DeviceGuard, Status};
use rhn_kernels::update::open_guard;
use rule::{DeviceNumbers, Numbers, Rule, Weight};
use std::collections::BTreeMap;

/// Steps that a GPU makes before the host waits for it.
const DEFERRED: usize = 16;

/// The rule that a recipe asks for.
fn rule(config: &TrainConfig) -> Box<dyn Rule> {
    match config.optimizer {
        OptimizerKind::Sgd if config.momentum > 0.0 => Box::new(velocity::Velocity::new(config)),
        OptimizerKind::Sgd => Box::new(sgd::Sgd::new(config)),
        OptimizerKind::Adam => Box::new(adam::Adam::new(config)),
        OptimizerKind::AdamW => Box::new(adam::Adam::decoupled(config)),
        OptimizerKind::AdaGrad => Box::new(adagrad::Adagrad::new(config)),
    }
}

/// An update rule with what it remembers, and the steps that it has not reported.
pub struct Update {
    rule: Box<dyn Rule>,
    /// What numbers are rounded by where they take two bytes.
    seed: u64,
    max_grad_norm: f64,
    /// In its place, a norm for each part of the model.
    clip: Option<ClipConfig>,
    /// Steps of the run that may be skipped because a number is not finite.
    may_skip: u64,
    updates: u64,
    /// Of weights that had no gradient in some updates, in how many: a rule that counts updates counts each weight's own. Those
    /// of steps that a GPU has not reported count as made: where steps may be skipped, they are read before that matters.
    left_out: BTreeMap<String, u64>,
    memory: BTreeMap<String, Var>,
    /// Where steps are decided if not here, and whose steps were not read yet.
    guard: Option<Box<dyn DeviceGuard>>,
    pending: Vec<Pending>,
    reports: Vec<Result<StepReport>>,
    /// The last step that was refused, and why.
    refused: Option<(u64, String)>,
}

/// A step that a GPU has not reported.
struct Pending {
    step: Step,
    tokens: u64,
    /// The weights without a gradient.
    left_out: Vec<String>,
}

/// What outlives a step.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Updates so far.
    pub updates: u64,
    /// Of weights that had no gradient in some of them, in how many.
    pub left_out: BTreeMap<String, u64>,
    /// What is remembered of the weights, by the names of a training state.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Update {
    /// The rule of `config` before its first update, for weights of type `dtype` on `device`.
    pub fn new(config: &TrainConfig, parameters: &Parameters, dtype: DType, device: &Device) -> Result<Self> {
        Self::guarded(config, parameters, open_guard(device, dtype, DEFERRED)?)
    }

    /// As [`Update::new`], with the guard that decides in place of the host.
    pub fn guarded(
        config: &TrainConfig,
        parameters: &Parameters,
        guard: Option<Box<dyn DeviceGuard>>,
    ) -> Result<Self> {
        let rule = rule(config);
        let mut memory = BTreeMap::new();
        for (name, var) in parameters.trained().filter(|_| rule.memory() > 0) {
            let mut dims = var.dims().to_vec();
            if let (Some(columns), Some(width)) = (parameters.columns(name), dims.last_mut()) {
                *width = columns.len();
            }
            let shape = rule.memory_shape(&dims, parameters.is_table(name));
            let dtype = if is_two_bytes(var) { DType::F32 } else { var.dtype() };
            memory.insert(name.to_string(), Var::zeros(shape, dtype, var.device())?);
        }
        let may_skip = match config.on_non_finite {
            OnNonFinite::Stop => 0,
            OnNonFinite::Skip => config.max_skipped_steps,
        };
        let guard = guard.filter(|_| rule.on_device().is_some() && config.clip.is_none());
        guard.iter().try_for_each(|guard| guard.begin(0, may_skip))?;
        Ok(Self {
            rule,
            seed: config.seed,
            max_grad_norm: config.max_grad_norm,
            clip: config.clip,
            may_skip,
            updates: 0,
            left_out: BTreeMap::new(),
            memory,
            guard,
            pending: Vec::new(),
            reports: Vec::new(),
            refused: None,
        })
    }

    /// Updates the weights by `gradients`, which are in the order of [`Parameters::trained`]; one that has none is left
    /// as it is, and so is what is remembered of it.
    ///
    /// # Errors
    /// If it is known that loss, gradient's norm or update are not finite; nothing has changed then.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        gradients: Vec<Option<Gradient>>,
        sums: &Sums,
        step: Step,
    ) -> Result<Applied<'_>> {
        let _timed = profile::within(Part::Optimizer);
        let counts = self.rule.counts_updates();
        let without =
            parameters.trained().zip(&gradients).filter(|(_, gradient)| counts && gradient.is_none());
        let left_out: Vec<String> = without.map(|((name, _), _)| name.to_string()).collect();
        // A step that was skipped counts for no weight, and whether one was is not known until it is read.
        if self.may_skip > 0 && !self.pending.is_empty() && !(left_out.is_empty() && self.left_out.is_empty())
        {
            self.read()?;
        }
        let takes_rows = self.rule.takes_rows();
        let take = |(gradient, (name, var)): (Option<Gradient>, (&str, &Var))| {
            gradient
                .map(|gradient| {
                    let remembered = (var, self.memory.get(name));
                    Taken::new(gradient, remembered, parameters.columns(name), takes_rows)
                })
                .transpose()
        };
        let gradients: Vec<Option<Taken>> =
            gradients.into_iter().zip(parameters.trained()).map(take).collect::<Result<_>>()?;
        let weights = weights(parameters, &gradients, &self.memory);
        match self.guard.as_deref().zip(self.rule.on_device()) {
            Some((guard, rule)) => {
                let pairs: Vec<(&Tensor, &Var)> =
                    weights.iter().map(|(_, weight)| (weight.gradient, weight.var)).collect();
                let check = rule.check(step.rate, self.max_grad_norm);
                guard.check(&sums.nats, &pairs, &check, self.pending.len())?;
                for (name, weight) in &weights {
                    let numbers = DeviceNumbers { rate: step.rate, left_out: self.times_left_out(name) };
                    rule.apply(guard, weight, numbers)?;
                }
                self.leave_out(&left_out);
                self.pending.push(Pending { step, tokens: sums.tokens, left_out });
            }
            None => {
                let report = self.apply(&weights, sums, step)?;
                self.updates += 1;
                self.leave_out(&left_out);
                self.reports.push(Ok(report));
            }
        }
        for ((name, var), taken) in parameters.trained().zip(&gradients) {
            let rounding = || Rng::keyed(self.seed, &format!("train.tables.{name}"), step.step);
            taken.as_ref().map_or(Ok(()), |taken| taken.put_back(var, self.memory.get(name), rounding))?;
        }
        Ok(Applied::new(self.guard.as_deref()))
    }

    /// Checks the step on the host and makes the update.
    fn apply(&self, weights: &[(&str, Weight<'_>)], sums: &Sums, step: Step) -> Result<StepReport> {
        let nats = sums.nats.to_dtype(DType::F64)?.sum_all()?.to_scalar()?;
        let nats = finite(step, "the loss", nats)?;
        let decay = self.rule.coupled_decay();
        let squares = weights.iter().map(|(_, weight)| weight.squared_norm(decay));
        let squares = squares.collect::<Result<Vec<f64>>>()?;
        let grad_norm = finite(step, "the gradient's norm", squares.iter().sum::<f64>().sqrt())?;
        let scales = self.scales(weights, &squares, grad_norm);
        let numbers = |name: &str, scale: f64| {
            let update = self.updates + 1 - self.times_left_out(name);
            Numbers { rate: step.rate, scale, update }
        };
        for ((name, weight), &scale) in weights.iter().zip(&scales) {
            if !self.rule.is_finite(weight, numbers(name, scale))? {
                return Err(not_finite(step, format!("the update of {name} is not finite")));
            }
        }
        for ((name, weight), &scale) in weights.iter().zip(&scales) {
            self.rule.apply(weight, numbers(name, scale))?;
        }
        let Step { step, rate } = step;
        Ok(StepReport { step, rate, tokens: sums.tokens, nats, grad_norm, teacher_nats: None })
    }

    /// In how many of the updates so far the weight had no gradient.
    fn times_left_out(&self, name: &str) -> u64 {
        self.left_out.get(name).copied().unwrap_or(0)
    }

    /// An update was made in which these weights had no gradient.
    fn leave_out(&mut self, names: &[String]) {
        names.iter().for_each(|name| *self.left_out.entry(name.clone()).or_default() += 1);
    }

    /// What clipping leaves of the gradient of each weight, from the squares of their norms and the norm of all.
    fn scales(&self, weights: &[(&str, Weight<'_>)], squares: &[f64], grad_norm: f64) -> Vec<f64> {
        let Some(norms) = self.clip else { return vec![clip(grad_norm, self.max_grad_norm); weights.len()] };
        let mut sums = [0.0; PARTS.len()];
        for ((name, _), square) in weights.iter().zip(squares) {
            part_of(name).into_iter().for_each(|part| sums[part] += square);
        }
        let scale = |part: usize| clip(sums[part].sqrt(), norms.norms()[part]);
        weights.iter().map(|(name, _)| part_of(name).map_or(1.0, scale)).collect()
    }

    /// Steps that were made and not reported.
    pub fn pending(&self) -> usize {
        self.pending.len() + self.reports.len()
    }

    /// What steps did, in their order: nothing until a GPU has made as many as it records, or with `wait` all.
    pub fn reports(&mut self, wait: bool) -> Result<Vec<Result<StepReport>>> {
        let enough = self.guard.as_ref().map_or(1, |guard| guard.capacity());
        let pending = self.pending();
        if pending == 0 || !(wait || pending >= enough) {
            return Ok(Vec::new());
        }
        self.read()?;
        let reports = std::mem::take(&mut self.reports);
        let refused = reports.iter().rev().find_map(|report| match report {
            Err(Error::NotFinite { step, what }) => Some((*step, what.clone())),
            _ => None,
        });
        self.refused = refused.or(self.refused.take());
        Ok(reports)
    }

    /// Learns from a GPU what became of the steps that it has made.
    fn read(&mut self) -> Result<()> {
        let Some(guard) = &self.guard else { return Ok(()) };
        let (updates, records) = guard.read(self.pending.len())?;
        self.updates = updates;
        for (Pending { step, tokens, left_out }, record) in self.pending.drain(..).zip(&records) {
            if record.status != Status::Applied {
                let taken_back = |name| *self.left_out.entry(name).or_insert(1) -= 1;
                left_out.into_iter().for_each(taken_back);
            }
            self.reports.extend(from_record(step, tokens, record));
        }
        self.left_out.retain(|_, times| *times > 0);
        Ok(())
    }

    /// The error of the step that halted the run, for a step that came after it.
    pub(super) fn halted(&self) -> Error {
        let (step, what) =
            self.refused.clone().expect("a step is not reported only after one that was refused");
        Error::NotFinite { step, what }
    }

    /// What outlives a step.
    pub fn save(&self) -> Saved {
        let tensors = self.memory.iter().map(|(name, var)| (memory_name(name), var.as_detached_tensor()));
        Saved { updates: self.updates, left_out: self.left_out.clone(), tensors: tensors.collect() }
    }

    /// Begins anew, as before the first update, after `skipped` steps of the run were skipped.
    pub fn restart(&mut self, skipped: u64) -> Result<()> {
        self.updates = 0;
        self.left_out.clear();
        let may_skip = self.may_skip.saturating_sub(skipped);
        self.guard.iter().try_for_each(|guard| guard.begin(0, may_skip))?;
        for var in self.memory.values() {
            var.set(&var.zeros_like()?)?;
        }
        Ok(())
    }

    /// Takes back what [`Update::save`] gave, after `skipped` steps of the run were skipped.
    ///
    /// # Errors
    /// [`Error::Stored`] if a tensor is missing or of another shape, or a weight had no gradient in more updates than were made.
    pub fn load(&mut self, saved: Saved, skipped: u64) -> Result<()> {
        let Saved { updates, left_out, tensors } = saved;
        if let Some((name, times)) = left_out.iter().find(|(_, times)| **times > updates) {
            let what = format!("had no gradient in {times} updates, of {updates}");
            return Err(Error::tensor(name, what));
        }
        self.updates = updates;
        self.left_out = left_out;
        let may_skip = self.may_skip.saturating_sub(skipped);
        self.guard.iter().try_for_each(|guard| guard.begin(updates, may_skip))?;
        for (name, var) in &self.memory {
            let name = memory_name(name);
            let saved =
                tensors.get(&name).ok_or_else(|| Error::tensor(&name, "not in the training state"))?;
            if saved.dims() != var.dims() {
                return Err(Error::tensor(&name, format!("{:?}, wanted {:?}", saved.dims(), var.dims())));
            }
            var.set(&saved.to_device(var.device())?.to_dtype(var.dtype())?)?;
        }
        Ok(())
    }
}

/// The trained weights that have a gradient by name, each with it and what is remembered of it.
fn weights<'a>(
    parameters: &'a Parameters,
    gradients: &'a [Option<Taken>],
    memory: &'a BTreeMap<String, Var>,
) -> Vec<(&'a str, Weight<'a>)> {
    let named = parameters.trained().zip(gradients);
    named
        .filter_map(|((name, var), taken)| Some((name, Weight::new(var, taken.as_ref()?, memory.get(name)))))
        .collect()
}

/// The name of a weight's memory in a training state.
fn memory_name(name: &str) -> String {
    format!("moments.{name}")
}

/// What clipping leaves of a gradient.
fn clip(grad_norm: f64, max_grad_norm: f64) -> f64 {
    let clips = max_grad_norm > 0.0 && grad_norm > max_grad_norm;
    if clips { max_grad_norm / grad_norm } else { 1.0 }
}
