//! Whether a step may change anything, where that is decided by a GPU: what a verdict is made from, and what it says.
//!
//! [`Control`] is that GPU's; a build without CUDA has none, and no value of the type.

#[cfg(feature = "cuda")]
pub use crate::update::cuda::Control;
#[cfg(not(feature = "cuda"))]
pub use none::Control;

/// What a step's verdict and its clipping depend on.
#[derive(Clone, Copy, Debug)]
pub struct JudgeRule {
    /// The learning rate.
    pub rate: f64,
    /// The gradient's global norm is cut to this; 0 leaves it.
    pub max_norm: f64,
    /// The decay that is part of the loss, and so of the norm.
    pub decay: f64,
    /// Whether the update squares the gradient.
    pub adam: bool,
    /// Of Adam's first moment.
    pub beta1: f64,
    /// Of Adam's second moment.
    pub beta2: f64,
}

/// Numbers of an update by Adam or AdamW; the moments' bias is corrected by the updates that were applied.
#[derive(Clone, Copy, Debug)]
pub struct AdamRule {
    /// The learning rate.
    pub rate: f64,
    /// Of the first moment.
    pub beta1: f64,
    /// Of the second moment.
    pub beta2: f64,
    /// Guard against division by zero.
    pub epsilon: f64,
    /// The decay that is part of the gradient.
    pub decay: f64,
    /// The decay that is not.
    pub decoupled: f64,
}

/// How a step was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It was applied.
    Applied,
    /// Its loss is not finite.
    Loss,
    /// Its gradient's norm is not finite.
    Norm,
    /// Its update is not finite.
    Update,
    /// It came after one that halted the run.
    After,
}

impl Judged {
    /// By its number in `control.cuh`; what is none of them counts as a loss that is not finite.
    pub fn of(number: f64) -> Self {
        match number as u64 {
            0 if number == 0.0 => Self::Applied,
            2 => Self::Norm,
            3 => Self::Update,
            4 => Self::After,
            _ => Self::Loss,
        }
    }
}

/// What is kept of a step.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// −ln p summed over the window's tokens.
    pub nats: f64,
    /// The gradient's global norm before it was clipped.
    pub grad_norm: f64,
    /// What became of it.
    pub judged: Judged,
}

#[cfg(not(feature = "cuda"))]
mod none {
    use super::{AdamRule, JudgeRule, Record};
    use candle_core::{DType, Device, Result, Tensor, Var};

    /// There is none in this build.
    #[derive(Debug)]
    pub enum Control {}

    #[expect(missing_docs, reason = "those of the other build; none can be called")]
    impl Control {
        pub fn on(_: &Device, _: DType, _: usize) -> Result<Option<Self>> {
            Ok(None)
        }

        pub fn room(&self) -> usize {
            match *self {}
        }

        pub fn set(&self, _: u64, _: u64) -> Result<()> {
            match *self {}
        }

        pub fn read(&self, _: usize) -> Result<(u64, Vec<Record>)> {
            match *self {}
        }

        pub fn judge(&self, _: &Tensor, _: &[(&Tensor, &Var)], _: &JudgeRule, _: usize) -> Result<()> {
            match *self {}
        }

        pub fn sgd(&self, _: &Var, _: &Tensor, _: f64, _: f64) -> Result<()> {
            match *self {}
        }

        pub fn adam(&self, _: &Var, _: &Var, _: &Tensor, _: &AdamRule) -> Result<()> {
            match *self {}
        }

        pub fn carry(&self, _: &Tensor, _: &Tensor) -> Result<Tensor> {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Judged;

    #[test]
    fn a_number_that_means_nothing_is_no_step_that_was_applied() {
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0, 4.0].map(Judged::of),
            [Judged::Applied, Judged::Loss, Judged::Norm, Judged::Update, Judged::After]
        );
        for wrong in [f64::NAN, -1.0, 0.5, 9.0] {
            assert_ne!(Judged::of(wrong), Judged::Applied, "{wrong}");
        }
    }
}
