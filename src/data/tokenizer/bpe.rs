//! Byte-level byte-pair encoding, and any other tokenizer of the `tokenizers` library.

use super::Piece;
use super::byte_level::{display, to_bytes};
use super::normalizer::{BYTE_ORDER_MARK, own_normalizer, replace_pattern};
use super::panic_capture::capture_panic;
use super::stretches::{partable, parts, pieces, without_long_words};
use crate::data::text::Text;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    DecoderWrapper, Encoding, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper,
    PostProcessorWrapper,
};

/// The size of a trained vocabulary unless the recipe sets it.
const DEFAULT_SIZE: usize = 4096;

/// One entry a byte: no text is outside such a vocabulary.
const BYTES: usize = 256;

/// No vocabulary is larger; ids above would make tables that fit no memory.
const MOST_ENTRIES: usize = 1 << 24;

/// A byte order mark as a character.
const MARK: char = '\u{feff}';

/// Bytes that are cut at a time: the library keeps about a hundred bytes a token.
const PIECE: usize = 1 << 20;

/// A tokenizer of the library, and what this program needs to know about it.
#[derive(Clone, Debug)]
pub(super) struct Bpe {
    /// The library's own tokenizer.
    pub(super) inner: tokenizers::Tokenizer,
    pub(super) words: Vec<String>,
    /// The bytes of each entry, where the vocabulary is byte-level.
    pub(super) bytes: Option<Vec<Vec<u8>>>,
    pub(super) unknown: Option<u32>,
    /// What changes text before it is cut, where the rest is GPT-2's own; none for any other tokenizer.
    plain: Option<Plain>,
    /// Kept for the file alone: it would move the places of tokens.
    post_processor: Option<PostProcessorWrapper>,
}

/// What a byte-level tokenizer with GPT-2's pattern does to the text before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    /// Nothing.
    AsGiven,
    /// It takes away a byte order mark.
    WithoutMark,
    /// It takes away a byte order mark and reads CR LF as LF.
    WithoutMarkAndCr,
}

impl Bpe {
    /// Trains a vocabulary of `vocab_size` (0: 4,096) on the text.
    pub(super) fn train(vocab_size: usize, text: &Text) -> Result<Self> {
        let size = if vocab_size == 0 { DEFAULT_SIZE } else { vocab_size };
        if !(BYTES..=MOST_ENTRIES).contains(&size) {
            let what = format!("corpus.vocab_size is {size}: byte pairs need {BYTES} to {MOST_ENTRIES}");
            return Err(Error::config(what));
        }
        let content = partable(text)?;
        let alphabet = ByteLevel::alphabet().into_iter().collect();
        let builder = BpeTrainerBuilder::new().vocab_size(size).min_frequency(2);
        let mut trainer: TrainerWrapper =
            builder.initial_alphabet(alphabet).show_progress(false).build().into();
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        inner.with_normalizer(normalizer()).map_err(|error| Error::config(error.to_string()))?;
        inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        inner.with_decoder(Some(ByteLevel::default()));
        let counted = pieces(content, PIECE / 16).flat_map(without_long_words);
        let trained = capture_panic(|| inner.train(&mut trainer, counted).map(drop));
        flatten(trained).map_err(|what| Error::data(&text.source, format!("no byte pairs: {what}")))?;
        Self::new(inner).map_err(|what| Error::data(&text.source, what))
    }

    /// Takes what the library loaded; says what is wrong with it. What makes it cut one text in several ways is turned
    /// off: a number must be that of the text.
    pub(super) fn new(mut inner: tokenizers::Tokenizer) -> std::result::Result<Self, String> {
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        without_chance(&mut inner);
        let post_processor = inner.get_post_processor().cloned();
        inner.with_post_processor(None::<PostProcessorWrapper>);
        let vocabulary = inner.get_vocab(true);
        let size = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
        if !(1..=MOST_ENTRIES).contains(&size) {
            return Err(format!("ids reach up to {size}, wanted a vocabulary of 1 to {MOST_ENTRIES}"));
        }
        let names = in_order(vocabulary, size)?;
        let bytes = is_byte_level(&inner).then(|| entry_bytes(&inner, &names));
        let words = match &bytes {
            Some(bytes) => bytes.iter().map(|bytes| display(bytes)).collect(),
            None => names,
        };
        let unknown = unknown_name(&inner).and_then(|name| inner.token_to_id(&name));
        let plain = plain(&inner);
        Ok(Self { inner, words, bytes, unknown, plain, post_processor })
    }

    /// The tokenizer as the library writes it.
    pub(super) fn to_json(&self) -> String {
        let mut whole = self.inner.clone();
        whole.with_post_processor(self.post_processor.clone());
        serde_json::to_string_pretty(&whole).unwrap_or_default() + "\n"
    }

