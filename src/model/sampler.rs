//! Words that stand for the whole vocabulary in a step's loss, drawn by the log-uniform distribution of TensorFlow's
//! candidate sampler, which is about Zipf's law for a vocabulary sorted by falling frequency.
//!
//! ```text
//! P(k) = ln((k + 2) / (k + 1)) / ln(V + 1)          k = 0 ..= V − 1, 0 the most frequent word
//! a draw: ⌊e^(u ln(V + 1))⌋ − 1, u uniform in [0, 1)
//! Q(k) = 1 − (1 − P(k))^N                           the expected count of k in a set that took N draws to be whole
//! ```
//!
//! Draws are repeated until enough different words are found. Since the frequent ones come again and again, N is about twice
//! their number where 8,192 of 800,000 words are wanted, and Q is far from their number times P.

use crate::config::LossConfig;
use rhn_kernels::rng::Rng;
use rhn_kernels::softmax::sampled::{Kind, Samples};
use std::collections::HashSet;

/// The log-uniform distribution over a vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct LogUniform {
    vocabulary: usize,
}

impl LogUniform {
    /// Over the numbers below `vocabulary`.
    pub fn new(vocabulary: usize) -> Self {
        Self { vocabulary }
    }

    fn log_range(&self) -> f64 {
        (self.vocabulary as f64).ln_1p()
    }

    /// P(id).
    pub fn probability(&self, id: u32) -> f64 {
        (1.0 / (f64::from(id) + 1.0)).ln_1p() / self.log_range()
    }

    /// ln Q(id) for a set that took `draws` draws.
    pub fn log_expected(&self, id: u32, draws: u64) -> f64 {
        (-(draws as f64 * (-self.probability(id)).ln_1p()).exp_m1()).ln()
    }

    /// `count` different numbers in the order in which they came, and how many draws that took. There must be more numbers
    /// than `count`, or the draws would be too many.
    pub fn draw(&self, count: usize, rng: &mut Rng) -> (Vec<u32>, u64) {
        assert!(count < self.vocabulary, "{count} different numbers of {}", self.vocabulary);
        let mut seen = HashSet::with_capacity(count);
        let mut ids = Vec::with_capacity(count);
        let mut draws = 0;
        while ids.len() < count {
            draws += 1;
            let drawn = (rng.uniform() * self.log_range()).exp() as u64 - 1;
            let id = (drawn % self.vocabulary as u64) as u32; // e^(u ln(V + 1)) may be rounded up to V + 1
            if seen.insert(id) {
                ids.push(id);
            }
        }
        (ids, draws)
    }
}

/// The words that were drawn for a step.
#[derive(Clone, Debug)]
pub struct Candidates {
    kind: Kind,
    sampler: LogUniform,
    ids: Vec<u32>,
    draws: u64,
}

impl Candidates {
    /// Given words, which took `draws` draws from `sampler`.
    pub fn new(kind: Kind, sampler: LogUniform, ids: Vec<u32>, draws: u64) -> Self {
        Self { kind, sampler, ids, draws }
    }

    /// What the loss of rows with these targets needs.
    pub(super) fn for_targets(&self, targets: Vec<u32>) -> Samples {
        let expected = |&id: &u32| self.sampler.log_expected(id, self.draws);
        let log_expected = self.ids.iter().chain(&targets).map(expected).collect();
        Samples { kind: self.kind, ids: self.ids.clone(), targets, log_expected }
    }
}

/// Draws the words of any step of a run.
#[derive(Clone, Debug)]
pub struct CandidateSource {
    kind: Kind,
    sampler: LogUniform,
    count: usize,
    seed: u64,
}

impl CandidateSource {
    /// For the loss of a recipe; `None` if that is of the whole vocabulary, as it is too where that has no more words than
    /// would be drawn.
    pub fn new(loss: &LossConfig, vocabulary: usize, seed: u64) -> Option<Self> {
        let (kind, count) = match *loss {
            LossConfig::Exact {} | LossConfig::Distill(_) => return None,
            LossConfig::Sampled { samples } => (Kind::Softmax, samples),
            LossConfig::Nce { samples } => (Kind::Nce, samples),
        };
        (count < vocabulary).then(|| Self { kind, sampler: LogUniform::new(vocabulary), count, seed })
    }

    /// The words of step `step`.
    pub fn draw(&self, step: u64) -> Candidates {
        let mut rng = Rng::keyed(self.seed, "train.loss.samples", step);
        let (ids, draws) = self.sampler.draw(self.count, &mut rng);
        Candidates { kind: self.kind, sampler: self.sampler, ids, draws }
    }
}

#[cfg(test)]
mod tests {
    use super::{CandidateSource, LogUniform};
    use crate::config::LossConfig;
    use rhn_kernels::rng::Rng;

    #[test]
    fn probabilities_are_those_of_the_published_sampler() {
        let of_ten =
            [0.28906, 0.16909, 0.11997, 0.09306, 0.07603, 0.06429, 0.05569, 0.04912, 0.04394, 0.03975];
        for (id, wanted) in (0..).zip(of_ten) {
            assert!((LogUniform::new(10).probability(id) - wanted).abs() < 5e-6, "{id}");
        }
        let words = LogUniform::new(793_471);
        for (id, wanted) in [(0, 0.051_026_1), (1, 0.029_848_3), (9_999, 7.361_14e-6)] {
            assert!((words.probability(id) / wanted - 1.0).abs() < 2e-6, "{id}");
        }
        let sum: f64 = (0..793_471).map(|id| words.probability(id)).sum();
        assert!((sum - 1.0).abs() < 1e-10);
    }

    #[test]
    fn numbers_are_drawn_as_often_as_their_probability_says() {
        const DRAWS: usize = 200_000;
        let sampler = LogUniform::new(10);
        let mut rng = Rng::keyed(1, "test", 0);
        let mut counts = [0u32; 10];
        (0..DRAWS).for_each(|_| counts[sampler.draw(1, &mut rng).0[0] as usize] += 1);
        for (id, count) in (0..).zip(counts) {
            let share = f64::from(count) / DRAWS as f64;
            let sigma = (sampler.probability(id) / DRAWS as f64).sqrt();
            assert!((share - sampler.probability(id)).abs() < 5.0 * sigma, "{id}: {share}");
        }
    }

    #[test]
    fn a_set_has_different_words_and_counts_its_draws() {
        let sampler = LogUniform::new(793_471);
        let (ids, draws) = sampler.draw(8_192, &mut Rng::keyed(1, "test", 0));
        let mut distinct = ids.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!((ids.len(), distinct.len()), (8_192, 8_192));
        assert!((14_000..18_000).contains(&draws), "{draws}");
        // With one draw alone, a word is expected as often as it is probable.
        assert!((sampler.log_expected(5, 1) - sampler.probability(5).ln()).abs() < 1e-12);
        // After so many the most frequent is certain to be in the set.
        assert!(sampler.log_expected(0, draws).abs() < 1e-12 && sampler.log_expected(700_000, draws) < -4.0);
    }

    #[test]
    fn a_step_has_its_own_words_and_a_small_vocabulary_none() {
        let loss = LossConfig::Sampled { samples: 10 };
        let source = CandidateSource::new(&loss, 1_000, 3).unwrap();
        assert_eq!(source.draw(4).ids, source.draw(4).ids);
        assert_ne!(source.draw(4).ids, source.draw(5).ids);
        assert!(CandidateSource::new(&loss, 10, 3).is_none());
        assert!(CandidateSource::new(&LossConfig::Exact {}, 1_000, 3).is_none());
    }
}
