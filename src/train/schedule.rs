//! The learning rate: a function of epoch and step, and for Kim's rule of the validation perplexities so far.

use crate::config::train::{Schedule, TrainConfig};
use serde::{Deserialize, Serialize};

/// The rate of a run, and what it has learned from the validation split.
#[derive(Clone, Debug)]
pub struct Rate {
    schedule: Schedule,
    first: f64,
    total_steps: u64,
    memory: RateMemory,
}

/// What outlives a step; saved with the training state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateMemory {
    /// What the first rate is multiplied by now.
    pub factor: f64,
    /// The validation perplexity of the epoch before.
    pub last_perplexity: Option<f64>,
    /// How often the run went back to its best weights; each halves the rate.
    #[serde(default)]
    pub rollbacks: u64,
    /// What the last step had when a validation or a way back changed the rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
}

/// The rate of a step after which it changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Before {
    /// Steps that had been made.
    pub made: u64,
    /// The rate of the last of them.
    pub rate: f64,
}

impl Default for RateMemory {
    fn default() -> Self {
        Self { factor: 1.0, last_perplexity: None, rollbacks: 0, before: None }
    }
}

impl Rate {
    /// For a run of `total_steps`.
    pub fn new(config: &TrainConfig, total_steps: u64) -> Self {
        Self {
            schedule: config.schedule.clone(),
            first: config.learning_rate,
            total_steps,
            memory: RateMemory::default(),
        }
    }

    /// The rate of step `step` in epoch `epoch`, both counted from 0.
    pub fn at(&self, epoch: u64, step: u64) -> f64 {
        let factor = match &self.schedule {
            Schedule::Constant {} => 1.0,
            Schedule::HalveOnPlateau(_) => self.memory.factor,
            Schedule::DecayPerEpoch(decay) => {
                let decays = (epoch + 1).saturating_sub(decay.constant_epochs);
                decay.factor.powf(-(decays as f64))
            }
            Schedule::Cosine(cosine) if step < cosine.warmup_steps => {
                (step + 1) as f64 / cosine.warmup_steps as f64
            }
            Schedule::Cosine(cosine) => {
                let past = (step - cosine.warmup_steps) as f64;
                let all = self.total_steps.saturating_sub(cosine.warmup_steps).max(1) as f64;
                let wave = 0.5 * (1.0 + (std::f64::consts::PI * (past / all).min(1.0)).cos());
                cosine.final_fraction + (1.0 - cosine.final_fraction) * wave
            }
        };
        self.first * factor * 0.5f64.powf(self.memory.rollbacks as f64)
    }

    /// The rate that the last of `made` steps was made with, which was of epoch `epoch`, counted from 0.
    pub fn of_last(&self, epoch: u64, made: u64) -> f64 {
        match self.memory.before {
            Some(before) if before.made == made => before.rate,
            _ => self.at(epoch, made.saturating_sub(1)),
        }
    }

    /// The rate changes after `made` steps, the last of which was of epoch `epoch`.
    fn changes_after(&mut self, epoch: u64, made: u64) {
        let rate = self.of_last(epoch, made);
        self.memory.before = Some(Before { made, rate });
    }

    /// Halves the rate for all steps after the `made` ones, the last of which was of epoch `epoch`, counted from 0. What the
    /// schedule knew when the weights that the run goes back to were measured, it knows again, if it was kept: the validations
    /// since then are of weights that are given up.
    pub fn roll_back(&mut self, epoch: u64, made: u64, then: Option<&RateMemory>) {
        self.changes_after(epoch, made);
        let rollbacks = self.memory.rollbacks + 1;
        let then = then.unwrap_or(&self.memory).clone();
        self.memory = RateMemory { rollbacks, before: self.memory.before, ..then };
    }

    /// How often it was halved so.
    pub fn rollbacks(&self) -> u64 {
        self.memory.rollbacks
    }

