//! `[train]` of a recipe: how the weights are found.

pub use super::averaging::{Averaging, Ema, NtAsgd};
pub use super::clip::ClipConfig;
pub use super::latent::LatentTraining;
pub use super::loss::LossConfig;
pub use super::techniques::{ActivationConfig, FraternalConfig, FraternalVariant, WindowKind};
pub use crate::model::dropout::{DropoutConfig, DropoutKind};
pub use crate::model::{Initial, InitialRule};

use super::techniques::probability;
use super::{ListsConfig, TableNumbers};
use crate::error::{Error, Result};
use crate::model::UpdateGroup;
use serde::{Deserialize, Serialize};

/// How the weights are found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training split.
    pub epochs: u64,
    /// Rows of a batch, each of which reads its own part of the text.
    pub batch_size: usize,
    /// Time steps of a truncated back-propagation window, T.
    pub bptt_steps: usize,
    /// Whether each window has `bptt_steps`, or a number drawn around it.
    #[serde(default, skip_serializing_if = "WindowKind::is_fixed")]
    pub window: WindowKind,
    /// For a text too small for so many steps an epoch, `batch_size` and `bptt_steps` are made smaller unless they were
    /// set from outside; 0 leaves them.
    #[serde(default)]
    pub min_epoch_steps: u64,
    /// The update rule.
    pub optimizer: OptimizerKind,
    /// The rate, of the loss summed over the window's steps and averaged over its batch rows.
    pub learning_rate: f64,
    /// How the rate changes.
    #[serde(default)]
    pub schedule: Schedule,
    /// The gradient's global norm is cut to this; 0 leaves it.
    #[serde(default)]
    pub max_grad_norm: f64,
    /// Instead: a norm for each part of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<ClipConfig>,
    /// Over which words the loss of a token is, and from whom it is learned.
    #[serde(default, skip_serializing_if = "LossConfig::is_exact")]
    pub loss: LossConfig,
    /// For a classifier of sentences: how often a sentence that needs an edit is counted.
    #[serde(default = "full", skip_serializing_if = "is_full")]
    pub positive_weight: f64,
    /// How the latent vector of a sentence VAE comes into use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latent: Option<LatentTraining>,
    /// Which weights are trained; all others stay those of the checkpoint that the run begins with.
    #[serde(default, skip_serializing_if = "UpdateGroup::is_all")]
    pub update: UpdateGroup,
    /// For `sgd`, `adagrad` and `adam`: adds `weight_decay · ½‖θ‖²` to the loss; for `adamw`: decoupled.
    #[serde(default)]
    pub weight_decay: f64,
    /// For `sgd`: what is kept of the velocity from step to step; 0 has none.
    #[serde(default)]
    pub momentum: f64,
    /// With `momentum`: Nesterov's form, which steps by the velocity after the next gradient.
    #[serde(default)]
    pub nesterov: bool,
    /// Adam's decay of the first moment.
    #[serde(default = "beta1")]
    pub beta1: f64,
    /// Adam's decay of the second moment.
    #[serde(default = "beta2")]
    pub beta2: f64,
    /// Adam's and AdaGrad's guard against division by zero.
    #[serde(default = "epsilon")]
    pub epsilon: f64,
    /// For `adagrad`: what the sums of squares start from; 1 unless given. At 0 the first steps have the full rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_accumulator: Option<f64>,
    /// For `adagrad`: whether each number of a table has a sum of squares, or each row one.
    #[serde(default, skip_serializing_if = "Accumulator::is_element")]
    pub accumulator: Accumulator,
    /// In which numbers the tables of words are kept, where training looks up the rows of a few words alone.
    #[serde(default, skip_serializing_if = "TableNumbers::is_f32")]
    pub tables: TableNumbers,
    /// How first weights are drawn; other rules than `uniform` are for images.
    #[serde(default)]
    pub init: InitialRule,
    /// With `uniform`, first weights are uniform in ± this; with `glorot` and `he`, a factor on their range.
    pub init_scale: f64,
    /// Fixes the first weights and every mask.
    #[serde(default = "one")]
    pub seed: u64,
    /// Which values are dropped.
    #[serde(default)]
    pub dropout: DropoutConfig,
    /// Penalties on what the last layer gives.
    #[serde(default, skip_serializing_if = "ActivationConfig::is_off")]
    pub activation: ActivationConfig,
    /// Two passes over each window, which should agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraternal: Option<FraternalConfig>,
    /// Of `[task] kind = "rescore"`: how the scores of n-best lists are put together, and what is learned from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lists: Option<ListsConfig>,
    /// The probability with which a window begins with the zero state instead of the carried one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub state_reset: f64,
    /// By which weights the run is measured and published: its own, or their mean over the steps.
    #[serde(default, skip_serializing_if = "Averaging::is_none")]
    pub averaging: Averaging,
    /// Measure the validation split after every so many steps of the run as well, and publish the model if it is the
    /// best so far; 0 does so at each epoch's end alone. The schedule and `patience` go by epochs either way.
    #[serde(default)]
    pub evaluate_steps: u64,
    /// Stop after this many epochs in which no validation loss was better than before; 0 never does.
    #[serde(default)]
    pub patience: u64,
    /// Begin each epoch with the state that the last one left instead of zero (Kim et al.).
    #[serde(default)]
    pub carry_state: bool,
    /// Save the training state at least this often, in minutes; it is saved at each epoch's end anyway.
    #[serde(default = "ten")]
    pub save_minutes: f64,
    /// What to do at a step whose loss or gradient is not finite; its update is not applied either way.
    #[serde(default)]
    pub on_non_finite: OnNonFinite,
    /// With `skip`: stop after so many skipped steps after all.
    #[serde(default = "hundred")]
    pub max_skipped_steps: u64,
    /// What to do when the loss has left its course and is still a number; `train/divergence.rs` has the rule.
    #[serde(default)]
    pub on_divergence: OnDivergence,
    /// With `rollback`: stop after so many rollbacks after all.
    #[serde(default = "three")]
    pub max_rollbacks: u64,
}

