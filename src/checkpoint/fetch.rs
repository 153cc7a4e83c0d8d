//! Fetches a checkpoint's files from the hub into its usual cache, each checked before it gets its name there.
//!
//! A small file's name in the cache is no hash of its content alone: without a manifest its length is all that can
//! be checked.

use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::hub::{Address, Client, Remote, Repository, Settings};
use crate::storage::Manifest;
use crate::storage::aside::Aside;
use crate::storage::{CONFIG, MANIFEST, METRICS, MODEL, RECIPE, RESULT, THRESHOLD, TOKENIZER, read};
use hf_hub::RepoType;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The manifest comes first, so that the others are checked by it as they arrive.
const FILES: [(&str, bool); 8] = [
    (MANIFEST, false),
    (CONFIG, true),
    (TOKENIZER, true),
    (MODEL, true),
    (RECIPE, false),
    (THRESHOLD, false),
    (RESULT, false),
    (METRICS, false),
];

/// The directory in the hub's cache with the files of `address`; only named files are asked for. Fails if they cannot
/// be had, or are not a whole checkpoint.
pub fn fetch(address: &Address, settings: &Settings) -> Result<PathBuf> {
    let cache = Repository::new(settings, RepoType::Model, &address.repository, &address.revision);
    let hub = Hub { address, settings, client: Client::new(settings), cache };
    if settings.offline { hub.cached() } else { hub.fetch() }
}

struct Hub<'a> {
    address: &'a Address,
    settings: &'a Settings,
    client: Client,
    cache: Repository,
}

impl Hub<'_> {
    fn cached(&self) -> Result<PathBuf> {
        let cache = self.settings.cache.display();
        let what = || format!("is not in {cache}, and HF_HUB_OFFLINE forbids to fetch it");
        self.cache.last_snapshot().ok_or_else(|| self.refuse(what()))
    }

    /// All files come from the commit that the revision names now.
    fn fetch(&self) -> Result<PathBuf> {
        let first = self.ask(CONFIG, &self.address.revision)?;
        let commit =
            first.ok_or_else(|| self.refuse(format!("has no {CONFIG}: it is no checkpoint")))?.commit;
        let snapshot = self.cache.snapshot(&commit);
        let mut manifest = None;
        for (name, required) in FILES {
            let is_listed = |manifest: &Manifest| manifest.get(name).is_some();
            if name == THRESHOLD && !manifest.as_ref().is_some_and(is_listed) {
                continue; // few checkpoints have one
            }
            match self.ask(name, &commit)? {
                Some(remote) => {
                    let bytes = self.take(name, &remote, &commit, manifest.as_ref())?;
                    if name == MANIFEST {
                        manifest = Some(Manifest::parse(&snapshot.join(name), &bytes)?);
                    }
                }
                None if required => return Err(self.refuse(format!("has no {name}: it is no checkpoint"))),
                None => {}
            }
        }
        self.cache.point_to(&commit)?;
        Ok(snapshot)
    }

    /// The hub's record of a file; `None` if it has none of this name.
    fn ask(&self, name: &str, revision: &str) -> Result<Option<Remote>> {
        let answer = self.client.ask(&self.url(name, revision));
        match answer.map_err(|error| self.explain(name, &error))? {
            Some(Remote { bytes, .. }) if bytes > read::limit(name) => {
                Err(self.refuse(format!("{name} has {bytes} bytes, too many to read")))
            }
            remote => Ok(remote),
        }
    }

    /// The file's bytes, from the cache or the hub, checked, and in the snapshot.
    fn take(
        &self,
        name: &str,
        remote: &Remote,
        commit: &str,
        manifest: Option<&Manifest>,
    ) -> Result<Vec<u8>> {
        let blob = self.cache.blob(&remote.etag);
        let check = |bytes: &[u8]| self.check(name, remote, manifest, bytes);
        let bytes = match std::fs::read(&blob).ok().filter(|bytes| check(bytes).is_ok()) {
            Some(bytes) => bytes,
            None => {
                let bytes = self.download(name, remote, commit)?;
                check(&bytes)?;
                Aside::write(&blob, &bytes)?;
                bytes
            }
        };
        self.cache.link(&remote.etag, commit, name)?;
        Ok(bytes)
    }

    fn download(&self, name: &str, remote: &Remote, commit: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let body = self.client.body(&self.url(name, commit), remote.bytes);
        let read = body.and_then(|mut body| body.read_to_end(&mut bytes).map_err(|error| error.to_string()));
        read.map_err(|error| self.explain(name, &error))?;
        Ok(bytes)
    }

    /// Compares with the length that the hub reports, with its hash if that is one of the content, and with the
    /// manifest.
    fn check(&self, name: &str, remote: &Remote, manifest: Option<&Manifest>, bytes: &[u8]) -> Result<()> {
        let found = bytes.len() as u64;
        if found != remote.bytes {
            let how = if found < remote.bytes { "short" } else { "too long" };
            return Err(self.refuse(format!("{name} arrived {how}; wanted {} bytes", remote.bytes)));
        }
        if remote.etag.len() == 64 && sha256(bytes) != remote.etag {
            return Err(self.refuse(format!("{name} arrived damaged: its SHA-256 is not {}", remote.etag)));
        }
        match manifest.and_then(|manifest| manifest.get(name)) {
            Some(record) => record.check(Path::new(name), bytes).map_err(|error| self.refuse(error)),
            None => Ok(()),
        }
    }

    fn url(&self, name: &str, revision: &str) -> String {
        let revision = revision.replace('/', "%2F");
        format!("{}/{}/resolve/{revision}/{name}", self.settings.endpoint, self.address.repository)
    }

    fn explain(&self, name: &str, error: &str) -> Error {
        let hint = "a private repository needs HF_TOKEN; HF_HUB_OFFLINE=1 uses what was fetched before";
        self.refuse(format!("{name} could not be fetched from {}: {error} ({hint})", self.settings.endpoint))
    }

    fn refuse(&self, what: impl std::fmt::Display) -> Error {
        Error::checkpoint(self.address.to_string(), what.to_string())
    }
}
