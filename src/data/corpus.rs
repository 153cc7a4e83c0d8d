//! A corpus: three splits of text, from a name, a path, the standard input or the hub.

use super::data_directories::DataDirectories;
use super::fetch::fetch;
use super::registry::{Entry, SourceFile};
use super::shards::ShardedCorpus;
use super::split::{self, Cut};
use super::text::Text;
use super::{archive, directory};
use crate::config::CorpusConfig;
use crate::digest::{hex, sha256};
use crate::error::{Error, Result};
use crate::hub::download::Wanted;
use crate::hub::{Address, SCHEME, dataset_file};
use crate::storage::aside::Aside;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Tiny Shakespeare, so that there is something to train on without a network.
static SHAKESPEARE: &[u8] = include_bytes!("../../data/tiny-shakespeare.txt");

/// Three splits of text.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// Its name, or the path it was read from.
    pub name: String,
    /// What a model learns from; never empty.
    pub train: Text,
    /// What decides which weights are kept.
    pub valid: Text,
    /// What results are reported on; empty if the corpus has no such split.
    pub test: Text,
    /// The SHA-256 of training, validation and test text one after another; of one file: its own.
    pub sha256: String,
}

impl Corpus {
    /// Finds, verifies and splits the corpus that `config.name` says: a known name, `-` for the standard input,
    /// `hf://datasets/…`, a file or a directory. Fetches what is known and not on this machine.
    ///
    /// # Errors
    /// If there is no such corpus, or it is not what it should be, or has no text for a split.
    pub fn open(config: &CorpusConfig, directories: &DataDirectories) -> Result<Self> {
        let name = config.name.as_str();
        let [train, valid, test] = match directories.registry.get(name) {
            Some(entry) => known(entry, config, directories)?,
            None => match one_text(name, directories)? {
                Some(text) => cut(text, config)?,
                None if ShardedCorpus::find(config, directories)?.is_some() => {
                    let what = "is a corpus of shards, which rhn train, eval and data inspect read in parts; this would read it \
                        whole: give one of its files (rhn study --file)";
                    return Err(Error::data(name, what));
                }
                None => directory::splits(Path::new(name), config)?,
            },
        };
        Ok(Self::of_splits(name, [train, valid, test]))
    }

    /// One text, cut as `config` says; errors as [`Corpus::open`].
    pub fn of_text(text: Text, config: &CorpusConfig) -> Result<Self> {
        let name = text.source.display().to_string();
        Ok(Self::of_splits(&name, cut(text, config)?))
    }

    fn of_splits(name: &str, [train, valid, test]: [Text; 3]) -> Self {
        let hash = Sha256::new().chain_update(train.bytes()).chain_update(valid.bytes());
        let sha256 = hex(hash.chain_update(test.bytes()));
        Self { name: name.to_owned(), train, valid, test, sha256 }
    }

    /// The splits with their names.
    pub fn splits(&self) -> [(&'static str, &Text); 3] {
        [("train", &self.train), ("valid", &self.valid), ("test", &self.test)]
    }
}

/// The text that `name` is if it is one text: the standard input, a file on the hub or here. None for a name that the
/// registry knows and for a directory, which have splits of their own.
///
/// # Errors
/// If there is nothing of this name, or it cannot be read.
pub(super) fn one_text(name: &str, directories: &DataDirectories) -> Result<Option<Text>> {
    let path = Path::new(name);
    if directories.registry.get(name).is_some() || path.is_dir() {
        return Ok(None);
    }
    if name == "-" {
        return Text::read_stdin().map(Some);
    }
    if name.starts_with(SCHEME) {
        return Text::read(&dataset_file(&Address::dataset_file(name)?)?).map(Some);
    }
    if !path.exists() {
        return Err(directories.registry.unknown(name));
    }
    Text::read(path).map(Some)
}

/// Cuts one text into splits as `config` says.
///
/// # Errors
/// If it is empty or too short.
pub(super) fn cut(text: Text, config: &CorpusConfig) -> Result<[Text; 3]> {
    if text.is_empty() {
        return Err(Error::data(&text.source, "is empty; wanted text"));
    }
    split::by_percent(&text, config.split, Cut::for_unit(config.unit, Cut::Line))
}

fn known(entry: &Entry, config: &CorpusConfig, directories: &DataDirectories) -> Result<[Text; 3]> {
    if entry.images {
        let what = "holds images, not text: train them with the recipe mnist-highway";
        return Err(Error::data(&entry.name, what));
    }
    if entry.built_in {
        // Cut exactly where others cut it, so that numbers compare.
        let text = Text::new(SHAKESPEARE.to_vec(), &entry.name);
        return split::by_percent(&text, config.split, Cut::for_unit(config.unit, Cut::Char));
    }
    if let Some(words) = &entry.characters_of {
        let words = directories.registry.get(words).ok_or_else(|| directories.registry.unknown(words))?;
        let splits = known(words, config, directories)?;
        return Ok(splits.map(|text| Text::new(characters(text.bytes()), &text.source)));
    }
    let texts =
        entry.files.iter().map(|file| obtain(entry, file, directories)).collect::<Result<Vec<_>>>()?;
    match <[Text; 3]>::try_from(texts) {
        Ok(splits) => Ok(splits),
        Err(one) => match entry.split_bytes {
            Some(sizes) => split::by_bytes(&one[0], sizes, config.unit),
            None => split::by_percent(&one[0], config.split, Cut::for_unit(config.unit, Cut::Char)),
        },
    }
}

/// The characters of a text of words: lines without space around them, `_` for each space inside.
fn characters(words: &[u8]) -> Vec<u8> {
    let mut characters = Vec::with_capacity(words.len());
    for line in words.split_inclusive(|&byte| byte == b'\n') {
        characters.extend(line.trim_ascii().iter().map(|&byte| if byte == b' ' { b'_' } else { byte }));
        characters.push(b'\n');
    }
    characters
}

/// Where a file of a corpus is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// The file itself.
    Plain(PathBuf),
    /// The archive with the file in it.
    Packed(PathBuf),
}

