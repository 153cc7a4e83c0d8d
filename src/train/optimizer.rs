//! Update rules: plain SGD, Adam (Kingma and Ba, 2015) and AdamW (Loshchilov and Hutter, 2019).

use super::ledger::Verdict;
use crate::config::TrainConfig;
use crate::config::train::OptimizerKind;
use crate::error::{Error, Result};
use crate::model::Parameters;
use candle_core::{Tensor, Var};
use rhn_kernels::profile::{self, Part};
use rhn_kernels::update::guard::{AdamRule, JudgeRule};
use rhn_kernels::update::{self, AdamStep, MomentsStep, finite as foresight};
use std::collections::BTreeMap;

/// Gradients by the name of what they are for.
pub type Gradients = BTreeMap<String, Tensor>;

/// An update rule and what it remembers.
pub struct Optimizer {
    kind: OptimizerKind,
    weight_decay: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    updates: u64,
    /// For Adam: both moments of each tensor, `(2, …)`.
    moments: BTreeMap<String, Var>,
}

impl Optimizer {
    /// At the first step, nothing remembered.
    pub fn new(config: &TrainConfig, parameters: &Parameters) -> Result<Self> {
        let mut moments = BTreeMap::new();
        if config.optimizer != OptimizerKind::Sgd {
            for (name, var) in parameters.trained() {
                let shape = [&[2], var.dims()].concat();
                moments.insert(name.to_string(), Var::zeros(shape, var.dtype(), var.device())?);
            }
        }
        let &TrainConfig { optimizer: kind, weight_decay, beta1, beta2, epsilon, .. } = config;
        Ok(Self { kind, weight_decay, beta1, beta2, epsilon, updates: 0, moments })
    }

    /// The decay that is part of the loss, and so of the gradient's norm.
    fn coupled_decay(&self) -> f64 {
        if self.kind == OptimizerKind::AdamW { 0.0 } else { self.weight_decay }
    }

    /// The global norm of the gradient of loss and weight decay.
    pub fn grad_norm(&self, parameters: &Parameters, grads: &Gradients) -> Result<f64> {
        let _timed = profile::within(Part::Optimizer);
        let decay = self.coupled_decay();
        let squares = parameters.trained().map(|(name, var)| match grads.get(name) {
            Some(grad) => Ok(update::squared_norm(grad, var, decay)?),
            None => Err(no_gradient(name)),
        });
        Ok(squares.sum::<Result<f64>>()?.sqrt())
    }

