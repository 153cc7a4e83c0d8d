//! The corpora known by name: where their files come from, and what they must be.

use crate::config::Unit;
use crate::error::{Error, Result};
use serde::Deserialize;

/// Corpora by name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    corpus: Vec<Entry>,
}

/// A corpus known by name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is called on the command line.
    pub name: String,
    /// What it is, in a line.
    pub about: String,
    /// Under which terms it may be used.
    pub licence: String,
    /// The unit that its published results are in.
    pub unit: Unit,
    /// Images with labels, not text.
    #[serde(default)]
    pub images: bool,
    /// Compiled into the program.
    #[serde(default)]
    pub built_in: bool,
    /// The corpus of words whose characters this one is.
    #[serde(default, rename = "letters_of")]
    pub characters_of: Option<String>,
    /// Bytes of training, validation and test, for one file that is always cut at the same bytes.
    #[serde(default)]
    pub split_bytes: Option<[usize; 3]>,
    /// The vocabulary of its training split: how many different words (or characters, …) it has, in the unit of its published results.
    #[serde(default)]
    pub types: Option<usize>,
    /// Tokens of training, validation and test, in that unit.
    #[serde(default)]
    pub tokens: Option<[usize; 3]>,
    /// Training, validation and test, or one file that is cut.
    #[serde(default)]
    pub files: Vec<SourceFile>,
}

/// A file of a corpus.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// The names that it goes by; it is stored under the first.
    pub names: Vec<String>,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// Where it can be had; tried in this order.
    #[serde(default)]
    pub urls: Vec<String>,
    /// The archive that it comes in.
    #[serde(default)]
    pub archive: Option<Archive>,
}

/// A zip archive with a corpus file in it, or that file packed by gzip.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// The name that it goes by and is stored under.
    pub name: String,
    /// The file in it; of gzip, what it is called without the ending.
    pub member: String,
    /// The archive's size.
    pub bytes: u64,
    /// The archive's SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// Where it can be had; tried in this order.
    pub urls: Vec<String>,
}

impl Registry {
    /// The corpora that the program knows.
    pub fn built_in() -> Self {
        Self::parse(include_str!("../../data/corpora.toml")).expect("the list in the program is tested")
    }

    /// Reads a list of corpora.
    ///
    /// # Errors
    /// If it is not such a list, or names a file by anything but a plain name.
    pub fn parse(text: &str) -> Result<Self> {
        let registry: Self =
            toml::from_str(text).map_err(|error| Error::config(format!("list of corpora: {error}")))?;
        registry.corpus.iter().try_for_each(Entry::validate)?;
        Ok(registry)
    }

    /// The corpora in the order of the list.
    pub fn entries(&self) -> &[Entry] {
        &self.corpus
    }

    /// The corpus of this name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.corpus.iter().find(|entry| entry.name == name)
    }

    /// What to say about a name that is neither a corpus nor a file.
    pub fn unknown(&self, name: &str) -> Error {
        let names: Vec<&str> = self.corpus.iter().map(|entry| entry.name.as_str()).collect();
        let distance = |other: &&str| strsim::damerau_levenshtein(other, &name.to_lowercase());
        let near = names.iter().copied().min_by_key(distance).filter(|other| distance(other) <= 3);
        let hint = near.map(|other| format!("; did you mean {other}?")).unwrap_or(".".into());
        let list = names.join(", ");
        Error::data(
            name,
            format!("no corpus of this name and no such file or directory{hint} Corpora: {list}"),
        )
    }
}

impl Entry {
    /// The corpus that the files belong to: itself, or the words that its characters are made from.
    pub fn folder(&self) -> &str {
        self.characters_of.as_deref().unwrap_or(&self.name)
    }

    fn validate(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::config(format!("corpus {}: {what}", self.name)));
        let files = self.files.len();
        if !matches!(
            (files, self.built_in, &self.characters_of, self.images),
            (0, true, None, false)
                | (0, false, Some(_), false)
                | (1 | 3, false, None, false)
                | (4, false, None, true)
        ) {
            let what = "wanted one or three, four of images, or none where it is made here";
            return wrong(format!("has {files} files, {what}"));
        }
        let archives = self.files.iter().filter_map(|file| file.archive.as_ref());
        let names =
            self.files.iter().flat_map(|file| &file.names).chain(archives.map(|archive| &archive.name));
        let plain = |name: &String| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
        match names.chain([&self.name]).find(|name| !plain(name)) {
            Some(name) => wrong(format!("{name:?} is no plain file name")),
            None if self.files.iter().any(|file| file.names.is_empty()) => wrong("a file has no name".into()),
            None => Ok(()),
        }
    }
}
