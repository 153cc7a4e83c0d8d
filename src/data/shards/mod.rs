//! A corpus of shards, which is larger than memory: many files a split, encoded once into a cache on disk and read from
//! there in blocks.

mod blocks;
mod cache;
mod layout;
mod pattern;
mod reader;
mod sentences;
mod streamed;
mod tokens;
mod vocabulary;
mod work;

pub use cache::ShardCounts;
pub(crate) use streamed::MeasuredParts;
pub(crate) use tokens::ShardTokens;

use super::data_directories::DataDirectories;
use super::packed;
use super::sentences::SentenceSource;
use super::tokenizer::Tokenizer;
use crate::config::{CorpusConfig, Recipe, Storage};
use crate::digest::hex;
use crate::error::{Error, Result};
use crate::readable::counted;
use cache::{Cache, CachedShard};
use reader::ShardReader;
use sentences::ShardSentences;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;
use work::on_each;

/// A file of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Where it is, from the root.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was changed: seconds and nanoseconds.
    modified: (u64, u32),
}

impl Shard {
    fn open(path: &Path) -> Result<Self> {
        let file = std::fs::metadata(path).map_err(Error::io(path))?;
        let modified = file.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = modified.map_or((0, 0), |time| (time.as_secs(), time.subsec_nanos()));
        let path = path.canonicalize().map_err(Error::io(path))?;
        Ok(Self { path, bytes: file.len(), modified })
    }

    /// Refuses a file that is no longer the one that was opened: what is measured would be another text than the corpus's.
    fn check_unchanged(&self) -> Result<()> {
        let now = Self::open(&self.path)?;
        if now == *self {
            return Ok(());
        }
        let what = format!(
            "was changed while it was in use ({} now, {} before): what is measured would be another text",
            counted(now.bytes, "byte"),
            counted(self.bytes, "byte")
        );
        Err(Error::data(&self.path, what))
    }

    fn is_packed(&self) -> bool {
        let ending = self.path.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| packed::ENDINGS.contains(&ending))
    }
}

/// A corpus of shards.
#[derive(Clone, Debug)]
pub struct ShardedCorpus {
    /// The directory, as it was named.
    pub name: String,
    /// The shards for training, validation and test; there may be none for the test.
    pub splits: [Vec<Shard>; 3],
    /// Where encoded shards are kept.
    cache: PathBuf,
}

/// The encoded shards of a split.
#[derive(Clone, Debug)]
pub struct EncodedShards {
    shards: Arc<Vec<CachedShard>>,
}

impl EncodedShards {
    /// What they hold.
    pub fn counts(&self) -> ShardCounts {
        let mut counts = ShardCounts::default();
        self.shards.iter().for_each(|shard| counts.add(&shard.counts));
        counts
    }

    /// Their tokens as one row; as many blocks are held in memory as `rows` batch rows need.
    pub(crate) fn tokens(&self, rows: usize) -> ShardTokens {
        ShardTokens::new(self.clone(), rows)
    }

    /// Their sentences in blocks of at most `most`.
    pub(crate) fn sentences(&self, most: usize) -> Result<Box<dyn SentenceSource>> {
        Ok(Box::new(ShardSentences::new(self.clone(), most)?))
    }
}

impl ShardedCorpus {
    /// The corpus of shards that `config.name` says; none if it is another corpus.
    ///
    /// # Errors
    /// If a split that must be there is not, or shards are asked for where there is no directory.
    pub fn find(config: &CorpusConfig, directories: &DataDirectories) -> Result<Option<Self>> {
        let directory = Path::new(&config.name);
        let known = directories.registry.get(&config.name).is_some();
        if known || !directory.is_dir() {
            let asked = config.shards.is_some() || config.storage == Storage::Disk;
            let what = format!(
                "corpus.name is {:?}; corpus.storage = \"disk\" and corpus.shards want a directory",
                config.name
            );
            return if asked { Err(Error::config(what)) } else { Ok(None) };
        }
        let Some(splits) = layout::splits(directory, config)? else { return Ok(None) };
        let open =
            |paths: Vec<PathBuf>| paths.iter().map(|path| Shard::open(path)).collect::<Result<Vec<_>>>();
        let [train, valid, test] = splits.map(open);
        let cache = config.cache.clone().unwrap_or_else(|| directories.encoded.clone());
        Ok(Some(Self { name: config.name.clone(), splits: [train?, valid?, test?], cache }))
    }