/// What AdaGrad remembers of the tables that have a row for each word or character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accumulator {
    /// Of each number the sum of its squared gradients
    #[default]
    Element,
    /// Of each row the sum of its mean squared gradients
    Row,
}

impl Accumulator {
    fn is_element(&self) -> bool {
        *self == Self::Element
    }
}

/// What to do when the loss has left its course.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDivergence {
    /// Save and stop; `--resume` goes on once it is told to with one of the others
    #[default]
    Stop,
    /// Report it and go on
    Warn,
    /// Go back to the best weights, with half the rate from there on, and count it
    Rollback,
}

impl OnDivergence {
    /// As recipes name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Warn => "warn",
            Self::Rollback => "rollback",
        }
    }
}

/// What to do at a step whose loss or gradient is not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNonFinite {
    /// Stop the run; its last saved state is kept
    #[default]
    Stop,
    /// Leave weights, moments and state as they were, count it, and go on with the next window
    Skip,
}

fn is_full(value: &f64) -> bool {
    *value == full()
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

defaults! {
    beta1: f64 = 0.9;
    beta2: f64 = 0.999;
    epsilon: f64 = 1e-8;
    one: u64 = 1;
    ten: f64 = 10.0;
    hundred: u64 = 100;
    half: f64 = 0.5;
    full: f64 = 1.0;
    two: u64 = 2;
    three: u64 = 3;
}

/// The update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Plain stochastic gradient descent.
    Sgd,
    /// Adam (Kingma and Ba, 2015).
    Adam,
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
    AdamW,
    /// AdaGrad (Duchi et al., 2011).
    AdaGrad,
}

impl OptimizerKind {
    /// As recipes name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::Adam => "adam",
            Self::AdamW => "adamw",
            Self::AdaGrad => "adagrad",
        }
    }
}

/// How the rate changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// It does not. With braces, as one without would take any key.
    Constant {},
    /// Divided by `factor` at each epoch once `constant_epochs` are over.
    DecayPerEpoch(DecayPerEpoch),
    /// Multiplied by `factor` when the validation perplexity improved by less than `threshold` (Kim et al.). Of labels it is e to
    /// their nats; of n-best lists it is that of the references, which may rise while the word errors fall.
    HalveOnPlateau(HalveOnPlateau),
    /// Linear warm-up, then half a cosine down to `final_fraction` of the rate.
    Cosine(Cosine),
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Constant {}
    }
}

/// `rate / factor^max(epoch − constant_epochs + 1, 0)`, epochs counted from 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecayPerEpoch {
    /// What the rate is divided by.
    pub factor: f64,
    /// Epochs at the full rate.
    pub constant_epochs: u64,
}

