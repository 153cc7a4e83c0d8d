//! The network in a build without it: one clear error each.

use super::address::Address;
use super::timeouts::Timeouts;
use crate::error::{Error, Result};
use std::io::Read;
use std::path::PathBuf;

/// Refuses a file of a data set. Always fails.
pub fn dataset_file(address: &Address) -> Result<PathBuf> {
    Err(Error::data(address.to_string(), "this program was built without the feature `hub`"))
}

/// Refuses an http address.
pub(crate) fn open(url: &str, _bytes: u64, _timeouts: &Timeouts) -> Result<(Option<u64>, impl Read)> {
    let what = "this build has no network: build with `--features hub`, or take your own copy with `data fetch --from`";
    Err::<(Option<u64>, std::io::Empty), _>(Error::data(url, what))
}
