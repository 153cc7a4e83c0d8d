//! The unit of a loss: perplexity, bits per character or nats, and what it is a loss of.

use super::kept::Kept;
use super::run::RunHistory;
use crate::config::Unit;
use crate::events::Epoch;
use serde::Serialize;
use std::f64::consts::LN_2;

/// Why a run of labels has no perplexity.
pub(crate) const LABELS: &str = "a label is no token, so that it has no perplexity: --measure nats";

/// What a run predicts one by one: its losses are of one of these, and its speed counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Item {
    #[default]
    Token,
    /// The label of a sentence.
    Sentence,
    /// The label of an image.
    Image,
}

impl Item {
    /// What all of `runs` predict, if it is the same.
    pub(crate) fn shared<'a>(runs: impl IntoIterator<Item = &'a RunHistory>) -> Option<Self> {
        let mut items = runs.into_iter().map(RunHistory::item);
        let first = items.next()?;
        items.all(|item| item == first).then_some(first)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Sentence => "sentence",
            Self::Image => "image",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measure {
    /// e to the nats per token
    Perplexity,
    /// Bits over the characters of the text, so that models with different units compare
    BitsPerChar,
    /// Nats per token, or per label of a sentence or an image
    Nats,
}

impl Measure {
    /// Perplexity for words and byte pairs; bits per character for characters, bytes and a mixture. Perplexity also where a
    /// run is not of running text, whatever its unit: it has no bits per character. Nats where a run is of labels, which have
    /// no perplexity, and where none of the runs that read letters has a figure over characters: of bytes in shards they are not
    /// known, and of characters outside the vocabulary nothing was predicted.
    pub(crate) fn usual<'a>(runs: impl IntoIterator<Item = &'a RunHistory> + Clone) -> Self {
        let all = || runs.clone().into_iter();
        let mut reading_letters =
            all().filter(|run| matches!(run.unit(), Some(Unit::Char | Unit::Byte))).peekable();
        let has_characters = |run: &RunHistory| {
            let mut validated =
                run.epochs.iter().filter(|epoch| epoch.valid_nats_per_token.is_some()).peekable();
            validated.peek().is_none() || validated.any(|epoch| epoch.valid_bits_per_char.is_some())
        };
        if all().any(|run| run.item() != Item::Token) {
            Self::Nats
        } else if !all().all(RunHistory::is_of_running_text) || reading_letters.peek().is_none() {
            Self::Perplexity
        } else if reading_letters.any(has_characters) {
            Self::BitsPerChar
        } else {
            Self::Nats
        }
    }

    /// On the validation split, if it was finite.
    pub(crate) fn valid(self, run: &RunHistory, epoch: &Epoch) -> Option<f64> {
        self.of(run.item(), epoch.valid_nats_per_token, epoch.valid_bits_per_char)
    }

    /// On the training split with dropout, if it was finite. How many characters a token of the training split has
    /// is not known, so there bits per character are those of models of characters alone, and only where the vocabulary
    /// had all of the validation split. What a VAE is trained on weighs its KL, so that it is no perplexity.
    pub(crate) fn train(self, run: &RunHistory, epoch: &Epoch) -> Option<f64> {
        if self == Self::Perplexity && run.is_of_bound() {
            return None;
        }
        let nats = epoch.train_nats_per_token;
        let by_chars = run.unit() == Some(Unit::Char) && epoch.valid_bits_per_char.is_some();
        self.of(run.item(), nats, nats.filter(|_| by_chars).map(|nats| nats / LN_2))
    }

    /// Why the test split has no such figure, if that is known.
    pub(crate) fn absent(self, run: &RunHistory) -> Option<String> {
        match (self, run.item()) {
            (Self::Perplexity, Item::Sentence | Item::Image) => Some(LABELS.into()),
            (Self::BitsPerChar, _) => run.result.as_ref()?.test.bits_per_char_absent.clone(),
            _ => None,
        }
    }

    pub(crate) fn test(self, run: &RunHistory) -> Option<f64> {
        let test = &run.result.as_ref()?.test;
        self.of(run.item(), test.nats_per_token, test.bits_per_char)
    }

    /// Of an evaluation of `run` that was kept.
    pub(crate) fn kept(self, run: &RunHistory, kept: &Kept) -> Option<f64> {
        self.of(run.item(), kept.nats_per_token, kept.bits_per_char)
    }

    fn of(self, item: Item, nats: Option<f64>, bits_per_char: Option<f64>) -> Option<f64> {
        let value = match self {
            Self::Perplexity => nats.filter(|_| item == Item::Token).map(f64::exp),
            Self::BitsPerChar => bits_per_char,
            Self::Nats => nats,
        };
        value.filter(|value| value.is_finite())
    }

    /// The measure's name for losses of `item`, or of several kinds.
    pub(crate) fn name(self, item: Option<Item>) -> String {
        match (self, item) {
            (Self::Perplexity, _) => "perplexity".into(),
            (Self::BitsPerChar, _) => "bits per character".into(),
            (Self::Nats, Some(item)) => format!("nats per {}", item.name()),
            (Self::Nats, None) => "nats".into(),
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