/// Kim's rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HalveOnPlateau {
    /// What the rate is multiplied by.
    #[serde(default = "half")]
    pub factor: f64,
    /// The improvement in perplexity that keeps the rate.
    #[serde(default = "full")]
    pub threshold: f64,
    /// The rule holds once more than this many epochs are done.
    #[serde(default = "two")]
    pub after_epochs: u64,
}

/// Linear warm-up, then half a cosine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cosine {
    /// Steps of the warm-up.
    #[serde(default)]
    pub warmup_steps: u64,
    /// The rate's last value, as a fraction of the first.
    #[serde(default)]
    pub final_fraction: f64,
}

impl TrainConfig {
    /// How first weights are drawn.
    pub fn initial(&self) -> Initial {
        Initial { rule: self.init, scale: self.init_scale }
    }

    /// How often an epoch of so many steps measures the validation split: at its end, and within it as `evaluate_steps` says.
    pub(crate) fn validations(&self, steps: u64) -> u64 {
        let within = steps.saturating_sub(1).checked_div(self.evaluate_steps);
        1 + within.unwrap_or(0)
    }

    /// Refuses settings that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::config(what));
        let counts = [
            ("epochs", self.epochs == 0),
            ("batch_size", self.batch_size == 0),
            ("bptt_steps", self.bptt_steps == 0),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, is_none)| *is_none) {
            return wrong(format!("train.{name} is 0, wanted 1 or more"));
        }
        let positive = [
            ("learning_rate", self.learning_rate),
            ("epsilon", self.epsilon),
            ("positive_weight", self.positive_weight),
        ];
        if let Some((name, value)) = positive.iter().find(|(_, value)| !(*value > 0.0 && value.is_finite())) {
            return wrong(format!("train.{name} is {value}, wanted a number above 0"));
        }
        let not_negative = [
            ("max_grad_norm", self.max_grad_norm),
            ("weight_decay", self.weight_decay),
            ("init_scale", self.init_scale),
            ("save_minutes", self.save_minutes),
            ("initial_accumulator", self.initial_accumulator.unwrap_or(0.0)),
        ];
        if let Some((name, value)) =
            not_negative.iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite()))
        {
            return wrong(format!("train.{name} is {value}, wanted 0 or more"));
        }
        let below_one = [("beta1", self.beta1), ("beta2", self.beta2), ("momentum", self.momentum)];
        if let Some((name, value)) = below_one.iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
            return wrong(format!("train.{name} is {value}, wanted 0 ≤ {name} < 1"));
        }
        let has_velocity = self.momentum > 0.0;
        if (has_velocity && self.optimizer != OptimizerKind::Sgd) || (self.nesterov && !has_velocity) {
            return wrong(
                "train.momentum is for train.optimizer = \"sgd\", and train.nesterov needs a momentum".into(),
            );
        }
        if self.initial_accumulator.is_some() && self.optimizer != OptimizerKind::AdaGrad {
            return wrong("train.initial_accumulator is for train.optimizer = \"adagrad\"".into());
        }
        if !self.accumulator.is_element() && self.optimizer != OptimizerKind::AdaGrad {
            return wrong("train.accumulator = \"row\" is for train.optimizer = \"adagrad\"".into());
        }
        self.clip.map_or(Ok(()), |clip| clip.validate(self.max_grad_norm))?;
        self.averaging.validate()?;
        self.latent.as_ref().map_or(Ok(()), LatentTraining::validate)?;
        self.schedule.validate()?;
        self.activation.validate()?;
        probability("train.state_reset", self.state_reset)?;
        self.lists.map_or(Ok(()), |lists| lists.validate())?;
        Ok(())
    }
}

impl Schedule {
    fn validate(&self) -> Result<()> {
        let (name, value, fits) = match self {
            Self::Constant {} => return Ok(()),
            Self::DecayPerEpoch(decay) => ("factor", decay.factor, decay.factor > 0.0),
            Self::HalveOnPlateau(HalveOnPlateau { threshold, .. }) if threshold.is_nan() => {
                ("threshold", *threshold, false)
            }
            Self::HalveOnPlateau(plateau) => ("factor", plateau.factor, plateau.factor > 0.0),
            Self::Cosine(cosine) => ("final_fraction", cosine.final_fraction, cosine.final_fraction >= 0.0),
        };
        if fits && value.is_finite() {
            return Ok(());
        }
        let least = if name == "final_fraction" { "of 0 or more" } else { "above 0" };
        Err(Error::config(format!("train.schedule.{name} is {value}, wanted a finite number {least}")))
    }
}
