//! `manifest.json`: the length and SHA-256 of every file of a checkpoint. Written last, read first.

use super::MANIFEST;
use crate::digest::sha256;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The format that this program writes, and the newest that it reads.
const FORMAT: u64 = 1;

/// What a checkpoint's files must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u64,
    files: BTreeMap<String, FileRecord>,
}

/// What one file must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// Refuses the format of a later version of this program, and one that never was.
pub(crate) fn check_format(path: &Path, found: u64, known: u64) -> Result<()> {
    match found {
        0 => Err(Error::checkpoint(path, format!("has format 0, wanted 1 to {known}"))),
        _ if found > known => Err(Error::Newer { path: path.to_path_buf(), found, known }),
        _ => Ok(()),
    }
}

impl Manifest {
    /// Describes `files`.
    pub fn of(files: &[(&str, Vec<u8>)]) -> Self {
        let record = |bytes: &[u8]| FileRecord { bytes: bytes.len() as u64, sha256: sha256(bytes) };
        let files = files.iter().map(|(name, bytes)| (name.to_string(), record(bytes))).collect();
        Self { format: FORMAT, files }
    }

    /// Reads a manifest; `path` is for messages.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let wrong = |error| Error::checkpoint(path, format!("is not a manifest: {error}"));
        let Format { format } = serde_json::from_slice(bytes).map_err(wrong)?;
        check_format(path, format, FORMAT)?;
        let manifest: Self = serde_json::from_slice(bytes).map_err(wrong)?;
        match manifest.files.keys().find(|name| !is_plain(name)) {
            Some(name) => {
                Err(Error::checkpoint(path, format!("lists {name:?}, which is no plain file name")))
            }
            None => Ok(manifest),
        }
    }

    /// The bytes of `manifest.json`.
    pub fn to_json(&self) -> Vec<u8> {
        super::to_json(self)
    }

    /// Names of the files, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// What the file must be, if it is listed.
    pub fn get(&self, name: &str) -> Option<&FileRecord> {
        self.files.get(name)
    }
}

impl FileRecord {
    /// Refuses bytes of another length or hash; `path` is for messages.
    pub fn check(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.check_length(path, bytes.len() as u64)?;
        let found = sha256(bytes);
        if found == self.sha256 {
            return Ok(());
        }
        let what = format!("is damaged: its SHA-256 is {found}, {MANIFEST} wants {}", self.sha256);
        Err(Error::checkpoint(path, what))
    }

    /// Refuses another length.
    pub(crate) fn check_length(&self, path: &Path, found: u64) -> Result<()> {
        if found == self.bytes {
            return Ok(());
        }
        let how = if found < self.bytes { "truncated" } else { "too long" };
        Err(Error::checkpoint(path, format!("is {how}: {found} bytes, {MANIFEST} wants {}", self.bytes)))
    }
}

/// Whether the name stays in its directory and is none of ours for bookkeeping.
fn is_plain(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name != MANIFEST
        && name.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::Manifest;
    use std::path::Path;

    fn parse(json: &str) -> String {
        Manifest::parse(Path::new("m"), json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let manifest = Manifest::of(&[("config.json", b"{}".to_vec())]);
        assert_eq!(Manifest::parse(Path::new("m"), &manifest.to_json()).unwrap(), manifest);
        assert_eq!(manifest.get("config.json").unwrap().bytes, 2);
    }

    #[test]
    fn a_newer_format_is_refused_whatever_else_it_holds() {
        assert!(parse(r#"{"format":2,"trees":[]}"#).contains("has format 2, this program reads 1"));
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for name in ["../config.json", "/etc/passwd", "a/b", "..", ".pending", "", "manifest.json", "a\\\\b"]
        {
            let json = format!(r#"{{"format":1,"files":{{"{name}":{{"bytes":0,"sha256":""}}}}}}"#);
            assert!(parse(&json).contains("no plain file name"), "{name}");
        }
    }
}
