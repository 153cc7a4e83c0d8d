//! `rhn data`: which corpora there are, fetching them, what one holds, and errors and n-best lists made up from one.

mod errors;
mod lists;
mod shards;

use super::args::DataArgs;
use super::output::json_line;
use crate::config::{CorpusConfig, Storage, Unit};
use crate::data::corpus::{Corpus, Held, fetch_file, find, take_file};
use crate::data::images::{ImageCorpus, Images};
use crate::data::inspect::CorpusReport;
use crate::data::registry::{Entry, SourceFile};
use crate::data::{DataDirectories, ShardedCorpus, Text, Tokenizer};
use crate::error::{Error, Result};
use crate::storage;
use clap::Subcommand;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

const AFTER_HELP: &str = "\
Examples:
  rhn data list                                        which there are, and where
  rhn data fetch ptb --from ~/simple-examples/data     your own copy, verified and kept
  rhn data inspect ptb                                 sizes, vocabulary, longest line
  rhn data inspect my-novel.txt --unit word --json     one line of JSON
  rhn data errors my-novel.txt --seed 1 > pairs.tsv    pairs for rhn judge
  rhn data lists my-novel.txt --out lists              n-best lists for rhn rescore";

/// List, fetch and inspect corpora, and make up errors and n-best lists
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the corpora known by name, and where they are on this machine
    List {
        #[command(flatten)]
        data: DataArgs,
    },
    /// Fetch a corpus, or take your own copy of it; either is verified, and kept in the first of these directories
    Fetch {
        /// A corpus known by name
        name: String,
        /// Your own copy: a file, or a directory with the files
        #[arg(long, value_name = "FILE|DIR")]
        from: Option<PathBuf>,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Count tokens, distinct tokens, lines and symbols outside the vocabulary
    Inspect {
        /// A corpus known by name, a file, a directory, or - for the standard input
        #[arg(value_name = "NAME|PATH")]
        corpus: PathBuf,
        /// What a token is [default: as published for a name, characters for a path]
        #[arg(long)]
        unit: Option<Unit>,
        /// Cut by this tokenizer.json, or that of this run or checkpoint, instead of a vocabulary of the corpus itself
        #[arg(long, value_name = "FILE|DIR", conflicts_with = "unit")]
        tokenizer: Option<PathBuf>,
        /// Take the files of a directory as the shards of a corpus that is read from disk, by their names
        #[arg(long)]
        shards: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataArgs,
    },
    Errors(errors::Args),
    Lists(lists::Args),
}

/// Runs `rhn data`. Fails if a corpus is unknown, cannot be had, or is not what it should be, or the standard
/// output cannot be written.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.action {
        Action::List { data } => list(&data.directories()?),
        Action::Fetch { name, from, data } => fetch(name, from.as_deref(), &data.directories()?),
        Action::Inspect { corpus, unit, tokenizer, shards, json, data } => {
            let storage = if *shards { Storage::Disk } else { Storage::Memory };
            inspect(corpus, *unit, (tokenizer.as_deref(), storage), *json, &data.directories()?)
        }
        Action::Errors(args) => errors::run(args),
        Action::Lists(args) => lists::run(args),
    }
}

fn list(directories: &DataDirectories) -> anyhow::Result<()> {
    for entry in directories.registry.entries() {
        writeln!(stdout(), "{:12} {}", entry.name, entry.about)?;
        writeln!(stdout(), "{:12} {}; {}", "", entry.licence, whereabouts(entry, directories))?;
    }
    Ok(())
}

fn whereabouts(entry: &Entry, directories: &DataDirectories) -> String {
    if entry.built_in {
        return "built in".into();
    }
    if let Some(words) = &entry.characters_of {
        return format!("made from {words}");
    }
    let held: Vec<_> = entry.files.iter().filter_map(|file| find(entry, file, directories)).collect();
    match held.first() {
        Some(first) if held.len() == entry.files.len() => format!("found: {}", first.path().display()),
        Some(_) => format!("{} of {} files found", held.len(), entry.files.len()),
        None => format!("not here: rhn data fetch {}", entry.name),
    }
}

fn fetch(name: &str, from: Option<&Path>, directories: &DataDirectories) -> anyhow::Result<()> {
    let known = |name: &str| directories.registry.get(name).ok_or_else(|| directories.registry.unknown(name));
    let entry = known(known(name)?.folder())?;
    if entry.built_in {
        return Ok(writeln!(stdout(), "{name} is built in")?);
    }
    for file in &entry.files {
        writeln!(stdout(), "{}", fetch_one(entry, file, from, directories)?.path().display())?;
    }
    // What was here before was not verified yet.
    if entry.images {
        return Ok(ImageCorpus::open(&image_settings(&entry.name), directories).map(drop)?);
    }
    Corpus::open(&settings(&entry.name, entry.unit), directories)?;
    Ok(())
}

