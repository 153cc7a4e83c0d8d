//! `tokenizer.json`: written so that the Python `tokenizers` library yields the same ids, and read from anybody.
//!
//! What other programs wrote goes through the library itself, which panics on some malformed files: the file's
//! size is bounded and a panic becomes an error.

use super::byte_level::{to_byte, to_char};
use super::normalizer::{BYTE_ORDER_MARK, own_normalizer, replace_pattern};
use super::panic_capture::capture_panic;
use super::table::{ByteTable, CharTable};
use super::word::WordTable;
use super::{END_OF_LINE, Kind, UNKNOWN, bpe::Bpe};
use crate::error::{Error, Result};
use crate::storage::TOKENIZER;
use crate::storage::read::limit;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Writes a tokenizer the way the library does.
pub(super) fn write(kind: &Kind) -> String {
    match kind {
        Kind::Bpe(bpe) => bpe.to_json(),
        _ => format!("{:#}\n", own(kind).expect("every other kind has a form of its own")),
    }
}

/// Reads a tokenizer; errors are about the checkpoint that holds it.
pub(super) fn load(path: &Path) -> Result<Kind> {
    parse(path, &read_bounded(path).map_err(|what| Error::checkpoint(path, what))?)
}

/// The tokenizer in the bytes of a `tokenizer.json`; `path` is for messages.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Kind> {
    let refuse = |what: String| Error::checkpoint(path, what);
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        refuse(format!("is no tokenizer.json: {error}; wanted what the tokenizers library writes"))
    })?;
    if let Some(kind) = recognise(&value) {
        return Ok(kind);
    }
    drop(value);
    let loaded = capture_panic(|| {
        tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| e.to_string()).and_then(Bpe::new)
    });
    let bpe = loaded.and_then(|result| result).map_err(|what| refuse(format!("is no tokenizer: {what}")))?;
    Ok(Kind::Bpe(Box::new(bpe)))
}

/// Refuses a vocabulary whose file would be too large to be read again.
pub(super) fn check_size(kind: &Kind, words: &[String]) -> Result<()> {
    let most = limit(TOKENIZER);
    // Most are far from it: a byte of an entry is written as six at most, and stands in one merge at most.
    let bound: usize = words.iter().map(|word| 8 * word.len() + 64).sum();
    if bound as u64 <= most {
        return Ok(());
    }
    let bytes = write(kind).len() as u64;
    match bytes > most {
        true => Err(Error::config(format!(
            "the vocabulary, {} tokens, would make a {TOKENIZER} of {bytes} bytes, at most {most} are read: \
             corpus.min_count or corpus.vocab_size leaves rare words out",
            words.len()
        ))),
        false => Ok(()),
    }
}

fn read_bounded(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let most = limit(TOKENIZER);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > most {
        return Err(format!("is larger than {} MiB, the most that is read of a {TOKENIZER}", most >> 20));
    }
    Ok(bytes)
}

/// The tokenizer, if it is one that this program writes: its own form, written again, must be the same.
fn recognise(value: &Value) -> Option<Kind> {
    let words = vocabulary(value)?;
    let kind = match value["model"]["type"].as_str()? {
        "WordLevel" => Kind::Word(WordTable::from_words(words)),
        "BPE" if value["pre_tokenizer"].is_null() => Kind::Char(CharTable::from_words(words)?),
        "BPE" => Kind::Byte(byte_table(&words)?),
        _ => return None,
    };
    (own(&kind).as_ref() == Some(value)).then_some(kind)
}

/// The entries by id, if each id from 0 on has exactly one.
fn vocabulary(value: &Value) -> Option<Vec<String>> {
    let vocabulary = value["model"]["vocab"].as_object()?;
    let mut words = vec![None; vocabulary.len()];
    for (word, id) in vocabulary {
        *words.get_mut(usize::try_from(id.as_u64()?).ok()?)? = Some(word.clone());
    }
    words.into_iter().collect()
}

fn byte_table(words: &[String]) -> Option<ByteTable> {
    let (symbols, unknown) = match words.split_last() {
        Some((last, symbols)) if last == UNKNOWN => (symbols, true),
        _ => (words, false),
    };
    let byte = |word: &String| {
        let mut chars = word.chars();
        chars.next().and_then(to_byte).filter(|_| chars.next().is_none())
    };
    Some(ByteTable::from_symbols(symbols.iter().map(byte).collect::<Option<_>>()?, unknown))
}

fn own(kind: &Kind) -> Option<Value> {
    match kind {
        Kind::Word(table) => Some(word_json(table)),
        Kind::Char(table) => Some(char_json(table)),
        Kind::Byte(table) => Some(byte_json(table)),
        Kind::Bpe(_) => None,
    }
}

/// Line ends become `<eos>` before whitespace separates the words; so does the end of a last line without one.
fn word_json(table: &WordTable) -> Value {
    let normalizer = json!({"type": "Sequence", "normalizers": [
        replace_pattern(BYTE_ORDER_MARK, ""),
        replace_pattern("\\n|(?<=[^\\n])\\z", &format!(" {END_OF_LINE} ")),
    ]});
    // The library wants the name of an unknown token; without one in the vocabulary it refuses unseen words.
    let model = json!({"type": "WordLevel", "vocab": ids(table.words.iter().cloned()), "unk_token": UNKNOWN});
    tokenizer(normalizer, json!({"type": "WhitespaceSplit"}), Value::Null, model)
}

fn char_json(table: &CharTable) -> Value {
    let model = symbols_model(ids(table.words.iter().cloned()), table.unknown.is_some());
    tokenizer(own_normalizer(), Value::Null, json!({"type": "Fuse"}), model)
}

fn byte_json(table: &ByteTable) -> Value {
    let unknown = table.unknown.map(|_| UNKNOWN.to_owned());
    let names = table.symbols.iter().map(|&byte| to_char(byte).to_string()).chain(unknown.clone());
    let level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    tokenizer(Value::Null, level.clone(), level, symbols_model(ids(names), unknown.is_some()))
}

/// Byte pairs without a pair: every symbol stays by itself, and one that is unseen is dropped unless there is
/// an unknown token.
fn symbols_model(vocabulary: Map<String, Value>, unknown: bool) -> Value {
    json!({
        "type": "BPE", "dropout": null, "unk_token": unknown.then_some(UNKNOWN),
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
        "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": [],
    })
}

fn tokenizer(normalizer: Value, pre_tokenizer: Value, decoder: Value, model: Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model,
    })
}

fn ids(words: impl Iterator<Item = String>) -> Map<String, Value> {
    words.zip(0u32..).map(|(word, id)| (word, id.into())).collect()
}
