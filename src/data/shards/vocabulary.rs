//! The vocabulary of training shards: counted once, and kept beside what is encoded with it.

use super::cache::Cache;
use super::reader::ShardReader;
use super::tokens::ShardTokens;
use super::work::{Done, on_each};
use super::{EncodedShards, Shard, ShardedCorpus};
use crate::config::{CorpusConfig, Unit};
use crate::data::text::Text;
use crate::data::tokenizer::{SymbolCounts, Tokenizer};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::storage::aside::Aside;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Bytes of training text that byte pairs are trained on, from all shards alike.
const SAMPLE: u64 = 64 << 20;

/// The vocabulary of the training shards, or the one that `config` names; `sorted` asks for falling frequency.
pub(super) fn build(corpus: &ShardedCorpus, config: &CorpusConfig, sorted: bool) -> Result<Tokenizer> {
    if let Some(path) = &config.tokenizer {
        let tokenizer = Tokenizer::load_for(config.unit, path)?;
        return if sorted { check(corpus, tokenizer, path) } else { Ok(tokenizer) };
    }
    let [train, ..] = &corpus.splits;
    if config.vocabulary.is_some() {
        return Tokenizer::build(config, &Text::empty(&corpus.name)); // its own counts say that it is sorted
    }
    if sorted && config.unit != Unit::Word {
        return Err(Error::config(format!(
            "an adaptive softmax and sampled losses need a vocabulary sorted by falling frequency, which corpus.unit = \
             {:?} has not; wanted \"word\"",
            config.unit.as_str()
        )));
    }
    let key = key(train, config, sorted);
    let folder = corpus.cache.join("vocabularies");
    if let Some(tokenizer) = kept(&folder, &key) {
        return Ok(tokenizer);
    }
    let tokenizer = match config.unit {
        Unit::Bpe => Tokenizer::build(config, &sample(corpus)?)?,
        _ => count(train, config)?.tokenizer(config, sorted),
    };
    let json = tokenizer.to_json();
    Aside::write(&file(&folder, &key, &json), json.as_bytes())?;
    Ok(tokenizer)
}

/// Refuses a given vocabulary that is not sorted in the training shards, which are encoded to know it.
fn check(corpus: &ShardedCorpus, tokenizer: Tokenizer, path: &Path) -> Result<Tokenizer> {
    let shards = Cache::new(&corpus.cache, &tokenizer).shards(&corpus.splits[0])?;
    let tokens = ShardTokens::new(EncodedShards { shards: Arc::new(shards) }, 1);
    let counts = tokens.counts(tokenizer.vocab_size())?;
    let Some(at) = counts.windows(2).position(|pair| pair[0] < pair[1]) else { return Ok(tokenizer) };
    Err(Error::config(format!(
        "corpus.tokenizer: {} is not sorted by falling frequency, which an adaptive softmax and sampled losses need: \
         {:?} is {} times in the training shards and {:?} after it {}",
        path.display(),
        tokenizer.token(at as u32),
        counts[at],
        tokenizer.token(at as u32 + 1),
        counts[at + 1]
    )))
}

/// Counts the symbols of the shards, several shards at once. A table a shard is joined to that of all.
fn count(shards: &[Shard], config: &CorpusConfig) -> Result<SymbolCounts> {
    let all = Mutex::new(SymbolCounts::new(config.unit)?);
    let shards: Vec<&Shard> = shards.iter().collect();
    let read = on_each("counting the vocabulary", &shards, |index, shard, done: &Done| {
        let mut counts = SymbolCounts::new(config.unit)?;
        let mut symbols = 0;
        let mut bytes = 0;
        let mut reader = ShardReader::open(&shard.path)?;
        while let Some(part) = reader.next(None)? {
            symbols += counts.add(&part, index as u32, symbols)?;
            bytes += part.len();
            done.add(part.len())?;
        }
        all.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).join(counts);
        Ok(bytes)
    })?;
    if read.iter().sum::<usize>() == 0 {
        let path = shards.first().map_or(Path::new("corpus"), |shard| shard.path.as_path());
        return Err(Error::data(
            path,
            "is empty, like all shards for training; no text to take a vocabulary from",
        ));
    }
    Ok(all.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

/// The first lines of each shard, together at most about [`SAMPLE`] bytes.
fn sample(corpus: &ShardedCorpus) -> Result<Text> {
    let [train, ..] = &corpus.splits;
    let of_each = SAMPLE / train.len().max(1) as u64;
    let mut bytes = Vec::new();
    for shard in train {
        let start = bytes.len();
        let mut reader = ShardReader::open(&shard.path)?;
        loop {
            let left = of_each as usize - (bytes.len() - start);
            let Some(part) = (if left > 0 { reader.next(None)? } else { None }) else { break };
            let text = &part.bytes()[part.mark_length()..];
            if text.len() > left {
                bytes.extend_from_slice(&text[..cut(text, left)]);
                break;
            }
            bytes.extend_from_slice(text);
        }
    }
    Ok(Text::new(bytes, &corpus.name))
}

/// At most so many of the first bytes of `text`, which has more: to the end of a line, or if none ends there, of a character.
fn cut(text: &[u8], most: usize) -> usize {
    let begins_a_character = |at: &usize| text[*at] & 0xc0 != 0x80;
    let line_end = text[..most].iter().rposition(|&byte| byte == b'\n').map(|at| at + 1);
    line_end.or_else(|| (0..=most).rev().find(begins_a_character)).unwrap_or(0)
}

/// What a vocabulary depends on: the training shards as they are, and the settings.
fn key(train: &[Shard], config: &CorpusConfig, sorted: bool) -> String {
    let shards: Vec<_> = train
        .iter()
        .map(|shard| json!([shard.path.to_string_lossy(), shard.bytes, shard.modified]))
        .collect();
    let CorpusConfig { unit, unknown, min_count, vocab_size, .. } = config;
    let version = if *unit == Unit::Bpe { 2 } else { 1 }; // 1 took more of small parts of many shards
    let all = json!([version, unit, unknown, min_count, vocab_size, sorted, shards]);
    sha256(all.to_string().as_bytes())[..16].to_owned()
}

/// The file of a vocabulary: its name has the digest of what is in it.
fn file(folder: &Path, key: &str, json: &str) -> PathBuf {
    folder.join(format!("{key}-{}.json", sha256(json.as_bytes())))
}

/// The vocabulary of this key, if it is here and whole.
fn kept(folder: &Path, key: &str) -> Option<Tokenizer> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut named =
        entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(key)));
    named.find_map(|path| {
        let json = std::fs::read_to_string(&path).ok()?;
        let whole = file(folder, key, &json) == path;
        if whole { Tokenizer::parse(&path, json.as_bytes()).ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn a_sample_ends_with_a_line_or_a_character() {
        assert_eq!([cut(b"ab\ncd\nef", 4), cut(b"ab\ncd\nef", 6), cut(b"abcdef", 3)], [3, 6, 3]);
        assert_eq!([1, 2, 3].map(|most| cut("aéé".as_bytes(), most)), [1, 1, 3]);
    }
}
