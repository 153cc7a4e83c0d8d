//! Single files of data sets on the hub, in its usual cache. Public data sets only: no key is sent.

use super::address::{Address, Kind, SCHEME};
use super::cache::Repository;
use super::client::Client;
use super::download::store;
use super::settings::Settings;
use crate::error::{Error, Result};
use hf_hub::RepoType;
use std::path::PathBuf;

/// A text is held in memory whole; no larger file is fetched.
const MOST_BYTES: u64 = 64 << 30;

/// The file in the hub's cache on this machine, fetched first if it is not there. Fails if it cannot be had.
pub fn dataset_file(address: &Address) -> Result<PathBuf> {
    dataset_file_from(address, &Settings { token: None, ..Settings::from_env()? })
}

/// As [`dataset_file`], from this hub into this cache. Fails if it cannot be had, or the address is that of a model.
pub fn dataset_file_from(address: &Address, settings: &Settings) -> Result<PathBuf> {
    let refuse = |what: String| Error::data(address.to_string(), what);
    let Kind::DatasetFile(file) = &address.kind else {
        return Err(refuse(format!("is a model; wanted a file of a data set ({SCHEME}datasets/…)")));
    };
    let cache = Repository::new(settings, RepoType::Dataset, &address.repository, &address.revision);
    let held = cache.last_snapshot().map(|snapshot| snapshot.join(file));
    if let Some(path) = held.filter(|path| path.is_file()) {
        return Ok(path);
    }
    if settings.offline {
        return Err(refuse("is not in the hub's cache, and HF_HUB_OFFLINE forbids to fetch it".into()));
    }
    let url = |revision: &str| {
        let file = file.replace(' ', "%20");
        format!("{}/datasets/{}/resolve/{revision}/{file}", settings.endpoint, address.repository)
    };
    let explain = |error: String| refuse(format!("cannot be fetched: {error}"));
    let client = Client::new(settings);
    let remote = client.ask(&url(&address.revision)).map_err(explain)?;
    let remote = remote.ok_or_else(|| refuse("is not on the hub".into()))?;
    if remote.bytes > MOST_BYTES {
        return Err(refuse(format!("has {} bytes, at most {MOST_BYTES} are fetched", remote.bytes)));
    }
    let mut body = client.body(&url(&remote.commit), remote.bytes).map_err(explain)?;
    let content = (remote.etag.len() == 64).then_some(remote.etag.as_str());
    store(&mut body, &address.to_string(), remote.bytes, content, &cache.blob(&remote.etag))?;
    let path = cache.link(&remote.etag, &remote.commit, file)?;
    cache.point_to(&remote.commit)?;
    Ok(path)
}
