//! From logits to the distribution that a token is drawn from: penalty, temperature, top-k, top-p, min-p.
//!
//! In this order, as the common libraries have it; probabilities are f64 and renormalized after each cut.

use crate::error::{Error, Result};

/// What the model's distribution goes through before a token is drawn from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Filters {
    /// Logits are divided by this; 0 takes the likeliest token always.
    pub temperature: f64,
    /// Only this many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Only the likeliest tokens that make up this probability together; 1 keeps all.
    pub top_p: f64,
    /// Only tokens with at least this share of the likeliest token's probability; 0 keeps all.
    pub min_p: f64,
    /// Positive logits of tokens seen lately are divided by this, negative ones multiplied (Keskar et al., 2019).
    pub repetition_penalty: f64,
}

impl Default for Filters {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

/// A token that may be drawn, and its probability.
pub type Candidate = (u32, f64);

impl Filters {
    /// Refuses settings that leave nothing to draw from.
    pub fn validate(&self) -> Result<()> {
        let ranges = [
            ("temperature", self.temperature, self.temperature >= 0.0, "0 or more"),
            ("top-p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1"),
            ("min-p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1"),
            ("repetition-penalty", self.repetition_penalty, self.repetition_penalty > 0.0, "above 0"),
        ];
        match ranges.iter().find(|(_, value, valid, _)| !valid || !value.is_finite()) {
            None => Ok(()),
            Some((name, value, _, wanted)) => {
                Err(Error::config(format!("{name} is {value}, wanted a number {wanted}")))
            }
        }
    }

    /// Fills `candidates` with what may be drawn, its probabilities summing to 1, in the order of ids: a cut that takes
    /// nothing away changes no draw. Of two that are alike a cut keeps the lower id. `recent` are the tokens that the
    /// repetition penalty holds against them.
    pub fn apply(
        &self,
        logits: &[f64],
        recent: impl Iterator<Item = u32>,
        forbidden: Option<u32>,
        candidates: &mut Vec<Candidate>,
    ) {
        candidates.clear();
        candidates.extend((0..).zip(logits.iter().copied()));
        self.penalize(candidates, logits, recent);
        candidates.retain(|&(id, _)| Some(id) != forbidden || logits.len() == 1);
        let greedy = self.temperature == 0.0;
        self.keep_likeliest(if greedy { 1 } else { self.top_k }, candidates);
        softmax(candidates, if greedy { 1.0 } else { self.temperature });
        self.cut_top_p(candidates);
        self.cut_min_p(candidates);
        if !candidates.is_sorted_by_key(|&(id, _)| id) {
            candidates.sort_unstable_by_key(|&(id, _)| id);
        }
    }

    /// Makes recent tokens less likely; each once, however often it came.
    fn penalize(&self, candidates: &mut [Candidate], logits: &[f64], recent: impl Iterator<Item = u32>) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        for id in recent {
            if let (Some((_, value)), Some(logit)) =
                (candidates.get_mut(id as usize), logits.get(id as usize))
            {
                let factor = self.repetition_penalty;
                let penalized = if *logit > 0.0 { logit / factor } else { logit * factor };
                *value = penalized.clamp(-f64::MAX, f64::MAX); // infinities have no difference
            }
        }
    }

    /// The `count` likeliest, or all if it is 0; likeliest first if the next cut wants them so.
    fn keep_likeliest(&self, count: usize, candidates: &mut Vec<Candidate>) {
        let likelier = |a: &Candidate, b: &Candidate| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if count > 0 && count < candidates.len() {
            candidates.select_nth_unstable_by(count - 1, likelier);
            candidates.truncate(count);
        }
        if self.top_p < 1.0 {
            candidates.sort_unstable_by(likelier);
        }
    }

    /// Keeps the shortest head of the list whose probabilities reach `top_p`.
    fn cut_top_p(&self, candidates: &mut Vec<Candidate>) {
        if self.top_p >= 1.0 {
            return;
        }
        let mut sum = 0.0;
        let missing = candidates.iter().take_while(|(_, probability)| {
            let short = sum < self.top_p;
            sum += probability;
            short
        });
        let kept = missing.count().max(1);
        if kept < candidates.len() {
            candidates.truncate(kept);
            normalize(candidates);
        }
    }

