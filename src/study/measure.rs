//! The unit of a loss: perplexity, bits per character or nats.

use super::kept::Kept;
use super::run::RunHistory;
use crate::config::Unit;
use crate::events::{Epoch, Outcome};
use serde::Serialize;
use std::f64::consts::LN_2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measure {
    /// e to the nats per token
    Perplexity,
    /// Bits over the characters of the text, so that models with different units compare
    BitsPerChar,
    /// Nats per token
    Nats,
}

impl Measure {
    /// Perplexity for words and byte pairs; bits per character for characters, bytes and a mixture. Perplexity also where a
    /// run is not of running text, whatever its unit: it has no bits per character.
    pub(crate) fn usual<'a>(runs: impl IntoIterator<Item = &'a RunHistory>) -> Self {
        let mut measure = Self::Perplexity;
        for run in runs {
            match run.unit() {
                _ if !run.is_of_running_text() => return Self::Perplexity,
                Some(Unit::Char | Unit::Byte) => measure = Self::BitsPerChar,
                Some(Unit::Word | Unit::Bpe) | None => {}
            }
        }
        measure
    }

    /// On the validation split, if it was finite.
    pub(crate) fn valid(self, epoch: &Epoch) -> Option<f64> {
        self.of(epoch.valid_nats_per_token, epoch.valid_bits_per_char)
    }

    /// On the training split with dropout, if it was finite. How many characters a token of the training split has
    /// is not known, so there bits per character are those of models of characters alone, and only where the vocabulary
    /// had all of the validation split.
    pub(crate) fn train(self, epoch: &Epoch, unit: Option<Unit>) -> Option<f64> {
        let nats = epoch.train_nats_per_token;
        let by_chars = unit == Some(Unit::Char) && epoch.valid_bits_per_char.is_some();
        self.of(nats, nats.filter(|_| by_chars).map(|nats| nats / LN_2))
    }

    /// Why the test split has no such figure, if that is known.
    pub(crate) fn absent(self, result: &Outcome) -> Option<String> {
        result.test.bits_per_char_absent.clone().filter(|_| self == Self::BitsPerChar)
    }

    pub(crate) fn test(self, result: &Outcome) -> Option<f64> {
        self.of(result.test.nats_per_token, result.test.bits_per_char)
    }

    /// Of an evaluation that was kept.
    pub(crate) fn kept(self, kept: &Kept) -> Option<f64> {
        self.of(kept.nats_per_token, kept.bits_per_char)
    }

    fn of(self, nats: Option<f64>, bits_per_char: Option<f64>) -> Option<f64> {
        let value = match self {
            Self::Perplexity => nats.map(f64::exp),
            Self::BitsPerChar => bits_per_char,
            Self::Nats => nats,
        };
        value.filter(|value| value.is_finite())
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Perplexity => "perplexity",
            Self::BitsPerChar => "bits per character",
            Self::Nats => "nats per token",
        }
    }

    /// With as many digits as distinguish runs.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Perplexity => format!("{value:.2}"),
            Self::BitsPerChar => format!("{value:.3}"),
            Self::Nats => format!("{value:.4}"),
        }
    }
}
