//! When a training has left its course without a number that is not finite.
//!
//! Losses are in nats per token, `U = ln V` is what guessing uniformly among the V tokens costs, and a factor of two in
//! perplexity is `ln 2`. Two rules, each of sums that are known anyway:
//!
//! 1. *Within an epoch.* A window is [`WINDOW`] steps. It is bad if more than half of its steps each lost more than
//!    `max(U, least + ln 2)`, where `least` is the least of the first step's loss and the means of all windows before.
//!    Two bad windows, one after the other, are a divergence.
//! 2. *At an epoch's end.* A period is as many whole epochs as have at least two windows of steps. It is a divergence if
//!    both its training loss and the validation loss at its end are above `best + max(ln 2, (U − best) / 3)`, each
//!    with the `best` of its own kind: at least twice the perplexity, and a third of what was learned is lost.
//!
//! A single step of any size is one of 128. A text that gets harder on its way is the same in every epoch, so rule 2
//! does not see it, and rule 1 asks for less than a model without training knows. Where a model overfits, the
//! validation loss grows as far as it likes, but the training loss does not. What never learned anything has nothing
//! to lose, and a model that begins far above U, as one from another language does, is compared with its own beginning.

use super::update::StepReport;
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;

/// Steps of a window: a multiple of those that a GPU reports together, so that none has to be waited for.
pub const WINDOW: u64 = 128;

/// Steps that a period of whole epochs has at least.
const PERIOD: u64 = 2 * WINDOW;

/// The course of a run's losses; saved with the training state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Course {
    /// The least of the first step's loss and the means of whole windows.
    least: Option<f64>,
    window: Sums,
    /// Steps of the window that lost too much.
    high_steps: u64,
    /// Whether the window before was bad.
    was_bad: bool,
    period: Sums,
    /// The least mean of a period.
    least_period: Option<f64>,
    /// Whether a divergence was found that no good period has followed yet.
    diverged: bool,
    /// A divergence that nothing was done about yet.
    pub alarm: Option<Alarm>,
    /// The step after which a divergence was last recorded.
    pub recorded_step: u64,
}

/// Sums over the steps of a window or period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    nats: f64,
    tokens: u64,
    steps: u64,
}

/// A divergence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// What was found, in a sentence.
    pub what: String,
    /// Whether the run was stopped for it.
    pub has_stopped: bool,
}

impl Sums {
    fn add(&mut self, report: &StepReport) {
        self.nats += report.nats;
        self.tokens += report.tokens;
        self.steps += 1;
    }

    /// Nats per token; `None` where every step was skipped.
    fn mean(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.nats / self.tokens as f64)
    }
}

impl Course {
    /// Takes in what a step did; `uniform` is `ln V`.
    pub fn observe_step(&mut self, report: &StepReport, uniform: f64) {
        let nats = report.nats / report.tokens as f64;
        let least = *self.least.get_or_insert(nats);
        self.high_steps += u64::from(nats > uniform.max(least + LN_2));
        self.window.add(report);
        self.period.add(report);
    }

    /// Ends a window if `step` steps of the run are its end: rule 1.
    pub fn end_window(&mut self, step: u64, uniform: f64) {
        if !step.is_multiple_of(WINDOW) {
            return;
        }
        let window = std::mem::take(&mut self.window);
        let high_steps = std::mem::take(&mut self.high_steps);
        let is_bad = 2 * high_steps > window.steps;
        let was_bad = std::mem::replace(&mut self.was_bad, is_bad);
        if is_bad && was_bad {
            let mean = window.mean().unwrap_or(f64::NAN);
            let least = self.least.unwrap_or(f64::NAN);
            self.raise(format!(
                "the training loss has left its course: {mean:.2} nats a token over the last {WINDOW} steps and no \
                 better over those before, where guessing costs {uniform:.2} and it was at {least:.2}"
            ));
        }
        self.least = least(self.least, window.mean());
    }

    /// Takes in the validation loss at an epoch's end and the best one before: rule 2.
    pub fn end_epoch(&mut self, valid: f64, best_valid: Option<f64>, uniform: f64) {
        if self.period.steps < PERIOD {
            return;
        }
        let Some(train) = std::mem::take(&mut self.period).mean() else { return };
        let is_lost =
            |loss: f64, best: Option<f64>| best.is_some_and(|best| loss > lost_above(best, uniform));
        if is_lost(train, self.least_period) && is_lost(valid, best_valid) {
            let best_train = self.least_period.unwrap_or(f64::NAN);
            let best_valid = best_valid.unwrap_or(f64::NAN);
            self.raise(format!(
                "training has lost what it had learned: {valid:.2} nats a token on the validation split, {best_valid:.2} \
                 at best, and {train:.2} on the training split, {best_train:.2} at best"
            ));
        } else {
            self.diverged = false;
        }
        self.least_period = least(self.least_period, Some(train));
    }

