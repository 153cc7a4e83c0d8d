//! What one element becomes: the equations of the update rules, shared by the pass that writes and the one that checks.

use crate::cpu::real::Real;

/// Elements of a tensor that are summed or updated together; `PIECE` of `update.cu`.
pub(crate) const PIECE: usize = 1 << 14;

/// Numbers of one step of Adam's moments.
#[derive(Clone, Copy, Debug)]
pub struct MomentsStep {
    /// What the gradient is multiplied by: what clipping leaves of it.
    pub scale: f64,
    /// The decay of the first moment.
    pub beta1: f64,
    /// The decay of the second moment.
    pub beta2: f64,
    /// The decay that is part of the gradient.
    pub decay: f64,
}

/// Numbers of one Adam step.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// The rate, the correction of the first moment's bias included.
    pub rate: f64,
    /// What the second moment's root is multiplied by to correct its bias.
    pub root_scale: f64,
    /// Guard against division by zero.
    pub epsilon: f64,
    /// What the parameter is multiplied by first: 1 − rate · decoupled decay.
    pub keep: f64,
}

/// θ ← keep · θ + step · g
pub(crate) struct Sgd {
    keep: f64,
    step: f64,
}

impl Sgd {
    pub(crate) fn new(rate: f64, scale: f64, decay: f64) -> Self {
        Self { keep: 1.0 - rate * scale * decay, step: -rate * scale }
    }

    /// What θ is multiplied by, and g.
    pub(crate) fn numbers<T: Real>(&self) -> (T, T) {
        (T::from_f64(self.keep), T::from_f64(self.step))
    }
}

/// Numbers of one step of gradient descent with a velocity.
#[derive(Clone, Copy, Debug)]
pub struct VelocityStep {
    /// The learning rate.
    pub rate: f64,
    /// What the gradient is multiplied by: what clipping leaves of it.
    pub scale: f64,
    /// The decay that is part of the gradient.
    pub decay: f64,
    /// What is kept of the velocity.
    pub momentum: f64,
    /// Whether θ moves by the velocity as it will be after another such gradient (Nesterov).
    pub nesterov: bool,
}

/// The same in the elements' type.
#[derive(Clone, Copy)]
pub(crate) struct Velocity<T> {
    rate: T,
    scale: T,
    decay: T,
    momentum: T,
    nesterov: bool,
}

impl<T: Real> Velocity<T> {
    pub(crate) fn new(step: &VelocityStep) -> Self {
        let [rate, scale, decay, momentum] =
            [step.rate, step.scale, step.decay, step.momentum].map(T::from_f64);
        Self { rate, scale, decay, momentum, nesterov: step.nesterov }
    }

    /// v after a step with gradient `g` at θ = `p`.
    #[inline(always)]
    pub(crate) fn velocity(&self, v: T, g: T, p: T) -> T {
        self.momentum * v + (g + self.decay * p) * self.scale
    }

    /// θ after the step, from v after it and the gradient.
    #[inline(always)]
    pub(crate) fn parameter(&self, p: T, v: T, g: T) -> T {
        let by = if self.nesterov { (g + self.decay * p) * self.scale + self.momentum * v } else { v };
        p - self.rate * by
    }
}

/// Adam's two moments in the elements' type.
#[derive(Clone, Copy)]
pub(crate) struct Moments<T> {
    scale: T,
    decay: T,
    /// Shares of the old first moment and of the gradient.
    first: (T, T),
    /// Shares of the old second moment and of the gradient's square.
    second: (T, T),
}

impl<T: Real> Moments<T> {
    pub(crate) fn new(step: &MomentsStep) -> Self {
        let shares = |beta: f64| (T::from_f64(beta), T::from_f64(1.0 - beta));
        let scale = T::from_f64(step.scale);
        let decay = T::from_f64(step.decay);
        Self { scale, decay, first: shares(step.beta1), second: shares(step.beta2) }
    }

    /// m and v after a step with gradient `g` at θ = `p`.
    #[inline(always)]
    pub(crate) fn after(&self, m: T, v: T, g: T, p: T) -> (T, T) {
        let g = (g + self.decay * p) * self.scale;
        (m * self.first.0 + g * self.first.1, v * self.second.0 + g * g * self.second.1)
    }
}

/// Adam's step in the elements' type.
#[derive(Clone, Copy)]
pub(crate) struct Adam<T> {
    rate: T,
    root_scale: T,
    epsilon: T,
    keep: T,
}

impl<T: Real> Adam<T> {
    pub(crate) fn new(step: &AdamStep) -> Self {
        let [rate, root_scale, epsilon, keep] =
            [step.rate, step.root_scale, step.epsilon, step.keep].map(T::from_f64);
        Self { rate, root_scale, epsilon, keep }
    }

    /// θ after the step, from its moments after it.
    #[inline(always)]
    pub(crate) fn after(&self, p: T, m: T, v: T) -> T {
        p * self.keep - self.rate * m / (self.root_scale * v.sqrt() + self.epsilon)
    }
}
