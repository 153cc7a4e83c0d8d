//! Which text an evaluation reads: a split of the run's own corpus, another corpus, or a whole file.

use super::corpus::{self, Corpus};
use super::data_directories::DataDirectories;
use super::directory;
use super::images::ImageCorpus;
use super::labelled::LabelledCorpus;
use super::shards::ShardedCorpus;
use super::text::Text;
use super::tokenizer::Tokenizer;
use crate::config::CorpusConfig;
use crate::digest::sha256;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// A part of a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SplitName {
    /// What results are reported on
    Test,
    /// What decided which weights are kept
    Valid,
    /// What the model learned from
    Train,
    /// The whole text
    All,
}

impl SplitName {
    /// As flags and reports name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Valid => "valid",
            Self::Train => "train",
            Self::All => "all",
        }
    }

    /// The part of `splits`, which are for training, validation and test.
    fn of(self, splits: [Text; 3]) -> Text {
        let [train, valid, test] = splits;
        match self {
            Self::Test => test,
            Self::Valid => valid,
            Self::Train => train,
            Self::All => {
                let bytes = [train.bytes(), valid.bytes(), test.bytes()].concat();
                Text::new(bytes, &train.source)
            }
        }
    }
}

/// What a run says of the text that it was trained on.
#[derive(Clone, Copy, Debug)]
pub struct TrainedOn<'a> {
    /// The corpus, as its recipe has it.
    pub config: &'a CorpusConfig,
    /// The SHA-256 of its text; none if the run does not say.
    pub sha256: Option<&'a str>,
    /// The run's directory.
    pub directory: &'a Path,
}

impl TrainedOn<'_> {
    /// Whether `text`, which was asked for as `name`, is the run's, whatever it is called.
    pub(super) fn is_of(&self, name: &str, text: &Text) -> bool {
        self.sha256.map_or(name == self.config.name, |wanted| wanted == sha256(text.bytes()))
    }

    /// Refuses the text `name` if its SHA-256 is another than the run's.
    ///
    /// # Errors
    /// If it is.
    pub fn check(&self, name: &str, sha256: &str) -> Result<()> {
        self.check_sha256(
            name,
            sha256,
            ["is another text", "to evaluate this one, name it with --file or --corpus"],
        )
    }

    /// As [`TrainedOn::check`], of images.
    ///
    /// # Errors
    /// If they are others.
    pub fn check_images(&self, images: &ImageCorpus) -> Result<()> {
        let said = ["has other images", "to evaluate these, name their directory with --corpus"];
        self.check_sha256(&images.name, &images.sha256, said)
    }

    fn check_sha256(&self, name: &str, sha256: &str, [found, advice]: [&str; 2]) -> Result<()> {
        let Some(wanted) = self.sha256.filter(|wanted| *wanted != sha256) else { return Ok(()) };
        let what = format!(
            "{found} than the run's: the SHA-256 is {sha256}, the run was trained on {wanted}; {advice}"
        );
        Err(Error::data(name, what))
    }
}

/// A text to evaluate, with the names that reports give it.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The corpus's name, or the file's.
    pub corpus: String,
    /// The part of it.
    pub split: SplitName,
    /// The text.
    pub text: Text,
}

