//! `[train.latent]` of a recipe: how the latent vector of a sentence VAE comes into use.
//!
//! Without the weight of the KL that grows, and without words that the decoder does not see, the decoder learns to do without
//! the vector before the encoder has learned to fill it (Bowman et al., 2016, section 3.1).

use crate::error::{Error, Result};
use crate::model::dropout::DropoutConfig;
use serde::{Deserialize, Serialize};

/// The share of its last value that the weight of the KL must have to count as there: two of the curves only approach it.
const REACHED: f64 = 0.99;

/// `[train.latent]` of a recipe: how the latent vector of a sentence VAE comes into use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LatentTraining {
    /// The weight of the KL from step to step.
    pub schedule: KlSchedule,
    /// The loss has at least so many nats of KL for each number of the vector, which costs nothing to use (Kingma et al.,
    /// 2016, per sentence and number). With a learned prior they are of the exact part of the KL alone, which the prior can make up
    /// for: it is better learned after them.
    pub free_bits: f64,
    /// Epochs after which no bits are free; `None` leaves them to the end. They keep the vector in use while a run is young,
    /// and what is trained with them is not quite the bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bits_epochs: Option<u64>,
    /// The share of the words that the decoder reads; the others are `<unk>` to it, and the encoder sees all. With 0 it never
    /// reads a word, in evaluation and generation neither.
    pub word_keep: f64,
    /// What the encoder drops; `train.dropout` is the decoder's. Its rate `output` is that of the encoder's last states.
    #[serde(skip_serializing_if = "DropoutConfig::is_off")]
    pub encoder_dropout: DropoutConfig,
}

impl Default for LatentTraining {
    fn default() -> Self {
        Self {
            schedule: KlSchedule::default(),
            free_bits: 0.0,
            free_bits_epochs: None,
            word_keep: 1.0,
            encoder_dropout: DropoutConfig::default(),
        }
    }
}

/// The weight of the KL from step to step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum KlSchedule {
    /// min(1, step / steps).
    Linear(Linear),
    /// 1 / (1 + exp(−rate (step − midpoint))) (Bowman et al., 2016).
    Logistic(Logistic),
    /// (tanh((step − midpoint) / width) + 1) / 2.
    Tanh(Tanh),
    /// Several times from 0 to 1 and on at 1, then 1 (Fu et al., 2019).
    Cyclical(Cyclical),
    /// In a line from `from` to 1 within so many epochs.
    LinearEpochs(LinearEpochs),
    /// The same weight at each step.
    Constant(Constant),
}

impl Default for KlSchedule {
    fn default() -> Self {
        Self::LinearEpochs(LinearEpochs { from: tenth(), epochs: ten() })
    }
}

/// min(1, step / steps).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Steps until it is 1.
    #[serde(default = "steps")]
    pub steps: u64,
}

/// 1 / (1 + exp(−rate (step − midpoint))).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logistic {
    /// How steep it is.
    #[serde(default = "rate")]
    pub rate: f64,
    /// The step at which it is one half.
    #[serde(default = "steps")]
    pub midpoint: u64,
}

/// (tanh((step − midpoint) / width) + 1) / 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tanh {
    /// The step at which it is one half.
    #[serde(default = "tanh_midpoint")]
    pub midpoint: u64,
    /// Steps from there to 0.88.
    #[serde(default = "tanh_width")]
    pub width: f64,
}

/// Several times from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cyclical {
    /// Steps of a cycle.
    pub cycle_steps: u64,
    /// How many cycles there are; after them it is 1.
    #[serde(default = "four")]
    pub cycles: u64,
    /// The part of a cycle in which it rises.
    #[serde(default = "half")]
    pub ramp: f64,
}

/// In a line from `from` to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearEpochs {
    /// At the first step.
    #[serde(default = "tenth")]
    pub from: f64,
    /// Epochs until it is 1.
    #[serde(default = "ten")]
    pub epochs: u64,
}

/// The same weight at each step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// 1 is the bound itself.
    pub weight: f64,
}

defaults! {
    steps: u64 = 2500;
    rate: f64 = 0.0025;
    tanh_midpoint: u64 = 3500;
    tanh_width: f64 = 1000.0;
    four: u64 = 4;
    half: f64 = 0.5;
    tenth: f64 = 0.1;
    ten: u64 = 10;
}

