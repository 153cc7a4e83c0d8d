//! The training state that `--resume` continues from: the newest two are kept in `OUT/state/`.
//!
//! Each is written aside, synced and renamed; only then is an older one removed. Saving a step anew makes
//! `step-0000000007.1` beside `step-0000000007`, so that there is a whole state at any time.

use crate::error::{Error, Result};
use crate::storage::disk;
use crate::storage::file_set::{LoadedFile, check_file, commit_set, read_whole};
use crate::storage::{MANIFEST, RECIPE, STATES, tensors};
use candle_core::{Device, Tensor};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const KEPT: usize = 2;
const ASIDE: &str = ".tmp-";

/// A training state that was read and verified.
#[derive(Debug)]
pub struct SavedState {
    /// The optimizer steps done.
    pub step: u64,
    /// Its directory.
    pub path: PathBuf,
    files: BTreeMap<String, LoadedFile>,
}

/// A training state that was passed over.
#[derive(Debug)]
pub struct Rejected {
    /// Its directory.
    pub path: PathBuf,
    /// Why; names the file.
    pub error: Error,
}

/// The newest state that is whole and understood, and the newer ones that are not.
#[derive(Debug)]
pub struct Found<T> {
    /// What to continue from.
    pub state: T,
    /// Newest first; the caller reports them.
    pub rejected: Vec<Rejected>,
}

impl SavedState {
    /// The tensors of one of its files, as they were saved.
    pub fn tensors(&self, name: &str, device: &Device) -> Result<BTreeMap<String, Tensor>> {
        let file = self.file(name)?;
        tensors::load_tensors(&file.path, &file.bytes, device)
    }

    /// One of its files, parsed as JSON.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let file = self.file(name)?;
        let mut deserializer = serde_json::Deserializer::from_slice(&file.bytes);
        serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|error| Error::checkpoint(&file.path, format!("is not understood: {error}")))
    }

    /// The bytes of one of its files.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        Ok(&self.file(name)?.bytes)
    }

    fn file(&self, name: &str) -> Result<&LoadedFile> {
        self.files.get(name).ok_or_else(|| {
            Error::checkpoint(self.path.join(name), format!("is missing: {MANIFEST} does not list it"))
        })
    }
}

/// Saves the state after `step` steps and removes what it makes superfluous. The caller holds the lock.
pub fn save(out: &Path, step: u64, files: &[(&str, Vec<u8>)]) -> Result<PathBuf> {
    let directory = out.join(STATES);
    remove_unfinished(out)?;
    disk::make_directory(&directory)?;
    disk::sync_directory(out)?;
    let version =
        list(&directory)?.iter().filter(|saved| saved.step == step).map(|saved| saved.version + 1).max();
    let saved = Saved::new(&directory, step, version.unwrap_or(0));
    commit_set(&saved.aside(), &saved.path, files)?;
    prune(&directory, &saved)?;
    Ok(saved.path)
}

/// The newest state that is whole and that `understand` can make something of; `None` where none was ever saved. Fails
/// with [`Error::Checkpoint`] if there are states and none will do: starting afresh is for the user to decide;
/// with [`Error::Newer`] at once: a state of a later version of this program is not one to go back behind.
pub fn load_newest<T>(out: &Path, understand: impl Fn(SavedState) -> Result<T>) -> Result<Option<Found<T>>> {
    let directory = out.join(STATES);
    let mut rejected = Vec::new();
    for Saved { step, path, .. } in list(&directory)?.into_iter().rev() {
        let read = read_whole(&path).map(|files| SavedState { step, path: path.clone(), files });
        match read.and_then(&understand) {
            Ok(state) => return Ok(Some(Found { state, rejected })),
            Err(newer @ Error::Newer { .. }) => return Err(newer),
            Err(error) => rejected.push(Rejected { path, error }),
        }
    }
    if rejected.is_empty() {
        return Ok(None);
    }
    let reasons: Vec<String> = rejected.iter().map(|state| state.error.to_string()).collect();
    let what = format!(
        "no training state is whole ({}); remove {run} to begin the run again, or begin another run with the weights of the model \
         that was published, if that is whole, by --init-from {run} and another --out",
        reasons.join("; "),
        run = out.display()
    );
    Err(Error::checkpoint(&directory, what))
}

/// The recipe of the newest state in which it is what was saved, whatever has become of the rest.
pub(crate) fn newest_recipe(out: &Path) -> Option<PathBuf> {
    let saved = list(&out.join(STATES)).ok()?;
    let mut paths = saved.into_iter().rev().map(|saved| saved.path);
    paths.find(|path| check_file(path, RECIPE).is_ok()).map(|path| path.join(RECIPE))
}

/// A state's directory, by its name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Saved {
    step: u64,
    version: u64,
    path: PathBuf,
}

impl Saved {
    fn new(directory: &Path, step: u64, version: u64) -> Self {
        let name = match version {
            0 => format!("step-{step:010}"),
            _ => format!("step-{step:010}.{version}"),
        };
        Self { step, version, path: directory.join(name) }
    }

    fn parse(path: PathBuf) -> Option<Self> {
        let digits = path.file_name()?.to_str()?.strip_prefix("step-")?;
        let (step, version) = digits.split_once('.').unwrap_or((digits, "0"));
        Some(Self { step: step.parse().ok()?, version: version.parse().ok()?, path })
    }

    /// Its name while it is being written or removed.
    fn aside(&self) -> PathBuf {
        let name = self.path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        self.path.with_file_name(format!("{ASIDE}{name}"))
    }
}

/// All states, oldest first, whole or not.
fn list(directory: &Path) -> Result<Vec<Saved>> {
    let mut all: Vec<Saved> = entries(directory)?.into_iter().filter_map(Saved::parse).collect();
    all.sort();
    Ok(all)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    };
    match read() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        paths => paths.map_err(Error::io(directory)),
    }
}

/// Removes states that a kill left half written or half removed; if it was at the very first, then none is left and
/// no directory for them.
pub(super) fn remove_unfinished(out: &Path) -> Result<()> {
    let directory = out.join(STATES);
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries = entries(&directory)?.into_iter();
    let (unfinished, others): (Vec<_>, Vec<_>) = entries.partition(|path| name(path).starts_with(ASIDE));
    unfinished.iter().try_for_each(|path| disk::remove_directory(path))?;
    if others.is_empty() { disk::remove_directory(&directory) } else { Ok(()) }
}

/// Keeps `newest` and the one of an earlier step before it. Later steps are of a past that a damaged state ended.
fn prune(directory: &Path, newest: &Saved) -> Result<()> {
    let mut earlier = KEPT - 1;
    for saved in list(directory)?.into_iter().rev().filter(|saved| saved != newest) {
        if saved.step < newest.step && earlier > 0 {
            earlier -= 1;
            continue;
        }
        disk::rename(&saved.path, &saved.aside())?; // half a state must not look like one
        disk::remove_directory(&saved.aside())?;
    }
    disk::sync_directory(directory)
}
