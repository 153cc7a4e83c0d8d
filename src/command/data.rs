//! `rhn data`: which corpora there are, fetching them, and what one holds.

use crate::config::{CorpusConfig, Unit};
use crate::data::corpus::{Corpus, Held, fetch_file, find, take_file};
use crate::data::inspect::Report;
use crate::data::places::Places;
use crate::data::registry::Entry;
use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

/// List, fetch and inspect corpora.
#[derive(Args, Debug)]
pub struct DataArgs {
    #[command(subcommand)]
    action: Action,
    /// Look for corpora here first, and keep fetched ones here.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List the corpora known by name, and where they are on this machine.
    List,
    /// Fetch a corpus, or take your own copy of it; either is verified.
    Fetch {
        /// A corpus known by name.
        name: String,
        /// Your own copy: a file, or a directory with the files.
        #[arg(long, value_name = "FILE|DIR")]
        from: Option<PathBuf>,
    },
    /// Count tokens, types, lines and symbols outside the vocabulary.
    Inspect {
        /// A corpus known by name, a file, a directory, or - for the standard input.
        #[arg(value_name = "NAME|PATH")]
        corpus: String,
        /// What a token is [default: as published for a name; characters for a path].
        #[arg(long)]
        unit: Option<UnitArg>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UnitArg {
    Word,
    Char,
    Byte,
    Bpe,
}

impl From<UnitArg> for Unit {
    fn from(unit: UnitArg) -> Self {
        match unit {
            UnitArg::Word => Self::Word,
            UnitArg::Char => Self::Char,
            UnitArg::Byte => Self::Byte,
            UnitArg::Bpe => Self::Bpe,
        }
    }
}

/// Runs `rhn data`.
///
/// # Errors
/// If a corpus is unknown, cannot be had, or is not what it should be.
pub fn run(args: DataArgs) -> Result<()> {
    let places = Places::new(args.data_dir.as_deref())?;
    match args.action {
        Action::List => list(&places),
        Action::Fetch { name, from } => return fetch(&name, from.as_deref(), &places),
        Action::Inspect { corpus, unit, json } => return inspect(corpus, unit, json, &places),
    }
    Ok(())
}

fn list(places: &Places) {
    for entry in places.registry.entries() {
        println!("{:12} {}", entry.name, entry.about);
        println!("{:12} {}; {}", "", entry.licence, whereabouts(entry, places));
    }
}

fn whereabouts(entry: &Entry, places: &Places) -> String {
    if entry.built_in {
        return "built in".into();
    }
    if let Some(words) = &entry.letters_of {
        return format!("made from {words}");
    }
    let held: Vec<_> = entry.files.iter().filter_map(|file| find(entry, file, places)).collect();
    match held.first() {
        Some(Held::Plain(path) | Held::Packed(path)) if held.len() == entry.files.len() => {
            format!("found: {}", path.display())
        }
        Some(_) => format!("{} of {} files found", held.len(), entry.files.len()),
        None => format!("not here; rhn data fetch {}", entry.name),
    }
}

fn fetch(name: &str, from: Option<&Path>, places: &Places) -> Result<()> {
    let known = |name: &str| places.registry.get(name).ok_or_else(|| places.registry.unknown(name));
    let entry = known(name)?;
    let entry = known(entry.folder())?;
    if entry.built_in {
        println!("{name} is built in");
    }
    for file in &entry.files {
        let path = match (from, find(entry, file, places)) {
            (Some(from), _) => take_file(entry, file, from, places)?,
            (None, Some(Held::Plain(path) | Held::Packed(path))) => path,
            (None, None) => match fetch_file(entry, file, places)? {
                Held::Plain(path) | Held::Packed(path) => path,
            },
        };
        println!("{}", path.display());
    }
    if !entry.built_in {
        // Whatever was found or fetched must also open.
        Corpus::open(&settings(entry.name.clone(), entry.unit), places)?;
    }
    Ok(())
}

fn inspect(name: String, unit: Option<UnitArg>, json: bool, places: &Places) -> Result<()> {
    let published = places.registry.get(&name).map_or(Unit::Char, |entry| entry.unit);
    let config = settings(name, unit.map_or(published, Unit::from));
    let report = Report::new(&Corpus::open(&config, places)?, &config)?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

/// No `<unk>` is added, so that the counts are those of the corpus itself.
fn settings(name: String, unit: Unit) -> CorpusConfig {
    let split = [90.0, 5.0, 5.0];
    CorpusConfig { name, unit, unknown: false, min_count: 1, vocab_size: 0, tokenizer: None, split }
}