impl LatentTraining {
    pub(super) fn validate(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.word_keep) {
            let keep = self.word_keep;
            return Err(Error::config(format!(
                "train.latent.word_keep is {keep}, wanted a share from 0 to 1"
            )));
        }
        if !(self.free_bits >= 0.0 && self.free_bits.is_finite()) {
            return Err(Error::config(format!(
                "train.latent.free_bits is {}, wanted 0 or more",
                self.free_bits
            )));
        }
        if self.free_bits == 0.0 && self.free_bits_epochs.is_some() {
            return Err(Error::config(
                "train.latent.free_bits_epochs ends train.latent.free_bits, which is 0: give it too",
            ));
        }
        self.schedule.validate()
    }

    /// The nats of KL for each number of the vector that are free at `step`, counted from 0, of a run with so many steps an
    /// epoch.
    pub fn free_bits(&self, step: u64, steps_per_epoch: u64) -> f64 {
        let is_over =
            self.free_bits_epochs.is_some_and(|epochs| step >= epochs.saturating_mul(steps_per_epoch));
        if is_over { 0.0 } else { self.free_bits }
    }
}

impl KlSchedule {
    /// The weight at `step`, counted from 0, of a run with so many steps an epoch.
    pub fn weight(&self, step: u64, steps_per_epoch: u64) -> f64 {
        let at = step as f64;
        match self {
            Self::Linear(linear) => (at / linear.steps as f64).min(1.0),
            Self::Logistic(logistic) => {
                1.0 / (1.0 + (-logistic.rate * (at - logistic.midpoint as f64)).exp())
            }
            Self::Tanh(tanh) => 0.5 * (((at - tanh.midpoint as f64) / tanh.width).tanh() + 1.0),
            Self::Cyclical(cyclical) if step >= cyclical.cycles.saturating_mul(cyclical.cycle_steps) => 1.0,
            Self::Cyclical(cyclical) => {
                let part = (step % cyclical.cycle_steps) as f64 / cyclical.cycle_steps as f64;
                (part / cyclical.ramp).min(1.0)
            }
            Self::LinearEpochs(linear) => {
                let all = linear.epochs.saturating_mul(steps_per_epoch).max(1) as f64;
                (linear.from + (1.0 - linear.from) * at / all).min(1.0)
            }
            Self::Constant(constant) => constant.weight,
        }
    }

    /// What it comes to.
    pub fn last(&self) -> f64 {
        if let Self::Constant(constant) = self { constant.weight } else { 1.0 }
    }

    /// Whether `weight` is what it comes to, or as good as.
    pub fn is_reached(&self, weight: f64) -> bool {
        weight >= REACHED * self.last()
    }

