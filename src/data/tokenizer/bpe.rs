//! Byte-level byte-pair encoding, and any other tokenizer of the `tokenizers` library.

use super::byte_level::{display, to_bytes};
use super::normalizer::{BYTE_ORDER_MARK, replace_pattern};
use super::panic_capture::capture_panic;
use super::{Encoded, UNKNOWN};
use crate::data::text::Text;
use crate::error::{Error, Result};
use std::collections::HashMap;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{DecoderWrapper, ModelWrapper, NormalizerWrapper};

/// The size of a trained vocabulary unless the recipe sets it.
const DEFAULT_SIZE: usize = 4096;

/// One entry a byte: no text is outside such a vocabulary.
const BYTES: usize = 256;

/// No vocabulary is larger; ids above would make tables that fit no memory.
const MOST_ENTRIES: usize = 1 << 24;

/// Bytes that are cut at a time: the library keeps about a hundred bytes a token.
const PIECE: usize = 1 << 20;

/// Bytes between two positions where a text may be cut; more in one stretch would need gigabytes.
const LONGEST_STRETCH: usize = 8 << 20;

/// A tokenizer of the library, and what this program needs to know about it.
#[derive(Clone, Debug)]
pub(super) struct Bpe {
    /// The library's own tokenizer.
    pub(super) inner: tokenizers::Tokenizer,
    pub(super) words: Vec<String>,
    /// The bytes of each entry, where the vocabulary is byte-level.
    pub(super) bytes: Option<Vec<Vec<u8>>>,
    pub(super) unknown: Option<u32>,
    /// Whether text may be cut before a line's end without changing its tokens.
    plain: bool,
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
        inner.with_normalizer(mark_remover()).map_err(|error| Error::config(error.to_string()))?;
        inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        inner.with_decoder(Some(ByteLevel::default()));
        let trained = capture_panic(|| inner.train(&mut trainer, pieces(content, PIECE / 16)).map(drop));
        flatten(trained).map_err(|what| Error::data(&text.source, format!("no byte pairs: {what}")))?;
        Self::new(inner).map_err(|what| Error::data(&text.source, what))
    }

    /// Takes what the library loaded; says what is wrong with it.
    pub(super) fn new(mut inner: tokenizers::Tokenizer) -> std::result::Result<Self, String> {
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| error.to_string())?;
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
        let plain = is_plain(&inner);
        Ok(Self { inner, words, bytes, unknown, plain })
    }

    pub(super) fn line_end(&self) -> Option<u32> {
        let encoding = capture_panic(|| self.inner.encode_fast("\n", false)).ok()?.ok()?;
        <[u32; 1]>::try_from(encoding.get_ids()).ok().map(|[id]| id)
    }

    pub(super) fn encode(&self, text: &Text) -> Result<Encoded> {
        let (content, size) =
            if self.plain { (partable(text)?, PIECE) } else { (text.as_str()?, usize::MAX) };
        let mut encoded = Encoded::new(content.as_bytes(), self.words.len(), 0);
        for piece in pieces(content, size) {
            let encoding = flatten(capture_panic(|| self.inner.encode(piece, false)))
                .map_err(|what| Error::data(&text.source, format!("cannot be cut into tokens: {what}")))?;
            let ids = encoding.get_ids();
            if let (true, [first, ..], [(_, end), ..]) =
                (encoded.tokens.is_empty(), ids, encoding.get_offsets())
            {
                let end = self.bytes.as_ref().map_or(*end, |bytes| bytes[*first as usize].len());
                encoded.measure_first(&content.as_bytes()[..end.min(content.len())]);
            }
            encoded.unseen += self.unseen(piece, ids);
            ids.iter().for_each(|&id| encoded.tokens.push(id));
        }
        Ok(encoded)
    }

    /// Unknown tokens, and bytes that a plain byte-level vocabulary left out.
    fn unseen(&self, piece: &str, ids: &[u32]) -> u64 {
        let unknown = ids.iter().filter(|&&id| Some(id) == self.unknown).count() as u64;
        let Some(bytes) = self.bytes.as_ref().filter(|_| self.plain && unknown == 0) else { return unknown };
        let kept: usize = ids.iter().map(|&id| bytes[id as usize].len()).sum();
        piece.len().saturating_sub(kept) as u64
    }
}

/// An error, or a panic's message, as text.
fn flatten<T>(result: std::result::Result<tokenizers::Result<T>, String>) -> std::result::Result<T, String> {
    result.and_then(|result| result.map_err(|error| error.to_string()))
}

/// The text, if it can be cut piece by piece. Fails if it is not UTF-8, or has a stretch that is too long;
/// says where.
fn partable(text: &Text) -> Result<&str> {
    let content = text.as_str()?;
    let mut start = 0;
    for piece in pieces(content, 1) {
        if piece.len() > LONGEST_STRETCH {
            let length = piece.len();
            let offset = text.offset(&content[start..]);
            let what = format!(
                "{length} bytes from offset {offset} on without a word's end; byte pairs want one every \
                 {LONGEST_STRETCH} bytes: divide the text by spaces or line ends, or use unit = \"byte\" or \"char\""
            );
            return Err(Error::data(&text.source, what));
        }
        start += piece.len();
    }
    Ok(content)
}

/// Cuts a text into parts of `size` bytes or somewhat more, each but the first beginning with a space or line feed
/// that follows something visible. GPT-2's pattern always ends a piece there, so no token is cut.
pub(super) fn pieces(text: &str, size: usize) -> impl Iterator<Item = &str> + Send {
    let mut rest = text;
    std::iter::from_fn(move || {
        let from = size.min(rest.len());
        let is_cut = |at: &usize| {
            let before = |text: &str| text.chars().next_back().is_some_and(|last| !last.is_whitespace());
            matches!(rest.as_bytes()[*at], b' ' | b'\n') && before(&rest[..*at])
        };
        let cut = (from..rest.len()).find(is_cut).unwrap_or(rest.len());
        let (piece, left) = rest.split_at(cut);
        rest = left;
        (!piece.is_empty()).then_some(piece)
    })
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
        ModelWrapper::Unigram(_) => Some(UNKNOWN.to_owned()),
    }
}

/// Takes away a byte order mark, so that other programs that load this file do as this one does.
fn mark_remover() -> Option<NormalizerWrapper> {
    serde_json::from_value(replace_pattern(BYTE_ORDER_MARK, "")).ok()
}

/// Byte-level with GPT-2's pattern and nothing around it that changes text, as trained here.
fn is_plain(inner: &tokenizers::Tokenizer) -> bool {
    let split = match inner.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::ByteLevel(level)) => level.use_regex && !level.add_prefix_space,
        _ => false,
    };
    let as_json = |normalizer: &NormalizerWrapper| serde_json::to_value(normalizer).ok();
    let normalizer = inner.get_normalizer().and_then(as_json);
    let untouched = normalizer.is_none_or(|found| found == replace_pattern(BYTE_ORDER_MARK, ""));
    split && untouched && is_byte_level(inner) && inner.get_added_tokens_decoder().is_empty()
}
