//! Reads one file of a checkpoint into memory, once, and never more of it than it may have.

use super::manifest::FileRecord;
use super::{CONFIG, MANIFEST, STATE, TOKENIZER};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

const MIB: u64 = 1 << 20;

/// The most bytes that a file of this name may have.
pub(crate) fn limit(name: &str) -> u64 {
    match name {
        CONFIG | MANIFEST => MIB,
        STATE => 16 * MIB,
        TOKENIZER => 256 * MIB,                         // millions of words
        _ if name.ends_with(".safetensors") => 1 << 40, // memory is the limit
        _ => 64 * MIB,
    }
}

/// Refuses a file that has too many bytes to be read, or is to get them.
pub(super) fn check_limit(path: &Path, bytes: u64) -> Result<()> {
    let most = limit(path.file_name().and_then(|name| name.to_str()).unwrap_or_default());
    match bytes > most {
        true => Err(Error::checkpoint(path, format!("has {bytes} bytes, at most {most} are read"))),
        false => Ok(()),
    }
}

/// Reads a file that is listed in a manifest, and checks its length and its hash.
pub(crate) fn verified(path: &Path, record: &FileRecord) -> Result<Vec<u8>> {
    let bytes = read(path, Some(record))?;
    record.check(path, &bytes)?;
    Ok(bytes)
}

/// Reads a file of which nothing is known but its name.
pub(crate) fn unverified(path: &Path) -> Result<Vec<u8>> {
    read(path, None)
}

/// Whether there is something of this name, be it a link to nothing. A failed look is an error, not a "no".
pub(crate) fn exists(path: &Path) -> Result<bool> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        found => found.map(|_| true).map_err(Error::io(path)),
    }
}

fn read(path: &Path, record: Option<&FileRecord>) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|error| unreadable(path, record, error))?;
    let metadata = file.metadata().map_err(Error::io(path))?;
    if !metadata.is_file() {
        return Err(Error::checkpoint(path, "is not a file"));
    }
    let length = metadata.len();
    if length == 0 && record.is_none_or(|record| record.bytes > 0) {
        return Err(Error::checkpoint(path, "is empty"));
    }
    if let Some(record) = record {
        record.check_length(path, length)?; // before a long read for nothing
    }
    check_limit(path, length)?;
    read_exactly(path, file, length)
}

fn read_exactly(path: &Path, file: File, length: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let capacity = usize::try_from(length).unwrap_or(usize::MAX);
    if bytes.try_reserve_exact(capacity).is_err() {
        return Err(Error::checkpoint(path, format!("has {length} bytes, more than memory holds")));
    }
    file.take(length).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if (bytes.len() as u64) < length {
        return Err(Error::checkpoint(path, "became shorter while it was read"));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, record: Option<&FileRecord>, error: std::io::Error) -> Error {
    match (error.kind(), record) {
        (ErrorKind::NotFound, None) => Error::checkpoint(path, "is missing"),
        (ErrorKind::NotFound, Some(_)) => Error::checkpoint(path, format!("is missing: {MANIFEST} lists it")),
        _ => Error::io(path)(error),
    }
}