fn fetch_one(
    entry: &Entry,
    file: &SourceFile,
    from: Option<&Path>,
    directories: &DataDirectories,
) -> Result<Held> {
    match (from, find(entry, file, directories)) {
        (Some(from), _) => take_file(entry, file, from, directories).map(Held::Plain),
        (None, Some(held)) => Ok(held),
        (None, None) => fetch_file(entry, file, directories),
    }
}

fn inspect(
    path: &Path,
    unit: Option<Unit>,
    (tokenizer, storage): (Option<&Path>, Storage),
    json: bool,
    directories: &DataDirectories,
) -> anyhow::Result<()> {
    let known = path.to_str().and_then(|name| directories.registry.get(name));
    if known.map_or_else(|| ImageCorpus::is_in(path), |entry| entry.images) {
        if unit.is_some() || tokenizer.is_some() {
            return Err(
                Error::config("--unit and --tokenizer are for text, and this is a corpus of images").into()
            );
        }
        return inspect_images(&path.display().to_string(), json, directories);
    }
    let given = tokenizer.map(|path| match path.is_dir() {
        true => Tokenizer::load(&path.join(storage::TOKENIZER)),
        false => Tokenizer::load(path),
    });
    let given = given.transpose()?;
    let published = path.to_str().and_then(|name| directories.registry.get(name));
    let published = published.map_or(Unit::Char, |entry| entry.unit);
    let unit = given.as_ref().map(Tokenizer::unit).or(unit).unwrap_or(published);
    let config = CorpusConfig { storage, ..settings(&path.display().to_string(), unit) };
    if let Some(corpus) = ShardedCorpus::find(&config, directories)? {
        let tokenizer = given.map_or_else(|| corpus.vocabulary_of(&config), Ok)?;
        return shards::inspect(&corpus, &tokenizer, json);
    }
    let corpus = match path.to_str() {
        Some(_) => Corpus::open(&config, directories)?,
        None => Corpus::of_text(Text::read(path)?, &config)?, // a recipe could not name it
    };
    let tokenizer = given.map_or_else(|| Tokenizer::build(&config, &corpus.train), Ok)?;
    let report = CorpusReport::new(&corpus, &tokenizer)?;
    let written = if json { json_line(&mut stdout(), &report) } else { writeln!(stdout(), "{report}") };
    Ok(written?)
}

/// The sizes of a corpus of images, and how many there are of each label.
fn inspect_images(name: &str, json: bool, directories: &DataDirectories) -> anyhow::Result<()> {
    let corpus = ImageCorpus::open(&image_settings(name), directories)?;
    let counts = |images: &Images| {
        let mut counts = vec![0u64; corpus.classes];
        images.labels().iter().for_each(|&label| counts[usize::from(label)] += 1);
        counts
    };
    let train = counts(&corpus.train);
    let test = counts(&corpus.test);
    if json {
        let report = serde_json::json!({
            "corpus": name, "sha256": corpus.sha256, "shape": corpus.train.shape, "classes": corpus.classes,
            "splits": [{"split": "train", "images": corpus.train.len(), "labels": train},
                       {"split": "test", "images": corpus.test.len(), "labels": test}],
        });
        return Ok(json_line(&mut stdout(), &report)?);
    }
    let mut out = stdout().lock();
    writeln!(out, "{name}: images of {:?} pixels, {} classes", corpus.train.shape, corpus.classes)?;
    writeln!(out, "sha256  {}", corpus.sha256)?;
    for (split, images, counts) in [("train", &corpus.train, train), ("test", &corpus.test, test)] {
        writeln!(out, "{split:6}  {} images; of each label {counts:?}", images.len())?;
    }
    Ok(())
}

/// All images of the training files are for training.
fn image_settings(name: &str) -> CorpusConfig {
    CorpusConfig { split: [100.0, 0.0, 0.0], ..settings(name, Unit::Char) }
}

/// No `<unk>` is added, so that the counts are those of the corpus itself.
fn settings(name: &str, unit: Unit) -> CorpusConfig {
    // A model of words reads those that its vocabulary lacks, as <unk>; one of characters leaves them out.
    CorpusConfig { unknown: unit == Unit::Word, ..CorpusConfig::new(name, unit) }
}
