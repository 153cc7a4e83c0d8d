//! The sums of an evaluation: what was predicted, how much text it is, and what it cost.

use crate::config::Unit;
use crate::data::batch::Batches;
use crate::data::{Encoded, Extent};
use serde::{Deserialize, Serialize};

/// A figure, or why there is none.
pub(super) type Figure = (Option<f64>, Option<String>);

/// Why a figure over the text is absent of tokens alone.
const UNMEASURED: &str =
    "batch rows of sentences or of shards are tokens alone; the stream protocol measures their text";

/// Sums over the tokens that were predicted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) tokens: u64,
    /// Nats of all of them.
    pub(super) nats: f64,
    /// Those that are `<unk>`, also where the text itself says so; none if the vocabulary has none.
    pub(super) unknown: Option<u64>,
    pub(super) unknown_nats: f64,
    pub(super) bytes: u64,
    pub(super) chars: u64,
    pub(super) words: u64,
    /// Those whose letters hide behind `<unk>`.
    pub(super) hidden: u64,
    /// Symbols of the whole text that the vocabulary lacks.
    pub(super) unseen: u64,
    /// The text is not UTF-8.
    pub(super) no_characters: bool,
    /// The tokens come without the text that they are.
    pub(super) unmeasured: bool,
}

/// Tokens that were predicted, in the order of their nats.
pub(super) struct Predicted<'a> {
    pub(super) targets: &'a [u32],
    pub(super) nats: &'a [f64],
}

impl Tally {
    /// How much text `batches` predict, before any nats.
    pub(super) fn of_text(text: &Encoded, batches: &Batches) -> Self {
        let mut tally = Self {
            tokens: (batches.count * batches.predicted) as u64,
            unknown: text.unknown.map(|_| 0),
            unseen: text.unseen,
            no_characters: !text.is_utf8,
            ..Self::default()
        };
        assert_eq!(text.extents.len(), text.tokens.len(), "the text was encoded without its extents");
        let predicted = batches.predicted_positions();
        predicted.for_each(|position| tally.add_extent(text.extents.get(position)));
        tally
    }

    /// Nothing yet; `unknown` is the id of `<unk>`, if the vocabulary has it.
    pub(super) fn of_vocabulary(unknown: Option<u32>) -> Self {
        Self { unknown: unknown.map(|_| 0), ..Self::default() }
    }

    /// Adds what was predicted of a window; `unknown` is the id of `<unk>`.
    pub(super) fn add_predicted(&mut self, predicted: &Predicted<'_>, unknown: Option<u32>) {
        let Predicted { targets, nats } = predicted;
        self.tokens += targets.len() as u64;
        self.nats += nats.iter().sum::<f64>();
        let Some(unknown) = unknown else { return };
        for (_, nats) in targets.iter().zip(*nats).filter(|&(&target, _)| target == unknown) {
            self.unknown = self.unknown.map(|count| count + 1);
            self.unknown_nats += nats;
        }
    }

    pub(super) fn add_extent(&mut self, extent: Extent) {
        if extent.hidden {
            self.hidden += 1;
            return;
        }
        self.bytes += u64::from(extent.bytes);
        self.chars += u64::from(extent.chars);
        self.words += u64::from(extent.words);
    }

    /// Adds the nats of a window that begins with step `start`: `(time, batch)` in row order.
    pub(super) fn add(&mut self, text: &Encoded, batches: &Batches, start: usize, nats: &[f64]) {
        self.nats += nats.iter().sum::<f64>();
        let Some(unknown) = text.unknown else { return };
        for (steps, nats) in nats.chunks(batches.count).enumerate() {
            for (row, nats) in nats.iter().enumerate() {
                if text.tokens.get(batches.target(row, start + steps)) == unknown {
                    self.unknown = self.unknown.map(|count| count + 1);
                    self.unknown_nats += nats;
                }
            }
        }
    }

    /// Adds another text's sums.
    pub(super) fn join(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.nats += other.nats;
        self.unknown = other.unknown.map(|count| count + self.unknown.unwrap_or(0));
        self.unknown_nats += other.unknown_nats;
        self.bytes += other.bytes;
        self.chars += other.chars;
        self.words += other.words;
        self.hidden += other.hidden;
        self.unseen += other.unseen;
        self.no_characters |= other.no_characters;
        self.unmeasured |= other.unmeasured;
    }

    /// Bits over characters: where each token is one, the bits per token to the last digit.
    pub(super) fn over_chars(&self, bits: f64, per_token: f64, unit: Unit) -> Figure {
        if self.no_characters {
            return absent("the text is not UTF-8: it has no characters");
        }
        if self.unmeasured && unit != Unit::Char {
            return absent(UNMEASURED);
        }
        match self.hides() {
            Some(reason) => absent(&reason),
            None if unit == Unit::Char => (Some(per_token), None),
            None if self.chars == 0 => absent("no character was predicted"),
            None => (Some(bits / self.chars as f64), None),
        }
    }

    /// Bits over bytes, likewise.
    pub(super) fn over_bytes(&self, bits: f64, per_token: f64, unit: Unit) -> Figure {
        if self.unmeasured && unit != Unit::Byte {
            return absent(UNMEASURED);
        }
        match self.hides() {
            Some(reason) => absent(&reason),
            None if unit == Unit::Byte => (Some(per_token), None),
            None if self.bytes == 0 => absent("no byte was predicted"),
            None => (Some(bits / self.bytes as f64), None),
        }
    }

    /// Nats over the tokens that are not `<unk>`; no figure and no reason where the vocabulary has none.
    pub(super) fn over_known(&self) -> Figure {
        match self.unknown.map(|unknown| self.tokens - unknown) {
            None => (None, None),
            Some(0) => absent("every predicted token is <unk>"),
            Some(known) => (Some((self.nats - self.unknown_nats) / known as f64), None),
        }
    }

    /// Nats of everything over words.
    pub(super) fn over_words(&self) -> Figure {
        if self.unmeasured {
            return absent(UNMEASURED);
        }
        match self.hides() {
            Some(reason) => absent(&reason),
            None if self.unseen > 0 => absent(
                "the vocabulary lacks symbols of the text: what was left out of its words costs nothing",
            ),
            None if self.words == 0 => absent("no word ends in what was predicted"),
            None => (Some(self.nats / self.words as f64), None),
        }
    }

    /// Why the letters of some tokens are not known. Of tokens alone each `<unk>` hides some.
    fn hides(&self) -> Option<String> {
        let what = "the letters behind it were not predicted";
        let hidden = if self.unmeasured { self.unknown.unwrap_or(0) } else { self.hidden };
        match hidden {
            0 => None,
            1 => Some(format!("1 predicted token is <unk>: {what}")),
            hidden => Some(format!("{hidden} predicted tokens are <unk>: {what}")),
        }
    }
}

fn absent(reason: &str) -> Figure {
    (None, Some(reason.to_owned()))
}
