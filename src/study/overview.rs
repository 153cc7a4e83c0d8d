//! What lies in a directory: runs and models, how far they are, how good, how large.

use super::markdown;
use super::measure::{Item, Measure};
use super::run::RunHistory;
use crate::checkpoint::is_exported;
use crate::error::{Error, Result};
use crate::readable::{duration, grouped};
use crate::storage::{CONFIG, METRICS, MODEL, is_held};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// How deep below the directory runs are looked for: sweeps have directories of their own.
const DEEPEST: usize = 4;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// A process holds its directory.
    Running,
    /// It is not finished, and nobody trains it.
    Stopped,
    /// It has its result.
    Finished,
    /// Weights without a run's events.
    Model,
    /// Its events cannot be read.
    Unreadable,
}

impl State {
    /// Of a run in `directory`.
    pub(crate) fn of(run: &RunHistory) -> Self {
        match (is_held(&run.directory), &run.result) {
            (true, _) => Self::Running,
            (false, Some(_)) => Self::Finished,
            (false, None) => Self::Stopped,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Model => "model",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A run or a model.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Found {
    /// Its path below the directory.
    pub name: String,
    pub state: State,
    pub corpus: Option<String>,
    pub parameters: Option<u64>,
    pub epochs: Option<u64>,
    pub epochs_asked: Option<u64>,
    /// The unit of `best_valid` and `test`.
    pub measure: Option<Measure>,
    /// What it predicts one by one.
    pub item: Option<Item>,
    pub best_valid: Option<f64>,
    pub test: Option<f64>,
    /// Of all files in its directory.
    pub bytes: u64,
    /// Seconds since its events or its weights changed.
    pub seconds_ago: Option<f64>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What lies in and below `directory`, in the order of names. Fails if the directory cannot be read.
pub(crate) fn overview(directory: &Path) -> Result<Vec<Found>> {
    fs::read_dir(directory).map_err(Error::io(directory))?;
    Ok(places(directory).iter().map(|place| Found::new(directory, place)).collect())
}

/// The directories of runs and models in and below `directory`, in the order of names; none if it cannot be read.
pub(crate) fn places(directory: &Path) -> Vec<PathBuf> {
    let mut places = Vec::new();
    search(directory, 0, &mut places);
    places.sort();
    places
}

/// Adds the directories of runs and models; what cannot be read is passed over, links are not followed.
fn search(directory: &Path, depth: usize, places: &mut Vec<PathBuf>) {
    let has = |name: &str| directory.join(name).is_file();
    if has(METRICS) || (has(CONFIG) && has(MODEL) && !is_exported(directory)) {
        places.push(directory.to_path_buf());
        return;
    }
    if depth == DEEPEST {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !is_hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            search(&entry.path(), depth + 1, places);
        }
    }
}

impl Found {
    fn new(directory: &Path, place: &Path) -> Self {
        let name = place.strip_prefix(directory).unwrap_or(place).display().to_string();
        let mut found = Self {
            name: if name.is_empty() { place.display().to_string() } else { name },
            state: State::Model,
            corpus: None,
            parameters: None,
            epochs: None,
            epochs_asked: None,
            measure: None,
            item: None,
            best_valid: None,
            test: None,
            bytes: bytes_below(place),
            seconds_ago: [METRICS, MODEL].iter().find_map(|name| seconds_ago(&place.join(name))),
            problem: None,
        };
        if place.join(METRICS).is_file() {
            match RunHistory::read(place) {
                Ok(run) => found.describe(&run),
                Err(error) => {
                    found.state = if is_held(place) { State::Running } else { State::Unreadable };
                    found.problem = Some(error.to_string());
                }
            }
        }
        found
    }

    fn describe(&mut self, run: &RunHistory) {
        let measure = Measure::usual([run]);
        self.state = State::of(run);
        self.corpus = Some(run.start.corpus.clone());
        self.parameters = Some(run.start.parameters);
        self.epochs = Some(run.epochs.last().map_or(0, |epoch| epoch.epoch));
        self.epochs_asked = run.epochs_asked();
        self.measure = Some(measure);
        self.item = Some(run.item());
        self.best_valid = run.best().and_then(|epoch| measure.valid(run, epoch));
        self.test = measure.test(run);
    }

    fn cells(&self) -> Vec<String> {
        let dash = || "–".to_string();
        let loss = |value: Option<f64>| match (self.measure, value) {
            (Some(Measure::BitsPerChar), Some(value)) => format!("{value:.3} bits/char"),
            (Some(measure), Some(value)) => format!("{} {}", measure.show(value), measure.name(self.item)),
            _ => dash(),
        };
        let epochs = match (self.epochs, self.epochs_asked) {
            (Some(done), Some(asked)) => format!("{done} of {asked}"),
            (done, _) => done.map_or_else(dash, |done| done.to_string()),
        };
        vec![
            self.name.clone(),
            self.state.name().into(),
            self.corpus.clone().unwrap_or_else(dash),
            self.parameters.map_or_else(dash, grouped),
            epochs,
            loss(self.best_valid),
            loss(self.test),
            match self.bytes {
                0..1_000_000 => format!("{} kB", self.bytes.div_ceil(1000)),
                bytes => format!("{} MB", grouped(bytes.div_ceil(1_000_000))),
            },
            self.seconds_ago.map_or_else(dash, |seconds| format!("{} ago", duration(seconds))),
        ]
    }
}

/// A table with a row for each, and what is wrong with those that cannot be read.
pub(crate) fn table(found: &[Found]) -> String {
    let head = ["run", "state", "corpus", "parameters", "epochs", "best valid", "test", "disk", "changed"];
    let rows: Vec<Vec<String>> = found.iter().map(Found::cells).collect();
    let problems = found.iter().filter_map(|found| Some((&found.name, found.problem.as_ref()?)));
    let problems: String = problems.map(|(name, problem)| format!("\n{name}: {problem}\n")).collect();
    markdown::table(&head.map(String::from), &rows) + &problems
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes_below(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |metadata| metadata.len()),
        _ => 0,
    };
    entries.map(size).sum()
}

fn seconds_ago(file: &Path) -> Option<f64> {
    let changed = fs::metadata(file).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(now.saturating_sub(changed).as_secs_f64())
}
