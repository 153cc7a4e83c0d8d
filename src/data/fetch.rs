//! Files from the network: bounded, verified, written aside and renamed.

use super::http;
use super::hub::{HubFile, SCHEME};
use crate::error::{Error, Result};
use crate::net::Patience;
use crate::write::Aside;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{IsTerminal, Read, Write};
use std::path::Path;

/// What a file must be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal digits.
    pub sha256: &'a str,
}

/// The SHA-256 of these bytes in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::new().chain_update(bytes))
}

/// The digest in hexadecimal digits.
pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Wanted<'_> {
    /// Refuses content of another size or hash.
    ///
    /// # Errors
    /// If they differ: names what was found and what was wanted.
    pub fn check(&self, source: impl AsRef<Path>, bytes: u64, sha256: &str) -> Result<()> {
        if bytes != self.bytes {
            let what =
                format!("is {bytes} bytes, wanted {}: another file, or an incomplete copy", self.bytes);
            return Err(Error::data(source, what));
        }
        if !sha256.eq_ignore_ascii_case(self.sha256) {
            let what = format!("has SHA-256 {sha256}, wanted {}: another or a damaged file", self.sha256);
            return Err(Error::data(source, what));
        }
        Ok(())
    }

    /// Reads a file that must be this one.
    ///
    /// # Errors
    /// If it cannot be read or is another.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let bytes = fs::metadata(path).map_err(Error::io(path))?.len();
        if bytes != self.bytes {
            self.check(path, bytes, "")?; // before reading what may be huge
        }
        let content = fs::read(path).map_err(Error::io(path))?;
        self.check(path, content.len() as u64, &sha256(&content))?;
        Ok(content)
    }
}

/// Fetches a file from the first of `urls` that has it, verified, to `path`.
///
/// # Errors
/// If none has it: says what was wrong with each.
pub fn fetch(urls: &[String], wanted: Wanted<'_>, path: &Path, patience: &Patience) -> Result<()> {
    let mut refusals = Vec::new();
    for url in urls {
        match fetch_one(url, wanted, path, patience) {
            Err(Error::Data { path, what }) => refusals.push(format!("\n  {}: {what}", path.display())),
            other => return other, // fetched, or this machine is at fault
        }
    }
    let what = format!("is not on this machine and cannot be fetched:{}", refusals.concat());
    Err(Error::data(path, what))
}

fn fetch_one(url: &str, wanted: Wanted<'_>, path: &Path, patience: &Patience) -> Result<()> {
    let announced = format!("fetching {url} ({})", HumanBytes(wanted.bytes));
    if !std::io::stderr().is_terminal() {
        let _ = std::io::stderr().write_all(format!("{announced}\n").as_bytes()); // no reason to stop
    }
    if url.starts_with(SCHEME) {
        let held = HubFile::parse(url)?.get()?;
        let mut held = File::open(&held).map_err(Error::io(&held))?;
        return store(&mut held, url, wanted.bytes, Some(wanted.sha256), path);
    }
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err(Error::data(url, "wanted an http, https or hf address"));
    }
    let (length, mut body) = http::open(url, wanted.bytes, patience)?;
    if let Some(bytes) = length.filter(|&bytes| bytes != wanted.bytes) {
        wanted.check(url, bytes, "")?;
    }
    store(&mut body, url, wanted.bytes, Some(wanted.sha256), path)
}

/// Copies from `reader` to a file aside while hashing; only the right content gets the name `path`. Where no hash
/// is known, the length must do.
pub(super) fn store(
    reader: &mut dyn Read,
    source: &str,
    wanted: u64,
    sha256: Option<&str>,
    path: &Path,
) -> Result<()> {
    let mut aside = Aside::create(path)?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
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

/// Writes content that is already verified to `path`, aside and renamed.
///
/// # Errors
/// If it cannot be written.
pub fn keep(content: &[u8], path: &Path) -> Result<()> {
    let mut aside = Aside::create(path)?;
    aside.append(content)?;
    aside.commit()
}