impl Chosen {
    /// A file, or with `-` the standard input, whole.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn file(path: &Path) -> Result<Self> {
        let text = if path == Path::new("-") { Text::read_stdin()? } else { Text::read(path)? };
        let corpus = text.source.display().to_string();
        Ok(Self { corpus, split: SplitName::All, text })
    }

    /// A split of the corpus that the run was trained on; the test split unless another is named. Its text is found under
    /// its name, or beside or above the run's directory; which text it is, its SHA-256 says.
    ///
    /// # Errors
    /// If the corpus is not here, or what is here is another text, or has no such split.
    pub fn of_run(
        run: TrainedOn<'_>,
        split: Option<SplitName>,
        directories: &DataDirectories,
    ) -> Result<Self> {
        let split = split.unwrap_or(SplitName::Test);
        let corpus = corpus_of(run, directories)?;
        run.check(&corpus.name, &corpus.sha256)?;
        // By the name that the run has for it, wherever it was found, so that results of one text go by one name.
        Self::of_corpus(Corpus { name: run.config.name.clone(), ..corpus }, split)
    }

    /// What `name` means: a corpus known by name or a directory has splits, of which the test split is read unless another
    /// is named; so has what the run was trained on; any other file is read whole unless a split is named, and any other
    /// folder of documents as its documents, one by one.
    ///
    /// # Errors
    /// If there is no such corpus or split.
    pub fn named(
        name: &str,
        run: TrainedOn<'_>,
        split: Option<SplitName>,
        directories: &DataDirectories,
    ) -> Result<Vec<Self>> {
        let config = CorpusConfig { name: name.to_owned(), ..run.config.clone() };
        if let Some(text) = corpus::one_text(name, directories)? {
            not_empty(&text)?;
            let usual = if run.is_of(name, &text) { SplitName::Test } else { SplitName::All };
            let split = split.unwrap_or(usual);
            if split == SplitName::All {
                return Ok(vec![Self { corpus: name.to_owned(), split, text }]);
            }
            return Self::of_splits(name, split, corpus::cut(text, &config)?).map(|one| vec![one]);
        }
        let unnamed = split.is_none();
        let split = split.unwrap_or(SplitName::Test);
        let path = Path::new(name);
        if directories.registry.get(name).is_none() && path.is_dir() {
            if let Some(splits) = directory::splits_there(path)? {
                return Self::of_splits(name, split, splits).map(|one| vec![one]);
            }
            let whole = directory::whole(path, &config)?;
            if split == SplitName::All || (unnamed && run.sha256 != Some(sha256(whole.bytes()).as_str())) {
                return directory::texts(path)?.iter().map(|document| Self::file(document)).collect();
            }
        }
        Self::of_corpus(Corpus::open(&config, directories)?, split).map(|one| vec![one])
    }

    fn of_corpus(corpus: Corpus, split: SplitName) -> Result<Self> {
        Self::of_splits(&corpus.name, split, [corpus.train, corpus.valid, corpus.test])
    }

    fn of_splits(name: &str, split: SplitName, splits: [Text; 3]) -> Result<Self> {
        let there = [SplitName::Train, SplitName::Valid, SplitName::Test];
        let there = there.into_iter().zip(&splits).filter(|(_, text)| !text.is_empty());
        let there: Vec<_> = there.map(|(split, _)| format!("--split {}", split.as_str())).collect();
        let text = split.of(splits);
        if text.is_empty() {
            let what = format!("has no {} split; it has {}", split.as_str(), there.join(" and "));
            return Err(Error::data(name, what));
        }
        Ok(Self { corpus: name.to_owned(), split, text })
    }
}

/// The corpus of a run: of those that lie under its name or beside or above the run's directory, the one with the run's
/// SHA-256, or else the first.
///
/// # Errors
/// If there is none, or one cannot be read.
pub fn corpus_of(run: TrainedOn<'_>, directories: &DataDirectories) -> Result<Corpus> {
    let found = find(run, directories, Corpus::open, |corpus| &corpus.sha256)?;
    found.ok_or_else(|| not_found(run, directories))
}

/// The error of a corpus that lies nowhere.
fn not_found(run: TrainedOn<'_>, directories: &DataDirectories) -> Error {
    let name = &run.config.name;
    if !is_path(name, directories) || run.directory.as_os_str().is_empty() {
        return directories.registry.unknown(name);
    }
    let what = format!(
        "the run in {} was trained on it, and it is neither here nor beside or above the run; --corpus PATH says where it is now",
        run.directory.display()
    );
    Error::data(name, what)
}

/// Whether a name can be that of a file or a directory alone.
fn is_path(name: &str, directories: &DataDirectories) -> bool {
    directories.registry.get(name).is_none() && name != "-" && !name.contains("://")
}

