//! Reading an http address, where this build has the network.

use crate::error::{Error, Result};
use std::io::Read;

#[cfg(feature = "hub")]
const MOST_REDIRECTS: u32 = 5;

/// Bytes a second below which a transfer is given up.
#[cfg(feature = "hub")]
const SLOWEST: u64 = 50_000;

/// The length that the server announces, and the body, of which `bytes` are expected.
#[cfg(feature = "hub")]
pub(super) fn open(url: &str, bytes: u64) -> Result<(Option<u64>, impl Read)> {
    let response = agent(bytes).get(url).call().map_err(|error| Error::data(url, error.to_string()))?;
    let body = response.into_body();
    Ok((body.content_length(), body.into_reader()))
}

/// The length that the server announces, and the body, of which `bytes` are expected.
#[cfg(not(feature = "hub"))]
pub(super) fn open(url: &str, _bytes: u64) -> Result<(Option<u64>, impl Read)> {
    let what = "this build has no network: build with `--features hub`, or take your own copy with `data fetch --from`";
    Err::<(Option<u64>, std::io::Empty), _>(Error::data(url, what))
}

#[cfg(feature = "hub")]
fn agent(bytes: u64) -> ureq::Agent {
    let seconds = |seconds| Some(std::time::Duration::from_secs(seconds));
    ureq::Agent::config_builder()
        .timeout_resolve(seconds(15))
        .timeout_connect(seconds(15))
        .timeout_recv_response(seconds(60))
        .timeout_recv_body(seconds(60 + bytes / SLOWEST))
        .max_redirects(MOST_REDIRECTS)
        .accept_encoding("identity") // sizes are those of the file itself
        .user_agent(concat!("rhn/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}
