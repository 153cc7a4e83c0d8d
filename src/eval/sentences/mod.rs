//! Scores of single sentences: each is read by itself from the zero state, after the line end.
//!
//! For a sentence w_1 … w_n with its line end as w_{n+1}, where the vocabulary has one:
//!
//! ```text
//! LP      = Σ ln p(w_t | w_<t)
//! MeanLP  = LP / (n + 1)
//! PenLP   = LP / ((5 + n + 1) / (5 + 1))^0.8     Lau, Armendariz, Lappin, Purver and Shu, 2020
//! NormLP  = −LP / LP_unigram                     Lau, Clark and Lappin, 2017
//! SLOR    = (LP − LP_unigram) / (n + 1)          Pauls and Klein, 2012; Lau, Clark and Lappin, 2017
//! MinLP   = min_t ln p(w_t | w_<t)
//! ```
//!
//! Where the vocabulary has no line end, nothing predicts the first token: it is read and not scored, and sums and
//! lengths are over the tokens after it.

mod accuracy;
mod pairs;
mod rows;
mod unigrams;

pub use accuracy::{Accuracy, Outcome};
pub(crate) use pairs::has_labels;
pub use pairs::{Pair, read_pairs};
pub(crate) use pairs::{is_pairs, parse_pairs};
pub use rows::{ROWS, SentenceScore, score_sentences};
pub use unigrams::Unigrams;

use crate::data::{Text, Tokenizer};
use crate::error::Result;
use std::ops::Range;
use std::path::Path;

/// A number that is higher for the better sentence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// The sum of ln p over all tokens: for pairs of equal length
    #[default]
    Lp,
    /// That sum over the number of tokens
    Mean,
    /// That sum over a power of the length, ((5 + tokens) / 6)^0.8
    Pen,
    /// Minus that sum over that of the tokens' own frequencies; needs --unigrams
    Norm,
    /// The sum less that of the tokens' own frequencies, over the number of tokens; needs --unigrams
    Slor,
    /// The lowest ln p of any token
    Min,
}

impl Measure {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lp => "lp",
            Self::Mean => "mean",
            Self::Pen => "pen",
            Self::Norm => "norm",
            Self::Slor => "slor",
            Self::Min => "min",
        }
    }

    /// Whether it compares with the tokens' frequencies in a text.
    pub fn reads_unigrams(self) -> bool {
        matches!(self, Self::Norm | Self::Slor)
    }

    /// The measure of a sentence with this score, in nats (`norm` is a ratio without a unit); `unigram` is Σ ln p of its
    /// scored tokens by their frequencies, which `norm` and `slor` alone read. None if no token is scored, or by `norm` in a
    /// vocabulary of one token, whose frequency is 1.
    pub fn of(self, score: &SentenceScore, unigram: f64) -> Option<f64> {
        let length = score.tokens as f64;
        let value = match self {
            Self::Lp => score.lp,
            Self::Mean => score.lp / length,
            Self::Pen => score.lp / ((5.0 + length) / 6.0).powf(0.8),
            Self::Norm if unigram == 0.0 => return None,
            Self::Norm => -score.lp / unigram,
            Self::Slor => (score.lp - unigram) / length,
            Self::Min => score.lowest,
        };
        (score.tokens > 0).then_some(value)
    }
}

/// A sentence in a model's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// Its tokens, the line end included where the vocabulary has one.
    pub ids: Vec<u32>,
    /// Words, which white space separates.
    pub words: usize,
    /// Words with a symbol that the vocabulary lacks.
    pub unknown_words: usize,
    /// Symbols that the vocabulary lacks.
    pub unseen: u64,
    /// The tokens that stand for them: their places in `ids`, and the symbols.
    pub(crate) unknown: Vec<(usize, String)>,
}

impl Sentence {
    /// Cuts `text`, one line without its end.
    ///
    /// # Errors
    /// If a tokenizer of another program refuses it.
    pub fn cut(text: &str, tokenizer: &Tokenizer) -> Result<Self> {
        let end = if tokenizer.line_end_id().is_some() { "\n" } else { "" };
        let line = Text::new(format!("{text}{end}").into_bytes(), Path::new("sentence"));
        let mut ids = Vec::new();
        let mut unseen = Vec::new();
        let mut unknown = Vec::new();
        tokenizer.cut(&line, |piece| {
            if !piece.known {
                let symbol = || String::from_utf8_lossy(line.bytes()[piece.span.clone()].trim_ascii());
                unknown.extend(piece.id.map(|_| (ids.len(), symbol().into_owned())));
                unseen.push(piece.span);
            }
            ids.extend(piece.id);
        })?;
        let spans = word_spans(text);
        let is_unknown =
            |word: &&Range<usize>| unseen.iter().any(|span| span.start < word.end && word.start < span.end);
        let unknown_words = spans.iter().filter(is_unknown).count();
        let count = unseen.len() as u64;
        Ok(Self { ids, words: spans.len(), unknown_words, unseen: count, unknown })
    }
}

/// The bytes of each word.
fn word_spans(text: &str) -> Vec<Range<usize>> {
    let start = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
    text.split_whitespace().map(|word| start(word)..start(word) + word.len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unit;
    use crate::predict::tiny;

    #[test]
    fn the_measures_of_three_tokens_are_those_of_the_definitions() {
        // ln p of −1, −2 and −6, by their frequencies −3, −2 and −1.
        let score = SentenceScore { lp: -9.0, lowest: -6.0, tokens: 3 };
        let found = [Measure::Lp, Measure::Mean, Measure::Norm, Measure::Slor, Measure::Min];
        assert_eq!(found.map(|by| by.of(&score, -6.0).unwrap()), [-9.0, -3.0, -1.5, -1.0, -6.0]);
        // (8/6)^0.8 = 1.258783
        assert!((Measure::Pen.of(&score, 0.0).unwrap() + 9.0 / 1.258783).abs() < 1e-5);
        assert_eq!(Measure::Norm.of(&score, 0.0), None);
        let nothing = SentenceScore { lp: 0.0, lowest: 0.0, tokens: 0 };
        assert_eq!(Measure::Mean.of(&nothing, 0.0), None);
    }

    #[test]
    fn a_word_is_unknown_if_any_of_its_characters_is() {
        let tokenizer = tiny::tokenizer(Unit::Char, "abc \n");
        let sentence = Sentence::cut("ab xb  c", &tokenizer).unwrap();
        assert_eq!((sentence.words, sentence.unknown_words), (3, 1));
        assert_eq!(sentence.ids.last().copied(), tokenizer.line_end_id());
    }

    #[test]
    fn a_vocabulary_without_a_line_end_gets_none() {
        let sentence = Sentence::cut("ab", &tiny::tokenizer(Unit::Char, "abc")).unwrap();
        assert_eq!((sentence.ids.len(), sentence.unknown_words), (2, 0));
    }
}
