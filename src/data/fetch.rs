//! Corpora from the network, from the first of several addresses that has them.

use crate::error::{Error, Result};
use crate::hub::download::{Wanted, store};
use crate::hub::{self, Address, SCHEME, Timeouts};
use indicatif::HumanBytes;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Fetches a file from the first of `urls` that has it, verified, to `path`. Fails if none has it: says what
/// was wrong with each.
pub(super) fn fetch(urls: &[String], wanted: Wanted<'_>, path: &Path, timeouts: &Timeouts) -> Result<()> {
    let mut refusals = Vec::new();
    for url in urls {
        match fetch_one(url, wanted, path, timeouts) {
            Err(Error::Data { path, what }) => refusals.push(format!("\n  {}: {what}", path.display())),
            other => return other, // fetched, or this machine is at fault
        }
    }
    let what = format!("is not on this machine and cannot be fetched:{}", refusals.concat());
    Err(Error::data(path, what))
}

fn fetch_one(url: &str, wanted: Wanted<'_>, path: &Path, timeouts: &Timeouts) -> Result<()> {
    let announced = format!("fetching {url} ({})", HumanBytes(wanted.bytes));
    if !std::io::stderr().is_terminal() {
        let _ = std::io::stderr().write_all(format!("{announced}\n").as_bytes()); // no reason to stop
    }
    if url.starts_with(SCHEME) {
        let held = hub::dataset_file(&Address::dataset_file(url)?)?;
        let mut held = File::open(&held).map_err(Error::io(&held))?;
        return store(&mut held, url, wanted.bytes, Some(wanted.sha256), path);
    }
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err(Error::data(url, "wanted an http, https or hf address"));
    }
    let (length, mut body) = hub::open(url, wanted.bytes, timeouts)?;
    if let Some(bytes) = length.filter(|&bytes| bytes != wanted.bytes) {
        wanted.check(url, bytes, "")?;
    }
    store(&mut body, url, wanted.bytes, Some(wanted.sha256), path)
}
