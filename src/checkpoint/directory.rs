//! How a set of files replaces another so that a kill at any time leaves one of the two, whole.
//!
//! Writing the best model so far into OUT:
//! 1. write every file, then the manifest, into `OUT/.publish.tmp/`, and sync;
//! 2. rename it to `OUT/.pending`, and sync: from here on the new version counts;
//! 3. move the files one by one into OUT, the manifest last; remove `.pending`.
//!
//! A reader takes the manifest in `.pending`, if there is one, as the truth, and looks for each file first there
//! and then in OUT. It repairs nothing; the next writer finishes an interrupted move.

use super::state;
use crate::error::{Error, Result};
use crate::storage::Manifest;
use crate::storage::disk;
use crate::storage::file_set::{LoadedFile, commit_set, read_listed};
use crate::storage::{MANIFEST, METRICS, RESULT, TENSORBOARD, read};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const UNFINISHED: &str = ".publish.tmp";
pub(crate) const PENDING: &str = ".pending";
const ATTEMPTS: usize = 5;

/// Replaces the published checkpoint in `out` by `files` (name and bytes). The caller holds the directory's lock.
pub fn publish(out: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    disk::make_directory(out)?;
    recover(out)?;
    commit_set(&out.join(UNFINISHED), &out.join(PENDING), files)?;
    settle(out)
}

/// Finishes a publication that was interrupted, and removes what a kill left that never counted or no longer does.
pub fn recover(out: &Path) -> Result<()> {
    disk::remove_directory(&out.join(UNFINISHED))?;
    state::remove_unfinished(out)?;
    for name in [METRICS, RESULT, TENSORBOARD] {
        disk::remove_aside(&out.join(name))?;
    }
    if read::exists(&out.join(PENDING))? { settle(out) } else { Ok(()) }
}

/// Moves the files of `.pending` into `out`.
fn settle(out: &Path) -> Result<()> {
    let pending = out.join(PENDING);
    let manifest = pending.join(MANIFEST);
    if read::exists(&manifest)? {
        for name in Manifest::parse(&manifest, &read::unverified(&manifest)?)?.names() {
            if read::exists(&pending.join(name))? {
                disk::rename(&pending.join(name), &out.join(name))?;
            }
        }
        disk::sync_directory(out)?; // the files' new names before the manifest's
        disk::rename(&manifest, &out.join(MANIFEST))?;
        disk::sync_directory(out)?;
    }
    disk::remove_directory(&pending)?;
    disk::sync_directory(out)
}

/// What the manifest of the published checkpoint lists; `None` where there is none.
pub(crate) fn published_manifest(out: &Path) -> Result<Option<Manifest>> {
    find_manifest(out)?.map(|(path, bytes)| Manifest::parse(&path, &bytes)).transpose()
}

/// Reads and verifies every file of the published checkpoint; `None` where there is no manifest.
/// A run may publish a newer version meanwhile: then the newer one is read.
pub(super) fn read_published(out: &Path) -> Result<Option<BTreeMap<String, LoadedFile>>> {
    let mut manifest = find_manifest(out)?;
    for _ in 1..ATTEMPTS {
        let files = read_set(out, &manifest);
        if files.is_ok() {
            return files;
        }
        let newer = find_manifest(out)?;
        if newer == manifest {
            return files;
        }
        manifest = newer;
    }
    read_set(out, &manifest)
}

type FoundManifest = Option<(PathBuf, Vec<u8>)>;

fn find_manifest(out: &Path) -> Result<FoundManifest> {
    for path in [out.join(PENDING).join(MANIFEST), out.join(MANIFEST)] {
        if read::exists(&path)? {
            match read::unverified(&path) {
                Err(_) if !read::exists(&path)? => {} // moved into `out` just now
                bytes => return bytes.map(|bytes| Some((path, bytes))),
            }
        }
    }
    Ok(None)
}

fn read_set(out: &Path, manifest: &FoundManifest) -> Result<Option<BTreeMap<String, LoadedFile>>> {
    let Some((path, bytes)) = manifest else { return Ok(None) };
    read_listed(&Manifest::parse(path, bytes)?, &[&out.join(PENDING), out]).map(Some)
}

/// Refuses a path that is no directory, and says how to get one.
pub(super) fn check_exists(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let what = if directory.exists() {
        "is a file; a checkpoint is a directory with config.json, model.safetensors and tokenizer.json"
    } else {
        "does not exist; `rhn train` makes a checkpoint (in checkpoints/<recipe> unless --out says otherwise)"
    };
    Err(Error::checkpoint(directory, what))
}