    /// One alarm a divergence, however long it lasts.
    fn raise(&mut self, what: String) {
        if !self.diverged {
            self.diverged = true;
            self.alarm = Some(Alarm { what, has_stopped: false });
        }
    }

    /// Begins windows and periods anew, with other weights.
    pub fn restart(&mut self) {
        self.window = Sums::default();
        self.high_steps = 0;
        self.was_bad = false;
        self.period = Sums::default();
        self.diverged = false;
    }
}

/// The loss above which too much is lost of what a model at `best` had learned.
fn lost_above(best: f64, uniform: f64) -> f64 {
    best + LN_2.max((uniform - best) / 3.0)
}

fn least(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).reduce(f64::min)
}

#[cfg(test)]
mod tests {
    use super::{Course, WINDOW};
    use crate::train::update::StepReport;

    /// Ten thousand words: guessing costs 9.21 nats.
    const WORDS: f64 = 9.210_340_371_976_184;

    /// A run of `losses`, a step each, in epochs of `per_epoch` steps with these validation losses; the steps after
    /// which there was an alarm.
    fn alarms(uniform: f64, losses: impl Iterator<Item = f64>, per_epoch: u64, valid: &[f64]) -> Vec<u64> {
        let mut course = Course::default();
        let mut best = None;
        let mut found = Vec::new();
        let mut valid = valid.iter();
        for (nats, step) in losses.zip(1u64..) {
            let report = StepReport {
                step: step - 1,
                rate: 1.0,
                tokens: 100,
                nats: 100.0 * nats,
                grad_norm: 1.0,
                teacher_nats: None,
            };
            course.observe_step(&report, uniform);
            course.end_window(step, uniform);
            if step.is_multiple_of(per_epoch) {
                let &nats = valid.next().expect("a validation loss an epoch");
                course.end_epoch(nats, best, uniform);
                best = super::least(best, Some(nats));
            }
            found.extend(course.alarm.take().map(|_| step));
        }
        found
    }

    fn repeated(parts: &[(u64, f64)]) -> impl Iterator<Item = f64> {
        parts.iter().flat_map(|&(steps, nats)| std::iter::repeat_n(nats, steps as usize))
    }

    const NEVER: u64 = u64::MAX;
    const NONE: [u64; 0] = [];

    #[test]
    fn a_loss_that_explodes_is_found_after_two_windows_and_once() {
        let curve = [(1, 9.21), (1279, 4.5), (5000, 10.5)];
        assert_eq!(alarms(WORDS, repeated(&curve), NEVER, &[]), [1280 + 2 * WINDOW]);
    }

