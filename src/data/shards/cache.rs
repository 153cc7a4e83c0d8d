//! The encoded shards of one vocabulary in a directory: of each its ids, where its sentences end, and a record.
//!
//! The record is written last, so that a shard with one is whole; what is left of a killed encoding has none.

use super::Shard;
use super::blocks::{BlockFile, BlockIndex, BlockWriter};
use super::reader::ShardReader;
use super::work::{Done, on_each};
use crate::config::Unit;
use crate::console::note;
use crate::data::tokenizer::Tokenizer;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::storage::aside::Aside;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The version of the cache's format.
const FORMAT: u64 = 2;

/// What is known of an encoded shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u64,
    /// The shard's file.
    source: PathBuf,
    /// Its size.
    bytes: u64,
    /// When it was changed: seconds and nanoseconds.
    modified: (u64, u32),
    /// The SHA-256 of the text in it.
    sha256: String,
    /// The SHA-256 of the vocabulary's `tokenizer.json`.
    tokenizer_sha256: String,
    counts: ShardCounts,
    ids: BlockIndex,
    ends: BlockIndex,
}

/// What a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardCounts {
    /// Bytes of text, without a byte order mark unless each byte is a token.
    pub bytes: u64,
    /// Lines.
    pub lines: u64,
    /// Tokens.
    pub tokens: u64,
    /// Tokens of the longest sentence; none where no token is a line's end, or where some are that and more.
    pub longest: Option<u64>,
    /// Symbols that the vocabulary lacks.
    pub unseen: u64,
}

impl ShardCounts {
    /// Counts another shard too.
    pub fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.lines += other.lines;
        self.tokens += other.tokens;
        self.longest = self.longest.max(other.longest);
        self.unseen += other.unseen;
    }
}

/// An encoded shard.
#[derive(Debug)]
pub(super) struct CachedShard {
    pub(super) counts: ShardCounts,
    pub(super) ids: BlockFile,
    /// Where each sentence ends, after its line end.
    pub(super) ends: BlockFile,
}

/// The encoded shards of one vocabulary.
pub(super) struct Cache<'a> {
    directory: PathBuf,
    tokenizer: &'a Tokenizer,
    tokenizer_sha256: String,
}

impl<'a> Cache<'a> {
    /// The cache of `tokenizer` below `root`.
    pub(super) fn new(root: &Path, tokenizer: &'a Tokenizer) -> Self {
        let tokenizer_sha256 = sha256(tokenizer.to_json().as_bytes());
        let directory = root.join(format!("{}-{}", tokenizer.unit().as_str(), &tokenizer_sha256[..16]));
        Self { directory, tokenizer, tokenizer_sha256 }
    }

    /// The shards, of which those that are not here yet are encoded first.
    ///
    /// # Errors
    /// If a shard cannot be read or cut into tokens, or the cache cannot be written.
    pub(super) fn shards(&self, shards: &[Shard]) -> Result<Vec<CachedShard>> {
        let missing: Vec<&Shard> = shards.iter().filter(|shard| !self.holds(shard)).collect();
        if !missing.is_empty() {
            on_each("encoding shards", &missing, |_, shard, done| self.encode(shard, done))?;
        }
        let wrong = |shard: &Shard| Error::data(self.file(shard, "json"), "was removed while it was in use");
        shards.iter().map(|shard| self.read(shard).ok_or_else(|| wrong(shard))).collect()
    }

    /// The SHA-256 of a shard's text, if it is known here.
    pub(super) fn digest(&self, shard: &Shard) -> Option<String> {
        self.record(shard).map(|record| record.sha256)
    }

    /// Whether the shard is here, whole; a file of it that is not is noted.
    fn holds(&self, shard: &Shard) -> bool {
        if self.record(shard).is_none() {
            return false;
        }
        let holds = self.read(shard).is_some();
        if !holds {
            let path = self.file(shard, "ids");
            note(&format!("{}: is damaged or missing; its shard is encoded again", path.display()));
        }
        holds
    }

