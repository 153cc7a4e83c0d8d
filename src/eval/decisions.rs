//! Decisions whether a sentence needs an edit: precision, recall and F1 at a threshold, and what needs no threshold.
//!
//! A positive is a sentence that needs an edit; the decision is yes where its score is not below the threshold. A figure that
//! would be 0 / 0 is absent.

use serde::{Deserialize, Serialize};

/// How decisions at a threshold agree with the labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decisions {
    /// A sentence with at least this score is decided to need an edit.
    pub threshold: f64,
    /// Sentences that need an edit.
    pub positives: u64,
    /// Sentences that were decided to need one.
    pub decided_yes: u64,
    /// The share of those that do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    /// The share of the positives that were found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// 2 · precision · recall / (precision + recall).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f1: Option<f64>,
    /// The area under the curve of precision over recall, as a step function over all thresholds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_precision: Option<f64>,
    /// Matthews' correlation of decisions and labels, −1 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matthews_correlation: Option<f64>,
    /// The precision of always deciding yes, whose recall is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub always_yes_precision: Option<f64>,
    /// The F1 of always deciding yes: what any other has to be compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub always_yes_f1: Option<f64>,
}

/// Decisions by how they agree with the labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Positives that were found.
    pub true_positives: u64,
    /// Others that were taken for one.
    pub false_positives: u64,
    /// Positives that were not found.
    pub false_negatives: u64,
    /// Others that were left alone.
    pub true_negatives: u64,
}

impl Counts {
    /// Of scores, the higher the likelier a positive, and labels.
    pub fn of(scores: &[f64], labels: &[bool], threshold: f64) -> Self {
        let mut counts = Self::default();
        for (score, label) in scores.iter().zip(labels) {
            *match (*score >= threshold, label) {
                (true, true) => &mut counts.true_positives,
                (true, false) => &mut counts.false_positives,
                (false, true) => &mut counts.false_negatives,
                (false, false) => &mut counts.true_negatives,
            } += 1;
        }
        counts
    }

    /// The share of the decisions for yes that are right.
    pub fn precision(&self) -> Option<f64> {
        share(self.true_positives, self.true_positives + self.false_positives)
    }

    /// The share of the positives that were found.
    pub fn recall(&self) -> Option<f64> {
        share(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// The harmonic mean of precision and recall.
    pub fn f1(&self) -> Option<f64> {
        let wrong = self.false_positives + self.false_negatives;
        share(2 * self.true_positives, 2 * self.true_positives + wrong)
    }

    /// The share of right decisions.
    pub fn accuracy(&self) -> Option<f64> {
        let right = self.true_positives + self.true_negatives;
        share(right, right + self.false_positives + self.false_negatives)
    }

    /// Matthews' correlation; none where all labels or all decisions are alike.
    pub fn matthews_correlation(&self) -> Option<f64> {
        let Self { true_positives, false_positives, false_negatives, true_negatives } = *self;
        let [tp, fp, fne, tn] =
            [true_positives, false_positives, false_negatives, true_negatives].map(|count| count as f64);
        let denominator = ((tp + fp) * (tp + fne) * (tn + fp) * (tn + fne)).sqrt();
        (denominator != 0.0).then(|| (tp * tn - fp * fne) / denominator)
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole != 0).then(|| part as f64 / whole as f64)
}

impl Decisions {
    /// Of finite scores, the higher the likelier a positive, and labels.
    pub fn at(threshold: f64, scores: &[f64], labels: &[bool]) -> Self {
        let counts = Counts::of(scores, labels, threshold);
        let always = Counts::of(scores, labels, f64::NEG_INFINITY);
        Self {
            threshold,
            positives: counts.true_positives + counts.false_negatives,
            decided_yes: counts.true_positives + counts.false_positives,
            precision: counts.precision(),
            recall: counts.recall(),
            f1: counts.f1(),
            average_precision: average_precision(scores, labels),
            matthews_correlation: counts.matthews_correlation(),
            always_yes_precision: always.precision(),
            always_yes_f1: always.f1(),
        }
    }

    /// Prints the figures, a line each.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn print(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let number = |value: Option<f64>| value.map_or_else(|| "–".into(), |value| format!("{value:.4}"));
        for (name, value) in [
            ("threshold", format!("{:.6}", self.threshold)),
            ("precision", percent(self.precision)),
            ("recall", percent(self.recall)),
            ("F1", percent(self.f1)),
            (
                "always yes",
                format!(
                    "{} F1, precision {}",
                    percent(self.always_yes_f1),
                    percent(self.always_yes_precision)
                ),
            ),
            ("area under P-R", percent(self.average_precision)),
            ("Matthews", number(self.matthews_correlation)),
            ("need an edit", format!("{}, decided so {}", self.positives, self.decided_yes)),
        ] {
            writeln!(out, "{name:<16} {value}")?;
        }
        Ok(())
    }
}

/// A share in percent, a dash where there is none.
pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".into(), |share| format!("{:.2} %", 100.0 * share))
}

