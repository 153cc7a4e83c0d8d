//! How many pairs a model ranks right: ties count half and are counted.

use serde::Serialize;

/// Which sentence of a pair has the higher score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The good one.
    Right,
    /// The bad one.
    Wrong,
    /// Neither.
    Tie,
}

impl Outcome {
    /// The outcome of two scores, the higher the better.
    pub fn of(good: f64, bad: f64) -> Self {
        match good.total_cmp(&bad) {
            std::cmp::Ordering::Greater => Self::Right,
            std::cmp::Ordering::Less => Self::Wrong,
            std::cmp::Ordering::Equal => Self::Tie,
        }
    }
}

/// Counts over pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accuracy {
    /// Pairs.
    pub pairs: u64,
    /// Those whose good sentence has the higher score.
    pub right: u64,
    /// Those whose scores are equal.
    pub ties: u64,
    /// Ties of two sentences that are the same text.
    pub identical: u64,
    /// Pairs whose sentences differ in their number of tokens.
    pub unequal: u64,
    /// Words of both sentences.
    pub words: u64,
    /// Those with a symbol that the vocabulary lacks.
    pub unknown_words: u64,
}

impl Accuracy {
    /// Another pair with this outcome; what else is known of it is added to the public counts.
    pub fn take(&mut self, outcome: Outcome) {
        self.pairs += 1;
        self.right += u64::from(outcome == Outcome::Right);
        self.ties += u64::from(outcome == Outcome::Tie);
    }

    /// Adds the counts of other pairs.
    pub fn add(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.right += other.right;
        self.ties += other.ties;
        self.identical += other.identical;
        self.unequal += other.unequal;
        self.words += other.words;
        self.unknown_words += other.unknown_words;
    }

    /// The share of pairs that are right, a tie as half of one; 0 to 1.
    pub fn share(&self) -> f64 {
        (self.right as f64 + self.ties as f64 / 2.0) / self.pairs as f64
    }

    /// The share of words that are unknown, 0 to 1.
    pub fn unknown_share(&self) -> f64 {
        self.unknown_words as f64 / (self.words as f64).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tie_is_half_right() {
        let mut sum = Accuracy::default();
        for (good, bad) in [(-1.0, -2.0), (-2.0, -1.0), (-1.0, -1.0), (-1.0, -3.0)] {
            let mut pair = Accuracy { words: 4, unknown_words: 1, ..Accuracy::default() };
            pair.take(Outcome::of(good, bad));
            sum.add(&pair);
        }
        assert_eq!((sum.pairs, sum.right, sum.ties), (4, 2, 1));
        assert_eq!((sum.share(), sum.unknown_share()), (0.625, 0.25));
    }
}
