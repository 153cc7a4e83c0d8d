//! N-best lists: what a recognizer or a translator found likely for each utterance, put in another order by a language model.
//!
//! ```text
//! total = a · acoustic + b · old + w · LP − p · words
//! ```
//!
//! with the logarithms (nats) of the list's own two models, LP = Σ ln p of the new one, and the number of words. All are the
//! higher the better.

mod expected;
mod read;
mod srilm;
mod tune;
mod word_errors;

pub use expected::{expected, posterior};
pub use read::{Costs, Format, read_kaldi, read_lists, read_references};
pub use tune::{Tuned, distances, tune};
pub use word_errors::{WordErrors, word_distance};

use crate::error::{Error, Result};
use serde::Serialize;

/// What was found for one utterance.
#[derive(Clone, Debug, PartialEq)]
pub struct NBest {
    /// The utterance.
    pub id: String,
    /// At least one, in the order of the file.
    pub hypotheses: Vec<Hypothesis>,
}

/// One thing that may have been said.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// ln of the acoustic model's score, or of all models' together where a list has one number.
    pub acoustic: f64,
    /// ln of the language model's score that it was found with; 0 where the list has none.
    pub old: f64,
    /// The words, a blank between two.
    pub text: String,
    /// Σ ln p by the new model; 0 until it is scored.
    pub lp: f64,
}

impl Hypothesis {
    /// Words, which white space separates.
    pub fn words(&self) -> usize {
        self.text.split_whitespace().count()
    }
}

/// Word errors of a split's lists, each a share of the references' words; absent where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ListFigures {
    /// Of the best hypotheses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word_error_rate: Option<f64>,
    /// Of the first hypotheses, as the lists were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word_error_rate_first: Option<f64>,
    /// Of those nearest to the references.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word_error_rate_oracle: Option<f64>,
    /// To be expected, by the hypotheses' probabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_error_rate: Option<f64>,
}

/// How scores are put together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Weights {
    /// a, of the acoustic score.
    pub acoustic_scale: f64,
    /// b, of the old language model.
    pub old_weight: f64,
    /// w, of the new language model.
    pub weight: f64,
    /// p, in nats a word.
    pub word_penalty: f64,
}

impl Weights {
    /// Checks that all are finite.
    ///
    /// # Errors
    /// If one is not; names its flag.
    pub fn validate(&self) -> Result<()> {
        let flags = [
            ("--acoustic-scale", self.acoustic_scale),
            ("--old-weight", self.old_weight),
            ("--weight", self.weight),
            ("--word-penalty", self.word_penalty),
        ];
        match flags.into_iter().find(|(_, value)| !value.is_finite()) {
            Some((flag, value)) => Err(Error::config(format!("{flag} is {value}, wanted a finite number"))),
            None => Ok(()),
        }
    }

    /// The total of a hypothesis, in nats.
    pub fn total(&self, hypothesis: &Hypothesis) -> f64 {
        self.acoustic_scale * hypothesis.acoustic
            + self.old_weight * hypothesis.old
            + self.weight * hypothesis.lp
            - self.word_penalty * hypothesis.words() as f64
    }

    /// The place in the list of the hypothesis with the highest total; of equal ones the first.
    pub fn best(&self, list: &NBest) -> usize {
        let totals = list.hypotheses.iter().map(|hypothesis| self.total(hypothesis));
        let highest = totals.enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best });
        highest.map_or(0, |(at, _)| at)
    }
}

#[cfg(test)]
pub(crate) fn list(id: &str, hypotheses: &[(f64, f64, &str)]) -> NBest {
    let of = |&(acoustic, lp, text): &(f64, f64, &str)| {
        let text = text.to_owned();
        Hypothesis { acoustic, old: 0.0, text, lp }
    };
    NBest { id: id.to_owned(), hypotheses: hypotheses.iter().map(of).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_the_weighted_sum_and_the_first_of_equal_ones_is_the_best() {
        let weights = Weights { acoustic_scale: 0.5, old_weight: 0.25, weight: 2.0, word_penalty: 1.0 };
        let hypothesis = Hypothesis { acoustic: -8.0, old: -4.0, text: "a b c".into(), lp: -3.0 };
        assert_eq!(weights.total(&hypothesis), -4.0 - 1.0 - 6.0 - 3.0);
        let list = list("u", &[(-4.0, -2.0, "a"), (-2.0, -1.0, "b"), (-2.0, -1.0, "c")]);
        assert_eq!(weights.best(&list), 1);
        assert!(Weights { weight: f64::NAN, ..weights }.validate().is_err());
    }
}