    fn cut_min_p(&self, candidates: &mut Vec<Candidate>) {
        if self.min_p == 0.0 {
            return;
        }
        let likeliest = largest(candidates);
        candidates.retain(|&(_, probability)| probability >= self.min_p * likeliest);
        normalize(candidates);
    }
}

/// Logits to probabilities.
fn softmax(candidates: &mut [Candidate], temperature: f64) {
    let largest = largest(candidates);
    candidates.iter_mut().for_each(|(_, value)| *value = ((*value - largest) / temperature).exp());
    normalize(candidates);
}

fn largest(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|&(_, value)| value).fold(f64::NEG_INFINITY, f64::max)
}

fn normalize(candidates: &mut [Candidate]) {
    let sum: f64 = candidates.iter().map(|(_, value)| value).sum();
    candidates.iter_mut().for_each(|(_, value)| *value /= sum);
}

/// The candidate at `uniform`, a number in [0, 1), of the cumulative distribution.
pub fn draw(candidates: &[Candidate], uniform: f64) -> u32 {
    let mut sum = 0.0;
    let hit = candidates.iter().find(|(_, probability)| {
        sum += probability;
        uniform < sum
    });
    let last = || candidates.iter().rfind(|(_, probability)| *probability > 0.0); // rounding left the sum below 1
    hit.or_else(last).map_or(0, |&(id, _)| id)
}