    /// Takes in the validation perplexity after epoch `epoch`, counted from 0, and `made` steps.
    pub fn observe(&mut self, epoch: u64, made: u64, perplexity: f64) {
        let perplexity = perplexity.min(f64::MAX); // JSON has no infinity to remember it by
        if let Schedule::HalveOnPlateau(plateau) = &self.schedule {
            let improved = self.memory.last_perplexity.map_or(f64::INFINITY, |last| last - perplexity);
            let keeps_rate = improved >= plateau.threshold || epoch < plateau.after_epochs;
            let factor = plateau.factor;
            if !keeps_rate {
                self.changes_after(epoch, made);
                self.memory.factor *= factor;
            }
        }
        self.memory.last_perplexity = Some(perplexity);
    }

    /// What outlives a step.
    pub fn save(&self) -> RateMemory {
        self.memory.clone()
    }

    /// Takes back what [`Rate::save`] gave.
    pub fn load(&mut self, memory: RateMemory) {
        self.memory = memory;
    }
}

#[cfg(test)]
mod tests {
    use super::Rate;
    use crate::config::Resolved;

    fn rate(recipe: &str, settings: &[&str], total_steps: u64) -> Rate {
        let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
        Rate::new(&Resolved::new(recipe, &settings).unwrap().recipe.train, total_steps)
    }

    #[test]
    fn the_published_rate_is_full_for_twenty_epochs_and_then_decays() {
        let rate = rate("ptb-rhn", &[], 1);
        assert_eq!((rate.at(0, 0), rate.at(19, 0)), (0.2, 0.2)); // max(19 − 20 + 1, 0) = 0
        assert!((rate.at(20, 0) - 0.2 / 1.02).abs() < 1e-15);
        assert!((rate.at(29, 0) - 0.2 / 1.02f64.powi(10)).abs() < 1e-15);
    }

    #[test]
    fn kims_rate_halves_when_a_perplexity_improves_by_less_than_one() {
        let mut rate = rate("ptb-char-cnn-small", &[], 1);
        for (epoch, perplexity, wanted) in [
            (0, 300.0, 1.0),
            (1, 299.5, 1.0),
            (2, 200.0, 1.0),
            (3, 199.5, 0.5),
            (4, 198.5, 0.5),
            (5, 199.0, 0.25),
        ] {
            let before = rate.at(epoch, epoch);
            rate.observe(epoch, epoch + 1, perplexity);
            assert_eq!(rate.of_last(epoch, epoch + 1), before, "after epoch {epoch}");
            assert_eq!(rate.at(epoch + 1, 0), wanted, "after epoch {epoch}");
        }
    }

    #[test]
    fn each_rollback_halves_the_rate_of_any_schedule() {
        let mut rate = rate("ptb-rhn", &[], 1);
        rate.roll_back(0, 7, None);
        rate.roll_back(0, 20, None);
        assert_eq!((rate.at(0, 0), rate.rollbacks()), (0.05, 2));
        assert_eq!([19, 20, 21].map(|made| rate.of_last(0, made)), [0.05, 0.1, 0.05]); // the 20th step was made before
    }

    #[test]
    fn a_rollback_forgets_what_weights_that_are_given_up_taught() {
        let mut rate = rate("ptb-char-cnn-small", &[], 1);
        rate.observe(0, 1, 200.0);
        rate.observe(1, 2, 100.0);
        let then = rate.save();
        rate.roll_back(2, 5, Some(&then));
        rate.observe(2, 6, 1e9);
        rate.observe(3, 9, 1e12);
        assert_eq!(rate.at(4, 9), 0.125);
        rate.roll_back(3, 9, Some(&then));
        assert_eq!((rate.at(4, 9), rate.rollbacks()), (0.25, 2));
        assert_eq!(rate.of_last(3, 9), 0.25); // the validation came after the ninth step
        rate.observe(4, 10, 99.5); // less than one below the 100 of the weights that were gone back to
        assert_eq!(rate.at(5, 9), 0.125);
    }

    #[test]
    fn the_cosine_rises_falls_and_ends_at_its_last_fraction() {
        let schedule = r#"train.schedule={kind="cosine",warmup_steps=10,final_fraction=0.1}"#;
        let rate = rate("ptb-rhn", &[schedule, "train.learning_rate=1.0"], 110);
        assert!((rate.at(0, 4) - 0.5).abs() < 1e-12 && (rate.at(0, 10) - 1.0).abs() < 1e-12);
        assert!((rate.at(0, 60) - 0.55).abs() < 1e-12 && (rate.at(0, 110) - 0.1).abs() < 1e-12);
    }
}