impl Held {
    /// The file that lies there.
    pub fn path(&self) -> &Path {
        match self {
            Self::Plain(path) | Self::Packed(path) => path,
        }
    }
}

/// Looks for a file of a corpus, then for its archive.
pub fn find(entry: &Entry, file: &SourceFile, directories: &DataDirectories) -> Option<Held> {
    let plain = directories.find(&entry.name, &file.names).map(Held::Plain);
    let packed = || {
        directories.find(&entry.name, std::slice::from_ref(&file.archive.as_ref()?.name)).map(Held::Packed)
    };
    plain.or_else(packed)
}

/// Whether all files of a corpus, or their archives, are on this machine; they are not opened.
pub fn is_here(entry: &Entry, directories: &DataDirectories) -> bool {
    match &entry.characters_of {
        Some(words) => directories.registry.get(words).is_some_and(|words| is_here(words, directories)),
        None => entry.files.iter().all(|file| find(entry, file, directories).is_some()),
    }
}

pub(super) fn obtain(entry: &Entry, file: &SourceFile, directories: &DataDirectories) -> Result<Text> {
    match find(entry, file, directories) {
        Some(held) => read(file, &held),
        None => read(file, &fetch_file(entry, file, directories)?),
    }
}

fn read(file: &SourceFile, held: &Held) -> Result<Text> {
    let wanted = Wanted { bytes: file.bytes, sha256: &file.sha256 };
    match (held, &file.archive) {
        (Held::Packed(path), Some(packed)) => {
            let content = archive::extract(path, &packed.member, file.bytes)?;
            let source = path.join(&packed.member);
            wanted.check(&source, content.len() as u64, &sha256(&content))?;
            Ok(Text::new(content, source))
        }
        (Held::Plain(path) | Held::Packed(path), _) => Ok(Text::new(wanted.read(path)?, path)),
    }
}

/// Fetches a file of a corpus, or the archive that it comes in, into the store.
///
/// # Errors
/// If it cannot be had or kept.
pub fn fetch_file(entry: &Entry, file: &SourceFile, directories: &DataDirectories) -> Result<Held> {
    let (name, urls, bytes, sha256) = match &file.archive {
        Some(packed) => (&packed.name, &packed.urls, packed.bytes, &packed.sha256),
        None => (&file.names[0], &file.urls, file.bytes, &file.sha256),
    };
    let path = directories.kept(&entry.name, name);
    let wanted = Wanted { bytes, sha256 };
    fetch(urls, wanted, &path, &directories.timeouts).map_err(|error| advise(error, entry))?;
    Ok(if file.archive.is_some() { Held::Packed(path) } else { Held::Plain(path) })
}

fn advise(error: Error, entry: &Entry) -> Error {
    match error {
        Error::Data { path, what } => {
            let advice = format!("\nif you have a copy: rhn data fetch {} --from FILE|DIR", entry.name);
            Error::Data { path, what: what + &advice }
        }
        other => other,
    }
}

/// Takes a file of a corpus from the user's own copy `from`, a file or a directory, into the store.
///
/// # Errors
/// If it is not there, or is another file.
pub fn take_file(
    entry: &Entry,
    file: &SourceFile,
    from: &Path,
    directories: &DataDirectories,
) -> Result<PathBuf> {
    let held = if from.is_dir() {
        let copy = DataDirectories { given: vec![from.to_path_buf()], usual: vec![], ..directories.clone() };
        find(entry, file, &copy)
    } else {
        let packed = file
            .archive
            .as_ref()
            .is_some_and(|_| from.extension().is_some_and(|end| end == "zip" || end == "gz"));
        from.is_file().then(|| if packed { Held::Packed(from.into()) } else { Held::Plain(from.into()) })
    };
    let held = held.ok_or_else(|| Error::data(from, format!("has no {}", file.names.join(" or "))))?;
    let text = read(file, &held)?;
    let path = directories.kept(&entry.name, &file.names[0]);
    Aside::write(&path, text.bytes())?;
    Ok(path)
}