    fn validate(&self) -> Result<()> {
        let is_positive = |value: f64| value > 0.0 && value.is_finite();
        let fits = match self {
            Self::Linear(linear) => ("steps", linear.steps as f64, linear.steps > 0, "1 or more"),
            Self::Logistic(Logistic { rate, .. }) => ("rate", *rate, is_positive(*rate), "a number above 0"),
            Self::Tanh(Tanh { width, .. }) => ("width", *width, is_positive(*width), "a number above 0"),
            Self::Cyclical(Cyclical { cycle_steps: 0, .. }) => ("cycle_steps", 0.0, false, "1 or more"),
            Self::Cyclical(Cyclical { ramp, .. }) => {
                ("ramp", *ramp, *ramp > 0.0 && *ramp <= 1.0, "a share above 0 and at most 1")
            }
            Self::LinearEpochs(LinearEpochs { from, .. }) => {
                ("from", *from, (0.0..=1.0).contains(from), "a weight from 0 to 1")
            }
            Self::Constant(Constant { weight }) => {
                ("weight", *weight, *weight >= 0.0 && weight.is_finite(), "0 or more")
            }
        };
        match fits {
            (_, _, true, _) => Ok(()),
            (key, found, false, wanted) => {
                Err(Error::config(format!("train.latent.schedule.{key} is {found}, wanted {wanted}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(toml: &str) -> KlSchedule {
        toml::from_str(toml).unwrap()
    }

    fn assert_weights(schedule: &KlSchedule, wanted: &[(u64, f64)]) {
        for &(step, wanted) in wanted {
            let found = schedule.weight(step, 100);
            assert!((found - wanted).abs() < 1e-12, "{schedule:?} at {step}: {found}, wanted {wanted}");
        }
    }

    #[test]
    fn the_weights_of_each_schedule_are_those_of_its_formula() {
        let linear = schedule("kind = 'linear'\nsteps = 4");
        assert_weights(&linear, &[(0, 0.0), (1, 0.25), (4, 1.0), (100, 1.0)]);
        let e = std::f64::consts::E;
        let logistic = schedule("kind = 'logistic'"); // 0.0025 (step − 2500): −1 at 2100, 2 at 3300
        assert_weights(
            &logistic,
            &[(2500, 0.5), (2100, 1.0 / (1.0 + e)), (3300, 1.0 / (1.0 + (-2.0f64).exp()))],
        );
        let tanh = schedule("kind = 'tanh'"); // (tanh x + 1) / 2 is the logistic of 2 x
        assert_weights(
            &tanh,
            &[(3500, 0.5), (4500, 1.0 / (1.0 + (-2.0f64).exp())), (2500, 1.0 / (1.0 + e * e))],
        );
        let cyclical = schedule("kind = 'cyclical'\ncycle_steps = 10");
        assert_weights(
            &cyclical,
            &[(0, 0.0), (1, 0.2), (5, 1.0), (9, 1.0), (10, 0.0), (33, 0.6), (40, 1.0), (41, 1.0)],
        );
        let epochs = schedule("kind = 'linear-epochs'"); // from 0.1 to 1 in ten epochs of 100 steps
        assert_weights(&epochs, &[(0, 0.1), (500, 0.55), (1000, 1.0), (5000, 1.0)]);
        assert_weights(&schedule("kind = 'constant'\nweight = 0.5"), &[(0, 0.5), (9, 0.5)]);
    }

    #[test]
    fn a_weight_is_reached_where_it_is_as_good_as_its_last() {
        let logistic = schedule("kind = 'logistic'");
        assert!(!logistic.is_reached(logistic.weight(4000, 1))); // 0.977
        assert!(logistic.is_reached(logistic.weight(4400, 1))); // 0.991
        assert!(schedule("kind = 'constant'\nweight = 0.5").is_reached(0.5));
    }

    #[test]
    fn free_bits_end_after_their_epochs() {
        let of = |free_bits_epochs| LatentTraining {
            free_bits: 0.1,
            free_bits_epochs,
            ..LatentTraining::default()
        };
        let free = |epochs, step| of(epochs).free_bits(step, 100);
        assert_eq!([free(Some(3), 0), free(Some(3), 299), free(Some(3), 300)], [0.1, 0.1, 0.0]);
        assert_eq!([free(Some(0), 0), free(None, u64::MAX), free(Some(u64::MAX), 300)], [0.0, 0.1, 0.1]);
        let nothing = LatentTraining { free_bits: 0.0, ..of(Some(3)) };
        assert!(nothing.validate().unwrap_err().to_string().contains("free_bits_epochs"));
    }

    #[test]
    fn what_no_schedule_can_have_is_refused() {
        for (wrong, key) in [
            ("kind = 'linear'\nsteps = 0", "steps"),
            ("kind = 'logistic'\nrate = -1.0", "rate"),
            ("kind = 'tanh'\nwidth = 0.0", "width"),
            ("kind = 'cyclical'\ncycle_steps = 0", "cycle_steps"),
            ("kind = 'cyclical'\ncycle_steps = 5\nramp = 1.5", "ramp"),
            ("kind = 'linear-epochs'\nfrom = 2.0", "from"),
            ("kind = 'constant'\nweight = nan", "weight"),
        ] {
            let error = schedule(wrong).validate().unwrap_err().to_string();
            assert!(error.contains(&format!("train.latent.schedule.{key} is")), "{error}");
        }
        let keep = LatentTraining { word_keep: 1.5, ..LatentTraining::default() };
        assert!(keep.validate().unwrap_err().to_string().contains("word_keep is 1.5"));
    }
}
