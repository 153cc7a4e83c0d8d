//! Files and the manifest that lists them: written into a new directory as one, read and verified as one.

use super::disk;
use super::manifest::Manifest;
use super::{MANIFEST, read};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One file of a checkpoint, as it was read.
#[derive(Clone, Debug)]
pub(crate) struct LoadedFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// Writes `files` and their manifest into the new directory `aside` and renames it to `directory`; all is on the
/// disk when this returns. A failure leaves nothing aside, so that a full disk is not kept full.
pub(crate) fn commit_set(aside: &Path, directory: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    for (name, bytes) in files {
        read::check_limit(&directory.join(name), bytes.len() as u64)?; // what cannot be read again is no checkpoint
    }
    let manifest = (MANIFEST, Manifest::of(files).to_json());
    commit(aside, directory, files.iter().chain([&manifest]))
}

/// As [`commit_set`], without a manifest: for directories that other programs read.
pub(crate) fn commit_files(aside: &Path, directory: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    commit(aside, directory, files.iter())
}

fn commit<'a>(
    aside: &Path,
    directory: &Path,
    files: impl Iterator<Item = &'a (&'a str, Vec<u8>)>,
) -> Result<()> {
    let committed = write(aside, files).and_then(|()| disk::rename(aside, directory));
    if committed.is_err() {
        let _ = disk::remove_directory(aside); // the first error is the one to report
    }
    committed?;
    disk::sync_name(directory)
}

fn write<'a>(directory: &Path, files: impl Iterator<Item = &'a (&'a str, Vec<u8>)>) -> Result<()> {
    disk::make_directory(directory)?;
    for (name, bytes) in files {
        disk::file(&directory.join(name), bytes)?;
    }
    disk::sync_directory(directory)
}

/// Reads and verifies the files of a set that lies in one directory.
pub(crate) fn read_whole(directory: &Path) -> Result<BTreeMap<String, LoadedFile>> {
    let path = directory.join(MANIFEST);
    let manifest = Manifest::parse(&path, &read::unverified(&path)?)?;
    read_listed(&manifest, &[directory])
}

/// Refuses a file of a set in one directory that is not what the manifest lists.
pub(crate) fn check_file(directory: &Path, name: &str) -> Result<()> {
    let path = directory.join(MANIFEST);
    let manifest = Manifest::parse(&path, &read::unverified(&path)?)?;
    let file = directory.join(name);
    match manifest.get(name) {
        Some(record) => read::verified(&file, record).map(|_| ()),
        None => Err(Error::checkpoint(file, format!("is not listed by {MANIFEST}"))),
    }
}

/// Each file from the first of `directories` that has it.
pub(crate) fn read_listed(
    manifest: &Manifest,
    directories: &[&Path],
) -> Result<BTreeMap<String, LoadedFile>> {
    let read_one = |name: &str| {
        let record = manifest.get(name).expect("the name is the manifest's own");
        let mut paths = directories.iter().map(|directory| directory.join(name)).peekable();
        loop {
            let path = paths.next().expect("at least one directory");
            match read::verified(&path, record) {
                Err(_) if paths.peek().is_some() && !read::exists(&path)? => {} // not here, or moved on just now
                bytes => return Ok((name.to_string(), LoadedFile { bytes: bytes?, path })),
            }
        }
    };
    manifest.names().map(read_one).collect()
}