/// The scores from the highest on, with their labels; equal scores are one group.
fn groups(scores: &[f64], labels: &[bool]) -> Vec<(f64, [u64; 2])> {
    let mut sorted: Vec<(f64, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut groups: Vec<(f64, [u64; 2])> = Vec::new();
    for (score, label) in sorted {
        if groups.last().is_none_or(|(last, _)| *last != score) {
            groups.push((score, [0, 0]));
        }
        let (_, counts) = groups.last_mut().expect("one was pushed");
        counts[usize::from(label)] += 1;
    }
    groups
}

/// The share of the lowest score by which another score would have to be lower, where there is none.
const BELOW: f64 = 1e-5;

/// The threshold with the best F1, the highest of equally good ones: in the middle between the lowest score that is decided
/// to be a positive and the highest that is not. Where all are, a little below the lowest, so that it is one in another
/// precision too. 0 of no scores.
pub fn best_threshold(scores: &[f64], labels: &[bool]) -> f64 {
    let groups = groups(scores, labels);
    let positives: u64 = groups.iter().map(|(_, counts)| counts[1]).sum();
    let mut best = (-1.0, 0.0);
    let mut decided = 0;
    let mut found = 0;
    for (at, &(score, [negatives, of_group])) in groups.iter().enumerate() {
        decided += negatives + of_group;
        found += of_group;
        let f1 = 2.0 * found as f64 / (decided + positives) as f64;
        if f1 > best.0 {
            let next = groups.get(at + 1).map_or(score - BELOW * score.abs(), |(next, _)| *next);
            let middle = next + (score - next) / 2.0;
            // Of neighbouring numbers the middle may be the lower one.
            best = (f1, if middle > next { middle } else { score });
        }
    }
    best.1
}

/// Σ (R_k − R_k−1) P_k over all thresholds, from the highest on; none where there is no positive.
pub fn average_precision(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let positives = labels.iter().filter(|&&label| label).count() as u64;
    let mut decided = 0;
    let mut found = 0;
    let mut area = 0.0;
    for (_, [negatives, of_group]) in groups(scores, labels) {
        decided += negatives + of_group;
        found += of_group;
        area += share(of_group, positives)? * share(found, decided)?;
    }
    (positives > 0).then_some(area.min(1.0)) // the sum of rounded shares can exceed it
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f64; 6] = [0.9, 0.8, 0.7, 0.6, 0.6, 0.1];
    const LABELS: [bool; 6] = [true, false, true, true, false, false];

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-15, "{found}, wanted {wanted}");
    }

    #[test]
    fn the_figures_at_a_threshold_are_those_of_the_counts() {
        let found = Decisions::at(0.65, &SCORES, &LABELS);
        // Yes for 0.9, 0.8, 0.7: 2 right, 1 wrong; one positive is not found, two others are left alone.
        assert_eq!((found.positives, found.decided_yes), (3, 3));
        near(found.precision.unwrap(), 2.0 / 3.0);
        near(found.recall.unwrap(), 2.0 / 3.0);
        near(found.f1.unwrap(), 2.0 / 3.0);
        near(found.matthews_correlation.unwrap(), (2.0 * 2.0 - 1.0) / 9.0);
        near(Counts::of(&SCORES, &LABELS, 0.65).accuracy().unwrap(), 4.0 / 6.0);
        near(found.always_yes_precision.unwrap(), 0.5);
        near(found.always_yes_f1.unwrap(), 2.0 / 3.0);
    }

    #[test]
    fn the_area_is_a_sum_of_steps_and_ties_are_one() {
        // Recall 1/3 at precision 1, 2/3 at 2/3, 1 at 3/5: the two of 0.6 come together.
        near(average_precision(&SCORES, &LABELS).unwrap(), (1.0 + 2.0 / 3.0 + 3.0 / 5.0) / 3.0);
        assert_eq!(average_precision(&[1.0, 1.0], &[false, false]), None);
    }

    #[test]
    fn the_threshold_lies_between_the_scores_around_the_best_cut() {
        // F1 from the highest on: 1/2, 2/5, 2/3, 3/4, 2/3.
        near(best_threshold(&SCORES, &LABELS), 0.35);
        near(best_threshold(&[3.0, 1.0, -1.0], &[true, false, false]), 2.0);
        for lowest in [1.0, -150.0, 1e-6] {
            let found = best_threshold(&[lowest, 2.0], &[true, true]); // all: no score is below
            assert!(found < lowest - 1e-6 * lowest.abs() && found > lowest - 1e-5 * lowest.abs(), "{found}");
        }
        near(best_threshold(&[], &[]), 0.0);
        let next = f64::from_bits(1f64.to_bits() - 1);
        near(best_threshold(&[1.0, next], &[true, false]), 1.0);
    }

    #[test]
    fn nothing_over_nothing_is_no_figure() {
        let none = Counts::default();
        let figures =
            [none.precision(), none.recall(), none.f1(), none.accuracy(), none.matthews_correlation()];
        assert_eq!(figures, [None; 5]);
        // No positive, and none decided to be one: only that is right. One of either kind, and F1 is 0.
        let found = Decisions::at(0.5, &[0.1, 0.2], &[false, false]);
        assert_eq!(
            (found.precision, found.recall, found.f1, found.average_precision),
            (None, None, None, None)
        );
        assert_eq!((found.always_yes_precision, found.always_yes_f1), (Some(0.0), Some(0.0)));
        let missed = Decisions::at(0.5, &[0.1, 0.2], &[true, false]);
        assert_eq!((missed.precision, missed.recall, missed.f1), (None, Some(0.0), Some(0.0)));
        let json = serde_json::to_value(found).unwrap();
        assert!(json.get("f1").is_none() && json["always_yes_f1"] == 0.0, "{json}");
        assert_eq!(serde_json::from_value::<Decisions>(json).unwrap(), found);
    }
}