    #[test]
    fn the_run_of_penn_treebank_that_exploded_in_its_fourteenth_epoch_is_found_by_its_end() {
        // 88.2 after epoch 13, 16,771 after epoch 14, then 30,000 to 590,000; 414 steps an epoch of batch 64.
        let train: Vec<(u64, f64)> = [(1, 9.2), (413, 6.4), (414, 5.5)]
            .into_iter()
            .chain((0..11).map(|_| (414, 4.9)))
            .chain([(200, 4.8), (214, 9.9), (414, 11.0)])
            .collect();
        let valid: Vec<f64> =
            (1..=15).map(|epoch| if epoch < 14 { 88.2f64 } else { 16_771.0 }.ln()).collect();
        let found = alarms(WORDS, repeated(&train), 414, &valid);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0] > 13 * 414 + 200 && found[0] <= 14 * 414, "{found:?}");
    }

    #[test]
    fn a_model_that_falls_back_to_the_frequencies_of_words_is_found_at_the_epoch_s_end() {
        // Below a uniform guess, so that no window is bad: 6.7 nats of Penn Treebank's words, 3.3 of characters.
        let curve = [(1, 9.2), (299, 6.0), (300, 4.8), (300, 6.9)];
        assert_eq!(alarms(WORDS, repeated(&curve), 300, &[5.2, 4.7, 6.7]), [900]);
        let curve = [(300, 1.6), (300, 1.4), (300, 3.3)];
        assert_eq!(alarms(65f64.ln(), repeated(&curve), 300, &[1.6, 1.5, 3.3]), [900]);
    }

    #[test]
    fn one_that_explodes_at_its_first_steps_and_stays_there_is_found() {
        let curve = [(1, 4.2), (5, 9.0), (600, 30.0)];
        assert_eq!(alarms(65f64.ln(), repeated(&curve), NEVER, &[]), [2 * WINDOW]);
    }

    #[test]
    fn early_steps_above_a_uniform_guess_are_no_divergence() {
        let curve = [(1, 9.21), (60, 14.0), (100, 9.0), (600, 7.0)];
        assert_eq!(alarms(WORDS, repeated(&curve), NEVER, &[]), NONE);
        let curve = [(1, 9.21), (120, 14.0), (60, 9.5), (600, 7.0)]; // a whole window of them
        assert_eq!(alarms(WORDS, repeated(&curve), NEVER, &[]), NONE);
    }

    #[test]
    fn steps_of_any_size_are_no_divergence_where_the_loss_comes_back() {
        let curve = [(1000, 1.5), (1, 1e6), (300, 1.5), (60, 50.0), (500, 1.5)];
        assert_eq!(alarms(65f64.ln(), repeated(&curve), NEVER, &[]), NONE);
    }

    #[test]
    fn overfitting_is_no_divergence_however_far_the_validation_loss_grows() {
        let train: Vec<(u64, f64)> = (0..20).map(|epoch| (300, 3.0 * 0.7f64.powi(epoch))).collect();
        let valid: Vec<f64> = (0..20).map(|epoch| 2.0 + 0.5 * f64::from(epoch)).collect(); // to 11.5, U = 4.2
        assert_eq!(alarms(65f64.ln(), repeated(&train), 300, &valid), NONE);
    }

    #[test]
    fn a_text_whose_parts_differ_is_no_divergence() {
        // English and then Chinese, one batch row: 1.5 nats, then 12 that fall to 5.5, in each of four epochs.
        let epoch = [(1000, 1.5), (50, 12.0), (60, 8.0), (900, 5.5)];
        let curve = [epoch; 4].concat();
        assert_eq!(alarms(5000f64.ln(), repeated(&curve), 2010, &[5.0, 4.5, 4.6, 4.7]), NONE);
    }

    #[test]
    fn what_cannot_be_learned_and_what_is_learned_slowly_from_far_above_are_no_divergence() {
        let noise = (0..3000).map(|step| 1.1 + 0.4 * f64::from(step * 7 % 11 - 5) / 5.0);
        assert_eq!(alarms(3f64.ln(), noise, 100, &[1.1; 30]), NONE);
        let slowly = (0..3000).map(|step| 14.0 - f64::from(step) / 1000.0); // fine-tuned from another language
        assert_eq!(alarms(65f64.ln(), slowly, NEVER, &[]), NONE);
    }

    #[test]
    fn epochs_of_a_few_steps_are_taken_together() {
        // A text of one line that was learned by heart: a spike of 40 steps in 400 is none, one of all is.
        let spike = [(400, 0.05), (40, 3.0), (400, 0.05)];
        assert_eq!(alarms(20f64.ln(), repeated(&spike), 8, &[2.5; 105]), NONE);
        let lost = [(512, 0.05), (512, 2.9)];
        let valid = [vec![2.0; 64], vec![2.9; 64]].concat();
        assert_eq!(alarms(20f64.ln(), repeated(&lost), 8, &valid), [768]);
    }

    #[test]
    fn a_divergence_is_found_anew_after_good_weights_and_not_before() {
        let curve = [(300, 1.4), (300, 3.3), (300, 3.3), (300, 1.5), (300, 3.3)];
        let valid = [1.5, 3.3, 3.3, 1.6, 3.3];
        assert_eq!(alarms(65f64.ln(), repeated(&curve), 300, &valid), [600, 1500]);
    }

    #[test]
    fn a_saved_course_reads_back_the_same_and_an_older_state_has_none() {
        let mut course = Course::default();
        let report =
            StepReport { step: 0, rate: 1.0, tokens: 3, nats: 0.1, grad_norm: 1.0, teacher_nats: None };
        course.observe_step(&report, 1.0);
        let json = serde_json::to_string(&course).unwrap();
        assert_eq!(serde_json::from_str::<Course>(&json).unwrap(), course);
        assert_eq!(serde_json::from_str::<Course>("{}").unwrap(), Course::default());
    }
}