    fn read(&self, shard: &Shard) -> Option<CachedShard> {
        let Record { counts, ids, ends, .. } = self.record(shard)?;
        let ids = BlockFile::open(self.file(shard, "ids"), ids)?;
        let ends = BlockFile::open(self.file(shard, "ends"), ends)?;
        Some(CachedShard { counts, ids, ends })
    }

    /// The record, if it is of this shard as it is now and of this vocabulary.
    fn record(&self, shard: &Shard) -> Option<Record> {
        let bytes = std::fs::read(self.file(shard, "json")).ok()?;
        let record: Record = serde_json::from_slice(&bytes).ok()?;
        let same = record.format == FORMAT
            && (record.bytes, record.modified) == (shard.bytes, shard.modified)
            && record.source == shard.path
            && record.tokenizer_sha256 == self.tokenizer_sha256;
        same.then_some(record)
    }

    /// A file of a shard: the digest of its path tells shards of one name apart.
    fn file(&self, shard: &Shard, ending: &str) -> PathBuf {
        let name = shard.path.file_name().unwrap_or_default().to_string_lossy();
        let path = sha256(shard.path.as_os_str().as_encoded_bytes());
        self.directory.join(format!("{name}-{}.{ending}", &path[..8]))
    }

    fn encode(&self, shard: &Shard, done: &Done) -> Result<()> {
        let width = if self.tokenizer.vocab_size() <= 0x1_0000 { 2 } else { 4 };
        let mut ids = BlockWriter::create(&self.file(shard, "ids"), width)?;
        let mut ends = BlockWriter::create(&self.file(shard, "ends"), 4)?;
        let write = |id: u32, end: Option<u32>| {
            ids.push(id)?;
            end.map_or(Ok(()), |end| ends.push(end))
        };
        let (sha256, counts) = cut(shard, self.tokenizer, done, write)?;
        let record = Record {
            format: FORMAT,
            source: shard.path.clone(),
            bytes: shard.bytes,
            modified: shard.modified,
            sha256,
            tokenizer_sha256: self.tokenizer_sha256.clone(),
            counts,
            ids: ids.finish()?,
            ends: ends.finish()?,
        };
        Aside::write(&self.file(shard, "json"), &serde_json::to_vec(&record).expect("a record is plain data"))
    }
}

/// Cuts a shard into tokens; `take` gets each, and with the last of a sentence where it ends. Gives the text's SHA-256 and
/// what it holds.
pub(super) fn cut(
    shard: &Shard,
    tokenizer: &Tokenizer,
    done: &Done,
    mut take: impl FnMut(u32, Option<u32>) -> Result<()>,
) -> Result<(String, ShardCounts)> {
    let end = tokenizer.line_end_id();
    let is_exact = tokenizer.unit() != Unit::Bpe; // where a blank and a line's end may be one token, not all ends are seen
    let mut counts = ShardCounts::default();
    let mut begin = 0;
    let mut reader = ShardReader::open(&shard.path)?;
    while let Some(part) = reader.next(Some(tokenizer))? {
        let mut result = Ok(());
        tokenizer.cut(&part, |piece| {
            counts.unseen += u64::from(!piece.known);
            let Some(id) = piece.id.filter(|_| result.is_ok()) else { return };
            counts.tokens += 1;
            let ends = Some(id) == end;
            if ends && is_exact {
                counts.longest = counts.longest.max(Some(counts.tokens - begin));
                begin = counts.tokens;
            }
            result = take(id, ends.then_some(counts.tokens as u32));
        })?;
        result?;
        let mark = if tokenizer.unit() == Unit::Byte { 0 } else { part.mark_length() };
        counts.bytes += (part.len() - mark) as u64;
        counts.lines += part.bytes().iter().filter(|&&byte| byte == b'\n').count() as u64;
        done.add(part.len())?;
    }
    if counts.tokens > u64::from(u32::MAX) {
        return Err(Error::data(
            &shard.path,
            "has over 4 billion tokens, more than a shard may; split the file",
        ));
    }
    Ok((reader.digest(), counts))
}