    pub(super) fn line_end(&self) -> Option<u32> {
        let encoding = capture_panic(|| self.inner.encode_fast("\n", false)).ok()?.ok()?;
        <[u32; 1]>::try_from(encoding.get_ids()).ok().map(|[id]| id)
    }

    pub(super) fn reads_crlf_as_lf(&self) -> bool {
        self.plain == Some(Plain::WithoutMarkAndCr)
    }

    /// Whether it is byte-level with GPT-2's pattern and changes no text but marks and line ends.
    pub(super) fn is_plain(&self) -> bool {
        self.plain.is_some()
    }

    /// Whether blanks between tokens are no part of them, so that a token implies one.
    pub(super) fn drops_blanks(&self) -> bool {
        self.bytes.is_none()
    }

    /// See [`super::Tokenizer::settled`]: other programs' tokenizers may look at the whole text.
    pub(super) fn settled(&self, text: &[u8]) -> usize {
        if self.plain.is_none() {
            return 0;
        }
        (1..text.len()).rev().find(|&at| parts(text, at)).unwrap_or(0)
    }

    /// Visits the tokens of a text in order, and what was left out between them.
    pub(super) fn cut(&self, text: &Text, mut take: impl FnMut(Piece)) -> Result<()> {
        let (content, size) = match self.plain {
            Some(_) => (partable(text)?, PIECE),
            None => (text.whole_str()?, usize::MAX),
        };
        let mut start = 0;
        for piece in pieces(content, size) {
            let at_source = start == 0 && text.is_start();
            // The normalizer takes a mark away wherever it is asked to begin; only a source's first is none of the text.
            let spared = self.takes_mark() && !at_source && piece.starts_with(MARK);
            let given = if spared { &format!("{MARK}{piece}") } else { piece };
            let encoding = flatten(capture_panic(|| self.inner.encode(given, false)))
                .map_err(|what| Error::data(&text.source, format!("cannot be cut into tokens: {what}")))?;
            let shift = given.len() - piece.len();
            let spans = match self.exact_spans(given, &encoding) {
                Some(spans) => spans,
                None => encoding.get_offsets().iter().map(|&(from, to)| from..to).collect(),
            };
            let within = |at: usize| start + at.clamp(shift, given.len()) - shift;
            let spans = spans.into_iter().map(|span| within(span.start)..within(span.end));
            self.visit(content, start..start + piece.len(), encoding.get_ids(), spans, &mut take);
            start += piece.len();
        }
        Ok(())
    }

    /// The bytes of each token, where the tokens' own bytes put together are the text as it was normalized.
    fn exact_spans(&self, text: &str, encoding: &Encoding) -> Option<Vec<Range<usize>>> {
        let plain = self.plain?;
        let bytes = self.bytes.as_ref()?;
        let text = text.as_bytes();
        let mark =
            if self.takes_mark() && text.starts_with("\u{feff}".as_bytes()) { MARK.len_utf8() } else { 0 };
        let joined = |at: usize| plain == Plain::WithoutMarkAndCr && text[at..].starts_with(b"\r\n");
        let mut at = mark;
        let mut spans = Vec::with_capacity(encoding.len());
        for &id in encoding.get_ids() {
            let start = at;
            for &byte in &bytes[id as usize] {
                at += usize::from(at < text.len() && joined(at));
                if text.get(at) != Some(&byte) {
                    return None; // a byte that the vocabulary lacks was left out
                }
                at += 1;
            }
            spans.push(start..at);
        }
        (at == text.len()).then_some(spans)
    }

    fn takes_mark(&self) -> bool {
        matches!(self.plain, Some(Plain::WithoutMark | Plain::WithoutMarkAndCr))
    }

    /// Visits the tokens of `range`, and each character that is not white space and lies between them.
    fn visit(
        &self,
        content: &str,
        range: Range<usize>,
        ids: &[u32],
        spans: impl Iterator<Item = Range<usize>>,
        take: &mut impl FnMut(Piece),
    ) {
        let mut at = range.start;
        let mut held: Option<Piece> = None;
        // A token is held until what comes after it is known.
        let gap = |held: Option<Piece>, from: usize, to: usize, take: &mut dyn FnMut(Piece)| {
            let between = content.get(from..to).unwrap_or_default();
            let visible = between.trim_end();
            let before = held.as_ref().and_then(|piece| content.get(piece.span.clone()));
            let taken_in =
                !visible.trim_start().is_empty() && self.takes_in(before.unwrap_or_default(), visible);
            if let Some(mut piece) = held {
                piece.span.end = if taken_in { from + visible.len() } else { piece.span.end };
                take(piece);
            }
            for (offset, char) in between.char_indices().filter(|_| !taken_in) {
                let start = from + offset;
                if !(char.is_whitespace() || start == 0 && char == MARK) {
                    take(Piece { id: None, known: false, span: start..start + char.len_utf8() });
                }
            }
        };
        for (&id, span) in ids.iter().zip(spans) {
            gap(held.take(), at, span.start, take);
            at = at.max(span.end);
            let spelled = || content.get(span.clone()) == self.words.get(id as usize).map(String::as_str);
            let known = Some(id) != self.unknown || spelled();
            held = Some(Piece { id: Some(id), known, span });
        }
        gap(held.take(), at, range.end, take);
    }