/// As [`corpus_of`], of labelled sentences; it has the name that the recipe gives it.
///
/// # Errors
/// If there is none, or one cannot be read.
pub fn labelled_of(run: TrainedOn<'_>, directories: &DataDirectories) -> Result<LabelledCorpus> {
    match find(run, directories, LabelledCorpus::open, |corpus| &corpus.sha256)? {
        Some(corpus) => Ok(LabelledCorpus { name: run.config.name.clone(), ..corpus }),
        None => LabelledCorpus::open(run.config, directories), // which says what is wrong
    }
}

/// As [`labelled_of`], of images.
///
/// # Errors
/// If there are none, or they cannot be read.
pub fn images_of(run: TrainedOn<'_>, directories: &DataDirectories) -> Result<ImageCorpus> {
    match find(run, directories, ImageCorpus::open, |corpus| &corpus.sha256)? {
        Some(corpus) => Ok(ImageCorpus { name: run.config.name.clone(), ..corpus }),
        None => ImageCorpus::open(run.config, directories), // which says what is wrong
    }
}

/// What `open` makes of the run's corpus: the one with the run's SHA-256, or else the first; `None` if there is none.
///
/// # Errors
/// That of `open` on the first, if none is the run's.
pub(crate) fn find<T>(
    run: TrainedOn<'_>,
    directories: &DataDirectories,
    open: impl Fn(&CorpusConfig, &DataDirectories) -> Result<T>,
    sha256: impl Fn(&T) -> &str,
) -> Result<Option<T>> {
    let mut first = None;
    for name in places(run, directories) {
        let found = open(&CorpusConfig { name, ..run.config.clone() }, directories);
        let is_own = |found: &T| run.sha256.is_none_or(|wanted| wanted == sha256(found));
        if found.as_ref().is_ok_and(is_own) {
            return found.map(Some);
        }
        first.get_or_insert(found);
    }
    first.transpose()
}

/// The corpus of a run, if it is one of shards: of those that lie under its name or beside or above the run's directory, the one
/// with the run's SHA-256, or else the first. Where there is only one its SHA-256 is not asked for, which can take long.
///
/// # Errors
/// If there is none, and under one of the names a split that must be there is not.
pub fn shards_of(
    run: TrainedOn<'_>,
    tokenizer: &Tokenizer,
    directories: &DataDirectories,
) -> Result<Option<ShardedCorpus>> {
    let mut found = Vec::new();
    let mut refused = Ok(None);
    for name in places(run, directories) {
        let config = CorpusConfig { name, ..run.config.clone() };
        match ShardedCorpus::find(&config, directories) {
            Ok(shards) => found.extend(shards.map(|shards| shards.named(&run.config.name))),
            Err(error) => refused = refused.and(Err(error)),
        }
    }
    if let ([_, _, ..], Some(wanted)) = (&found[..], run.sha256) {
        let is_own = |shards: &ShardedCorpus| shards.sha256(tokenizer).is_ok_and(|sha256| sha256 == wanted);
        if let Some(own) = found.iter().position(is_own) {
            return Ok(Some(found.swap_remove(own)));
        }
    }
    if found.is_empty() { refused } else { Ok(Some(found.swap_remove(0))) }
}

/// The names under which the run's corpus may be found: its own, and for a path that is relative to a directory which the
/// run does not know, the directories above the run.
fn places(run: TrainedOn<'_>, directories: &DataDirectories) -> Vec<String> {
    let name = &run.config.name;
    let path = Path::new(name);
    if !is_path(name, directories) {
        return vec![name.clone()];
    }
    let whole = run.directory.canonicalize().unwrap_or_else(|_| run.directory.to_path_buf());
    let above = whole.ancestors().take(4).map(|directory| directory.join(path));
    let mut places: Vec<PathBuf> = std::iter::once(path.to_path_buf()).chain(above).collect();
    places.retain(|place| place.exists());
    places.dedup();
    places.into_iter().filter_map(|place| place.to_str().map(str::to_owned)).collect()
}

fn not_empty(text: &Text) -> Result<()> {
    if text.is_empty() { Err(Error::data(&text.source, "is empty; wanted text")) } else { Ok(()) }
}