/// −ln p of `id` under the softmax of the logits as they are.
pub fn nats(logits: &[f64], id: u32) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    largest + sum.ln() - logits[id as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_penalty_beyond_all_measure_still_leaves_probabilities() {
        for repetition_penalty in [f64::MIN_POSITIVE / 2.0, f64::MAX] {
            let filters = Filters { repetition_penalty, ..Filters::default() };
            let candidates = applied(&filters, &[2.0, 3.0, -1.0], &[0, 1, 2], None);
            let sum: f64 = candidates.iter().map(|(_, probability)| probability).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{candidates:?}");
        }
    }

    fn applied(filters: &Filters, logits: &[f64], recent: &[u32], forbidden: Option<u32>) -> Vec<Candidate> {
        let mut candidates = vec![(9, 9.0)]; // of an earlier draw
        filters.apply(logits, recent.iter().copied(), forbidden, &mut candidates);
        candidates
    }

    /// Logits whose softmax is 0.5, 0.25, 0.125, 0.125.
    fn halves() -> Vec<f64> {
        [0.5f64, 0.25, 0.125, 0.125].iter().map(|p| p.ln()).collect()
    }

    fn filtered(filters: &Filters) -> Vec<Candidate> {
        applied(filters, &halves(), &[], None)
    }

    fn assert_close(found: &[Candidate], wanted: &[Candidate]) {
        assert_eq!(found.len(), wanted.len(), "{found:?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert_eq!(found.0, wanted.0);
            assert!((found.1 - wanted.1).abs() < 1e-12, "{found:?} is not {wanted:?}");
        }
    }

    #[test]
    fn without_filters_the_distribution_is_the_models_own() {
        assert_close(&filtered(&Filters::default()), &[(0, 0.5), (1, 0.25), (2, 0.125), (3, 0.125)]);
    }

    #[test]
    fn temperature_one_half_squares_the_probabilities() {
        // squares 16 : 4 : 1 : 1, sum 22
        let found = filtered(&Filters { temperature: 0.5, ..Filters::default() });
        assert_close(&found, &[(0, 16.0 / 22.0), (1, 4.0 / 22.0), (2, 1.0 / 22.0), (3, 1.0 / 22.0)]);
    }

    #[test]
    fn temperature_zero_leaves_the_likeliest_type() {
        assert_close(&filtered(&Filters { temperature: 0.0, ..Filters::default() }), &[(0, 1.0)]);
    }

    #[test]
    fn top_k_keeps_the_k_likeliest_and_renormalizes() {
        let found = filtered(&Filters { top_k: 2, ..Filters::default() });
        assert_close(&found, &[(0, 2.0 / 3.0), (1, 1.0 / 3.0)]);
    }

    #[test]
    fn cuts_find_the_likeliest_wherever_they_are() {
        let logits = [0.125f64, 0.25, 0.125, 0.5].map(f64::ln);
        let top = |top_k, top_p| applied(&Filters { top_k, top_p, ..Filters::default() }, &logits, &[], None);
        assert_close(&top(2, 1.0), &[(1, 1.0 / 3.0), (3, 2.0 / 3.0)]);
        assert_close(&top(3, 1.0), &[(0, 1.0 / 7.0), (1, 2.0 / 7.0), (3, 4.0 / 7.0)]); // the lower id of two alike
        assert_close(&top(0, 0.6), &[(1, 1.0 / 3.0), (3, 2.0 / 3.0)]);
        assert_close(&top(100, 1.0), &[(0, 0.125), (1, 0.25), (2, 0.125), (3, 0.5)]);
        let greedy = Filters { temperature: 0.0, top_k: 3, ..Filters::default() };
        assert_close(&applied(&greedy, &logits, &[], None), &[(3, 1.0)]);
    }

    #[test]
    fn a_cut_that_takes_nothing_away_changes_nothing() {
        let logits = [0.125f64, 0.25, 0.125, 0.5].map(f64::ln);
        let plain = applied(&Filters::default(), &logits, &[], None);
        for (top_k, top_p) in [(4, 1.0), (1000, 1.0), (0, 0.9999999)] {
            assert_eq!(applied(&Filters { top_k, top_p, ..Filters::default() }, &logits, &[], None), plain);
        }
    }

    #[test]
    fn a_type_without_probability_is_never_drawn() {
        assert_eq!(draw(&[(0, 0.25), (1, 0.5), (2, 0.0)], 0.999), 1); // rounding left the sum short of 1
    }

    #[test]
    fn top_p_keeps_the_type_that_crosses_the_line() {
        let found = filtered(&Filters { top_p: 0.6, ..Filters::default() });
        assert_close(&found, &[(0, 2.0 / 3.0), (1, 1.0 / 3.0)]); // 0.5 is short of 0.6, 0.75 is not
        assert_close(&filtered(&Filters { top_p: 1e-9, ..Filters::default() }), &[(0, 1.0)]);
    }

    #[test]
    fn min_p_is_relative_to_the_likeliest_type() {
        let found = filtered(&Filters { min_p: 0.4, ..Filters::default() });
        assert_close(&found, &[(0, 2.0 / 3.0), (1, 1.0 / 3.0)]); // 0.25 ≥ 0.4 · 0.5, 0.125 is not
    }

    #[test]
    fn the_repetition_penalty_divides_positive_logits_and_multiplies_negative_ones() {
        let filters = Filters { repetition_penalty: 2.0, ..Filters::default() };
        let logits = [3.0, -1.0, 3.0, -1.0];
        let mut found: Vec<Candidate> = (0..).zip(logits).collect();
        filters.penalize(&mut found, &logits, [0, 1, 0].into_iter());
        assert_eq!(found, [(0, 1.5), (1, -2.0), (2, 3.0), (3, -1.0)]); // once, however often it was seen
    }

    #[test]
    fn a_forbidden_type_is_never_a_candidate() {
        let found = applied(&Filters::default(), &halves(), &[], Some(0));
        assert_close(&found, &[(1, 0.5), (2, 0.25), (3, 0.25)]);
    }

    #[test]
    fn a_draw_walks_the_cumulative_distribution() {
        let candidates = [(7, 0.5), (3, 0.25), (9, 0.25)];
        let drawn = [0.0, 0.499, 0.5, 0.749, 0.75, 0.999_999].map(|uniform| draw(&candidates, uniform));
        assert_eq!(drawn, [7, 7, 3, 3, 9, 9]);
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let filters = Filters { temperature: 1e-3, ..Filters::default() };
        let found = applied(&filters, &[1e6, -1e6], &[], None);
        assert_close(&found, &[(0, 1.0), (1, 0.0)]);
        assert_eq!(nats(&[1e6, -1e6], 1), 2e6);
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let wrong = [
            ("temperature", Filters { temperature: -1.0, ..Filters::default() }),
            ("temperature", Filters { temperature: f64::NAN, ..Filters::default() }),
            ("temperature", Filters { temperature: f64::INFINITY, ..Filters::default() }),
            ("top-p", Filters { top_p: 0.0, ..Filters::default() }),
            ("top-p", Filters { top_p: 1.1, ..Filters::default() }),
            ("min-p", Filters { min_p: -0.1, ..Filters::default() }),
            ("repetition-penalty", Filters { repetition_penalty: 0.0, ..Filters::default() }),
        ];
        for (name, filters) in wrong {
            let message = filters.validate().expect_err(name).to_string();
            assert!(message.starts_with(name), "{message}");
        }
        assert!(Filters::default().validate().is_ok());
    }
}