    /// The first tensor of which an update would write a number that is not finite, be it a weight or a moment.
    ///
    /// It changes nothing: a step is refused before any part of it is made.
    pub fn spoils<'a>(
        &self,
        parameters: &'a Parameters,
        grads: &Gradients,
        rate: f64,
        scale: f64,
    ) -> Result<Option<&'a str>> {
        let _timed = profile::within(Part::Optimizer);
        let (moments_step, step) = (self.moments_step(scale), self.adam_step(self.updates + 1, rate));
        for (name, var) in parameters.trained() {
            let grad = grads.get(name).ok_or_else(|| no_gradient(name))?;
            let finite = match self.kind {
                OptimizerKind::Sgd => foresight::sgd(var, grad, rate, scale, self.weight_decay)?,
                OptimizerKind::Adam | OptimizerKind::AdamW => {
                    foresight::adam(var, &self.moments[name], grad, moments_step, step)?
                }
            };
            if !finite {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// What a GPU's verdict depends on: the rule, and each gradient beside its parameter.
    pub(super) fn judged_by<'a>(
        &self,
        parameters: &'a Parameters,
        grads: &'a Gradients,
        rate: f64,
        max_norm: f64,
    ) -> Result<(JudgeRule, Vec<(&'a Tensor, &'a Var)>)> {
        let (decay, adam) = (self.coupled_decay(), self.kind != OptimizerKind::Sgd);
        let rule = JudgeRule { rate, max_norm, decay, adam, beta1: self.beta1, beta2: self.beta2 };
        let pair =
            |(name, var): (&str, &'a Var)| Ok((grads.get(name).ok_or_else(|| no_gradient(name))?, var));
        Ok((rule, parameters.trained().map(pair).collect::<Result<_>>()?))
    }

    /// One update, as far as `verdict` lets it: the gradient times what clipping leaves of it, or as a GPU decides.
    pub fn update<'a>(
        &mut self,
        parameters: &Parameters,
        grads: &Gradients,
        rate: f64,
        verdict: impl Into<Verdict<'a>>,
    ) -> Result<()> {
        let (verdict, _timed) = (verdict.into(), profile::within(Part::Optimizer));
        self.updates += u64::from(matches!(verdict, Verdict::Scale(_)));
        for (name, var) in parameters.trained() {
            let grad = grads.get(name).ok_or_else(|| no_gradient(name))?;
            match (self.kind, verdict) {
                (OptimizerKind::Sgd, Verdict::Scale(scale)) => {
                    update::sgd(var, grad, rate, scale, self.weight_decay)?;
                }
                (_, Verdict::Scale(scale)) => self.adam(name, var, grad, rate, scale)?,
                (OptimizerKind::Sgd, Verdict::OnDevice(control)) => {
                    control.sgd(var, grad, rate, self.weight_decay)?;
                }
                (_, Verdict::OnDevice(control)) => {
                    control.adam(var, &self.moments[name], grad, &self.adam_rule(rate))?;
                }
            }
        }
        Ok(())
    }

    fn adam_rule(&self, rate: f64) -> AdamRule {
        let &Self { beta1, beta2, epsilon, .. } = self;
        AdamRule {
            rate,
            beta1,
            beta2,
            epsilon,
            decay: self.coupled_decay(),
            decoupled: self.decoupled_decay(),
        }
    }

    /// The decay that is no part of the gradient.
    fn decoupled_decay(&self) -> f64 {
        if self.kind == OptimizerKind::AdamW { self.weight_decay } else { 0.0 }
    }

    /// Takes over the number of updates that a GPU has made.
    pub(super) fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }

    fn adam(&self, name: &str, var: &Var, grad: &Tensor, rate: f64, scale: f64) -> Result<()> {
        let moments = &self.moments[name];
        update::adam_moments(moments, grad, &var.as_detached_tensor(), self.moments_step(scale))?;
        Ok(update::adam(var, moments, self.adam_step(self.updates, rate))?)
    }

    fn moments_step(&self, scale: f64) -> MomentsStep {
        MomentsStep { scale, beta1: self.beta1, beta2: self.beta2, decay: self.coupled_decay() }
    }

    /// Of update `turn`, counted from 1.
    fn adam_step(&self, turn: u64, rate: f64) -> AdamStep {
        let correction = |beta: f64| 1.0 - beta.powf(turn as f64);
        AdamStep {
            rate: rate / correction(self.beta1),
            root_scale: 1.0 / correction(self.beta2).sqrt(),
            epsilon: self.epsilon,
            keep: 1.0 - rate * self.decoupled_decay(),
        }
    }

    /// What it remembers, to be saved: the number of updates, and tensors by name.
    pub fn save(&self) -> (u64, BTreeMap<String, Tensor>) {
        let moments =
            self.moments.iter().map(|(name, var)| (format!("moments.{name}"), var.as_detached_tensor()));
        (self.updates, moments.collect())
    }

    /// Takes back what [`Optimizer::save`] gave.
    pub fn load(&mut self, updates: u64, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        self.updates = updates;
        for (name, var) in &self.moments {
            let name = format!("moments.{name}");
            match tensors.get(&name) {
                Some(saved) if saved.dims() == var.dims() => {
                    var.set(&saved.to_device(var.device())?.to_dtype(var.dtype())?)?;
                }
                Some(saved) => {
                    return Err(Error::checkpoint(
                        &name,
                        format!("{:?}, wanted {:?}", saved.dims(), var.dims()),
                    ));
                }
                None => return Err(Error::checkpoint(&name, "not in the training state")),
            }
        }
        Ok(())
    }
}

fn no_gradient(name: &str) -> Error {
    Error::Tensor(candle_core::Error::Msg(format!("{name} received no gradient")))
}
