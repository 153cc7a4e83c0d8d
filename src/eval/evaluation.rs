//! The result of an evaluation: sums divided once, and what they are over.

use super::adapt::Adaptation;
use super::decisions::Decisions;
use super::latent::LatentFigures;
use super::nbest::ListFigures;
use super::perplexity::Split;
use super::refine::Covariance;
use super::sentences::SentenceScore;
use super::tally::{Figure, Tally};
use crate::config::Unit;
use serde::Serialize;
use std::f64::consts::LN_2;

/// How well a model predicted a text; what `rhn eval --json` prints.
///
/// A figure over characters, bytes or words is over exactly the text whose probability was computed. Where there is no
/// such figure, as when characters hide behind `<unk>`, it is absent and the field after it says why.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Evaluation {
    /// The corpus's name.
    pub corpus: String,
    /// `train`, `valid`, `test` or `all`.
    pub split: String,
    /// `stream`, `batched`, `mc`, `dynamic`, `cache` or `dynamic+cache`; of images `images`, of labelled sentences `classify`, of n-best
    /// lists `lists`; of a sentence VAE, `elbo`, `elbo+refined` or
    /// `elbo+refined-full`.
    pub protocol: String,
    /// How sentences reached the model, if not as running text: `reset` or `carry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentences: Option<String>,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Bytes of the text that was predicted: of what became a token, the characters behind `<unk>` apart. Absent of what is not
    /// measured as text: sentences by themselves, labels, lists.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Characters of the same; absent if the text is not UTF-8, and where it is not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chars: Option<u64>,
    /// Words, which white space separates, that end in it; absent where none does, or nothing is measured.
    #[serde(skip_serializing_if = "is_zero")]
    pub words: u64,
    /// Symbols of the split that the vocabulary lacks.
    pub oov_tokens: u64,
    /// Mean −ln p of a token.
    pub nats_per_token: f64,
    /// exp of the nats per token; infinite, and null in JSON, if a double does not hold it. Absent of labels, which are no
    /// tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Why there is no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_absent: Option<String>,
    /// exp of the nats per token over the tokens that are not `<unk>`; absent from a vocabulary without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_known: Option<f64>,
    /// Why there is none, where the vocabulary has `<unk>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_known_absent: Option<String>,
    /// exp of all nats over the text's words: comparable between units, and no perplexity of tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_words: Option<f64>,
    /// Why there is no perplexity over words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_words_absent: Option<String>,
    /// The share of images whose label has the largest probability, or of sentences that are decided right; of text there
    /// is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// What the decisions of a classifier of sentences are worth.
    #[serde(flatten)]
    pub decisions: Option<Decisions>,
    /// Of n-best lists: their word errors.
    #[serde(flatten)]
    pub lists: ListFigures,
    /// The nats of a token in bits.
    pub bits_per_token: f64,
    /// Bits over the characters that were predicted; for character units, the bits per token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_char: Option<f64>,
    /// Why there are no bits per character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_char_absent: Option<String>,
    /// Bits over the bytes that were predicted; for byte units, the bits per token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
    /// Why there are no bits per byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_byte_absent: Option<String>,
    /// Wall-clock time.
    pub seconds: f64,
    /// Tokens predicted in a second of it.
    pub tokens_per_second: f64,
    /// What there is of a sentence VAE alone; its nats per token are those of its bound.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub latent: Option<LatentFigures>,
    /// What of it was no plain reading with the weights as they were trained.
    #[serde(flatten)]
    pub adaptation: Adaptation,
    /// The sums that all this was divided from.
    #[serde(skip)]
    pub(super) tally: Tally,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Evaluation {
    /// Divides the sums, once.
    pub(super) fn new(split: &Split<'_>, protocol: &str, tally: Tally, seconds: f64) -> Self {
        Self::named([split.corpus, split.split, protocol], split.unit, tally, seconds)
    }

    /// As [`Evaluation::new`], of a corpus and a split of these names.
    pub(super) fn named(
        [corpus, split, protocol]: [&str; 3],
        unit: Unit,
        tally: Tally,
        seconds: f64,
    ) -> Self {
        let named =
            Self { corpus: corpus.into(), split: split.into(), protocol: protocol.into(), ..Self::default() };
        named.divide(unit, tally, seconds)
    }

    /// Whether it is known how much text the tokens are.
    pub fn is_measured(&self) -> bool {
        !self.tally.unmeasured
    }

    /// The same, read with `adaptation`.
    pub(crate) fn with_adaptation(self, adaptation: Adaptation) -> Self {
        Self { adaptation, ..self }
    }

    /// Several texts' evaluations, by one model and one protocol, as one.
    pub fn total(corpus: &str, unit: Unit, parts: &[Self]) -> Self {
        let mut tally = Tally::default();
        parts.iter().for_each(|part| tally.join(&part.tally));
        let seconds = parts.iter().map(|part| part.seconds).sum();
        let first = parts.first().cloned().unwrap_or_default();
        Self { corpus: corpus.into(), ..first }.divide(unit, tally, seconds)
    }

    /// Of a classifier: the nats of all labels; `counts` are images or sentences, and those whose label is found.
    pub(crate) fn of_labels(corpus: &str, split: &str, nats: f64, counts: [u64; 2], seconds: f64) -> Self {
        let images = counts[0] as f64;
        Self {
            corpus: corpus.into(),
            split: split.into(),
            protocol: "images".into(),
            tokens: counts[0],
            nats_per_token: nats / images,
            accuracy: Some(counts[1] as f64 / images),
            bits_per_token: nats / images / LN_2,
            seconds,
            tokens_per_second: images / seconds.max(1e-9),
            ..Self::default()
        }
    }

    /// Of n-best lists: what the references add up to, with the words that the vocabulary lacks, and the word errors.
    pub(crate) fn of_lists(
        [corpus, split]: [&str; 2],
        (references, unseen): (&SentenceScore, u64),
        lists: ListFigures,
        seconds: f64,
    ) -> Self {
        let tokens = references.tokens as f64;
        let nats = -references.lp / tokens;
        Self {
            corpus: corpus.into(),
            split: split.into(),
            protocol: "lists".into(),
            tokens: references.tokens as u64,
            oov_tokens: unseen,
            nats_per_token: nats,
            perplexity: Some(nats.exp()),
            bits_per_token: nats / LN_2,
            lists,
            seconds,
            tokens_per_second: tokens / seconds.max(1e-9),
            ..Self::default()
        }
    }

    /// Of a sentence VAE; `counts` are tokens, the sentences' ends with them, and words.
    pub(crate) fn of_sentences(
        [corpus, split]: [&str; 2],
        latent: LatentFigures,
        [tokens, words]: [u64; 2],
        seconds: f64,
    ) -> Self {
        let nats_per_token = latent.elbo_nats * latent.sentence_count as f64 / tokens as f64;
        Self {
            corpus: corpus.into(),
            split: split.into(),
            protocol: match latent.refine_covariance {
                None => "elbo",
                Some(Covariance::Diagonal) => "elbo+refined",
                Some(Covariance::Full) => "elbo+refined-full",
            }
            .into(),
            tokens,
            words,
            nats_per_token,
            perplexity: Some(nats_per_token.exp()),
            perplexity_absent: nats_per_token.exp().is_infinite().then(too_large),
            bits_per_token: nats_per_token / LN_2,
            seconds,
            tokens_per_second: tokens as f64 / seconds.max(1e-9),
            latent: Some(latent),
            ..Self::default()
        }
    }

    /// What decides which weights are kept, the smaller the better: of n-best lists the word errors to expect, else the nats
    /// of a token.
    pub fn decides(&self) -> f64 {
        self.lists.expected_error_rate.unwrap_or(self.nats_per_token)
    }

    /// Divides the sums, once. A figure that a double does not hold is absent like one that is not known.
    fn divide(self, unit: Unit, tally: Tally, seconds: f64) -> Self {
        let tokens = tally.tokens as f64;
        let bits = tally.nats / LN_2;
        let per_token = bits / tokens;
        let (bits_per_char, bits_per_char_absent) = tally.over_chars(bits, per_token, unit);
        let (bits_per_byte, bits_per_byte_absent) = tally.over_bytes(bits, per_token, unit);
        let perplexity = (tally.nats / tokens).exp();
        let (known_perplexity, perplexity_known_absent) = finite_exp(tally.over_known());
        let (perplexity_words, perplexity_words_absent) = finite_exp(tally.over_words());
        Self {
            tokens: tally.tokens,
            bytes: tally.bytes,
            chars: (!tally.no_characters && !tally.unmeasured).then_some(tally.chars),
            words: tally.words,
            oov_tokens: tally.unseen,
            nats_per_token: tally.nats / tokens,
            perplexity: Some(perplexity),
            perplexity_absent: perplexity.is_infinite().then(too_large),
            perplexity_known: known_perplexity,
            perplexity_known_absent,
            perplexity_words,
            perplexity_words_absent,
            bits_per_token: per_token,
            bits_per_char,
            bits_per_char_absent,
            bits_per_byte,
            bits_per_byte_absent,
            seconds,
            tokens_per_second: tokens / seconds.max(1e-9),
            tally,
            ..self
        }
    }
}

fn too_large() -> String {
    "over 1e308, which no number of JSON holds".into()
}

fn finite_exp((nats, absent): Figure) -> Figure {
    match nats.map(f64::exp) {
        Some(value) if value.is_infinite() => (None, Some(too_large())),
        value => (value, absent),
    }
}