    /// The same corpus under another name.
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// All shards, with the names of their splits.
    fn all(&self) -> impl Iterator<Item = (&'static str, &Shard)> {
        let names = ["train", "valid", "test"].into_iter();
        names.zip(&self.splits).flat_map(|(name, shards)| shards.iter().map(move |shard| (name, shard)))
    }

    /// The vocabulary of the training shards, or the one that the recipe names.
    ///
    /// # Errors
    /// If there is none, or it must be sorted by frequency and is not.
    pub fn vocabulary(&self, recipe: &Recipe) -> Result<Tokenizer> {
        vocabulary::build(self, &recipe.corpus, recipe.needs_sorted_words())
    }

    /// The vocabulary of the training shards for settings that need no order of it.
    ///
    /// # Errors
    /// As [`ShardedCorpus::vocabulary`].
    pub fn vocabulary_of(&self, config: &CorpusConfig) -> Result<Tokenizer> {
        vocabulary::build(self, config, false)
    }

    /// The shards of split number `split` as token ids: those that are not in the cache are encoded.
    ///
    /// # Errors
    /// If a shard cannot be read or cut into tokens, or the cache cannot be written.
    pub fn encode(&self, split: usize, tokenizer: &Tokenizer) -> Result<EncodedShards> {
        let shards = Cache::new(&self.cache, tokenizer).shards(&self.splits[split])?;
        Ok(EncodedShards { shards: Arc::new(shards) })
    }

    /// The SHA-256 of the list of all shards: of each its split and the SHA-256 of its text. Those that the cache of
    /// `tokenizer` knows are not read.
    ///
    /// # Errors
    /// If a shard cannot be read.
    pub fn sha256(&self, tokenizer: &Tokenizer) -> Result<String> {
        let cache = Cache::new(&self.cache, tokenizer);
        let known: Vec<Option<String>> = self.all().map(|(_, shard)| cache.digest(shard)).collect();
        let unknown: Vec<&Shard> = self
            .all()
            .zip(&known)
            .filter(|(_, known)| known.is_none())
            .map(|((_, shard), _)| shard)
            .collect();
        let mut read = if unknown.is_empty() { vec![] } else { digests(&unknown)? }.into_iter();
        Ok(self.digest(known.into_iter().filter_map(|known| known.or_else(|| read.next()))))
    }

    /// The texts of split number `split`, cut and measured part by part; nothing of it is kept.
    pub(crate) fn measured<'a>(&'a self, split: usize, tokenizer: &'a Tokenizer) -> MeasuredParts<'a> {
        MeasuredParts::new(&self.splits[split], tokenizer)
    }

    /// What the shards of each split hold, cut by `tokenizer`, and the SHA-256 of [`ShardedCorpus::sha256`]; nothing is kept.
    ///
    /// # Errors
    /// If a shard cannot be read or cut into tokens.
    pub fn inspect(&self, tokenizer: &Tokenizer) -> Result<([ShardCounts; 3], String)> {
        let shards: Vec<&Shard> = self.all().map(|(_, shard)| shard).collect();
        let count = |_, shard: &Shard, done: &work::Done| cache::cut(shard, tokenizer, done, |_, _| Ok(()));
        let counted = on_each("counting shards", &shards, count)?;
        let digests = counted.iter().map(|(digest, _)| digest.clone());
        let sha256 = self.digest(digests);
        let mut counts = counted.into_iter().map(|(_, counts)| counts);
        let of_split = |shards: &Vec<Shard>| {
            let mut sum = ShardCounts::default();
            counts.by_ref().take(shards.len()).for_each(|counts| sum.add(&counts));
            sum
        };
        Ok((self.splits.each_ref().map(of_split), sha256))
    }

    /// The SHA-256 of the corpus whose shards have these.
    fn digest(&self, digests: impl Iterator<Item = String>) -> String {
        let mut hash = Sha256::new();
        self.all().zip(digests).for_each(|((split, _), digest)| hash.update(format!("{split} {digest}\n")));
        hex(hash)
    }
}

fn digests(shards: &[&Shard]) -> Result<Vec<String>> {
    on_each("reading shards", shards, |_, shard, done| {
        let mut reader = ShardReader::open(&shard.path)?;
        while let Some(part) = reader.next(None)? {
            done.add(part.len())?;
        }
        Ok(reader.digest())
    })
}
