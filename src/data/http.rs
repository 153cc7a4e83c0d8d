//! Reading an http address, where this build has the network.

use crate::error::{Error, Result};
use crate::net::Patience;
use std::io::Read;

#[cfg(feature = "hub")]
const MOST_REDIRECTS: u32 = 5;

/// The length that the server announces, and the body, of which `bytes` are expected.
#[cfg(feature = "hub")]
pub(super) fn open(url: &str, bytes: u64, patience: &Patience) -> Result<(Option<u64>, impl Read)> {
    let agent = crate::net::client::agent(patience, bytes);
    let request = agent.get(url).config().max_redirects(MOST_REDIRECTS).build();
    let body = request.call().map_err(|error| Error::data(url, error.to_string()))?.into_body();
    Ok((body.content_length(), body.into_reader()))
}

/// The length that the server announces, and the body, of which `bytes` are expected.
#[cfg(not(feature = "hub"))]
pub(super) fn open(url: &str, _bytes: u64, _patience: &Patience) -> Result<(Option<u64>, impl Read)> {
    let what = "this build has no network: build with `--features hub`, or take your own copy with `data fetch --from`";
    Err::<(Option<u64>, std::io::Empty), _>(Error::data(url, what))
}
