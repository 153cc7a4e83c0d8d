//! A download to a file: hashed on the way, written aside and renamed, so that only the right content gets its name.

use crate::digest::{hex, sha256};
use crate::error::{Error, Result};
use crate::storage::aside::Aside;
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Read;
use std::path::Path;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal digits.
    pub sha256: &'a str,
}

impl Wanted<'_> {
    /// Refuses content of another size or hash. Fails if they differ: names what was found and what was
    /// wanted.
    pub(crate) fn check(&self, source: impl AsRef<Path>, bytes: u64, sha256: &str) -> Result<()> {
        if bytes != self.bytes {
            let what = format!("is {bytes} bytes, wanted {}: another or an incomplete file", self.bytes);
            return Err(Error::data(source, what));
        }
        if !sha256.eq_ignore_ascii_case(self.sha256) {
            let what = format!("has SHA-256 {sha256}, wanted {}: another or a damaged file", self.sha256);
            return Err(Error::data(source, what));
        }
        Ok(())
    }

    /// Reads a file that must be this one. Fails if it cannot be read or is another.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let bytes = fs::metadata(path).map_err(Error::io(path))?.len();
        if bytes != self.bytes {
            self.check(path, bytes, "")?; // before reading what may be huge
        }
        let content = fs::read(path).map_err(Error::io(path))?;
        self.check(path, content.len() as u64, &sha256(&content))?;
        Ok(content)
    }
}

/// Copies from `reader` to a file aside while hashing; only the right content gets the name `path`. Where no hash
/// is known, the length must do.
pub(crate) fn store(
    reader: &mut dyn Read,
    source: &str,
    wanted: u64,
    sha256: Option<&str>,
    path: &Path,
) -> Result<()> {
    let mut aside = Aside::create(path)?;
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 16];
    let progress = progress(wanted);
    // A body longer than wanted is left after one byte too many.
    let mut reader = reader.take(wanted.saturating_add(1));
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) => {
                let what = format!("broke off after {bytes} of {wanted} bytes: {error}");
                return Err(Error::data(source, what));
            }
        };
        hash.update(&buffer[..count]);
        aside.append(&buffer[..count])?;
        bytes += count as u64;
        progress.set_position(bytes);
    }
    progress.finish_and_clear();
    if bytes > wanted {
        return Err(Error::data(source, format!("has more than the {wanted} bytes wanted")));
    }
    let found = hex(hash);
    Wanted { bytes: wanted, sha256: sha256.unwrap_or(&found) }.check(source, bytes, &found)?;
    aside.commit()
}

/// A bar on the standard error if that is a terminal, else nothing.
fn progress(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bytes:>10} of {total_bytes} {wide_bar} {bytes_per_sec} {eta}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