    /// Whether the normalizer makes no more of `before` with `between` after it than of `before` alone: it removes what is
    /// between, or composes it with a character before.
    fn takes_in(&self, before: &str, between: &str) -> bool {
        let last = before.chars().next_back().map(String::from).unwrap_or_default();
        let visible = |text: &str| self.normalized(text).map(|text| text.trim().chars().count());
        match (visible(&last), visible(&format!("{last}{between}"))) {
            (Some(alone), Some(together)) => together <= alone,
            _ => false,
        }
    }

    /// The text as it is cut; none if nothing normalizes it.
    pub(super) fn normalized(&self, text: &str) -> Option<String> {
        let normalizer = self.inner.get_normalizer()?;
        let mut normalized = NormalizedString::from(text);
        capture_panic(|| normalizer.normalize(&mut normalized).is_ok()).ok().filter(|&done| done)?;
        Some(normalized.get().to_owned())
    }
}

/// Turns off what draws random numbers while a text is cut.
fn without_chance(inner: &mut tokenizers::Tokenizer) {
    match inner.get_model() {
        ModelWrapper::BPE(model) if model.dropout.is_some() => {
            let mut model = model.clone();
            model.dropout = None;
            inner.with_model(model);
        }
        ModelWrapper::Unigram(model) if model.alpha.is_some() || model.nbest_size.is_some() => {
            let mut model = model.clone();
            model.alpha = None;
            model.nbest_size = None;
            inner.with_model(model);
        }
        _ => {}
    }
}

/// An error, or a panic's message, as text.
fn flatten<T>(result: std::result::Result<tokenizers::Result<T>, String>) -> std::result::Result<T, String> {
    result.and_then(|result| result.map_err(|error| error.to_string()))
}

/// The entries' names by id; an id without an entry gets an empty name. Two entries of one id are refused: the
/// library loses one of them when it writes.
fn in_order(vocabulary: HashMap<String, u32>, size: usize) -> std::result::Result<Vec<String>, String> {
    let mut names = vec![None; size];
    for (name, id) in vocabulary {
        if let Some(other) = names[id as usize].replace(name) {
            return Err(format!("two entries have the id {id}, one of them {other:?}"));
        }
    }
    Ok(names.into_iter().map(Option::unwrap_or_default).collect())
}

fn is_byte_level(inner: &tokenizers::Tokenizer) -> bool {
    matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)))
}

/// The bytes of each entry; added ones are written as they are.
fn entry_bytes(inner: &tokenizers::Tokenizer, names: &[String]) -> Vec<Vec<u8>> {
    let added = inner.get_added_tokens_decoder();
    let bytes = |(name, id): (&String, u32)| match added.contains_key(&id) {
        true => name.clone().into_bytes(),
        false => to_bytes(name).unwrap_or_else(|| name.clone().into_bytes()),
    };
    names.iter().zip(0..).map(bytes).collect()
}

fn unknown_name(inner: &tokenizers::Tokenizer) -> Option<String> {
    match inner.get_model() {
        ModelWrapper::BPE(model) => model.unk_token.clone(),
        ModelWrapper::WordPiece(model) => Some(model.unk_token.clone()),
        ModelWrapper::WordLevel(model) => Some(model.unk_token.clone()),
        ModelWrapper::Unigram(model) => {
            let saved = serde_json::to_value(model).ok()?;
            let id = usize::try_from(saved["unk_id"].as_u64()?).ok()?;
            saved["vocab"][id][0].as_str().map(str::to_owned)
        }
    }
}

/// Takes away a byte order mark and reads CR LF as LF, so that other programs that load this file do as this one does.
fn normalizer() -> Option<NormalizerWrapper> {
    serde_json::from_value(own_normalizer()).ok()
}

/// Whether it is byte-level with GPT-2's pattern, with nothing around it that changes text but what is done here.
fn plain(inner: &tokenizers::Tokenizer) -> Option<Plain> {
    let split = match inner.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::ByteLevel(level)) => level.use_regex && !level.add_prefix_space,
        _ => false,
    };
    if !split || !is_byte_level(inner) || !inner.get_added_tokens_decoder().is_empty() {
        return None;
    }
    let normalizer = inner.get_normalizer().map(|found| serde_json::to_value(found).unwrap_or_default());
    match normalizer {
        None => Some(Plain::AsGiven),
        Some(found) if found == replace_pattern(BYTE_ORDER_MARK, "") => Some(Plain::WithoutMark),
        Some(found) if found == own_normalizer() => Some(Plain::WithoutMarkAndCr),
        Some(_) => None,
    }
}
