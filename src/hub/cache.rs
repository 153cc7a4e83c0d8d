//! The hub's cache as other tools lay it out: `blobs/` by hash, `snapshots/<commit>/` of links, `refs/` of revisions.
//!
//! hf-hub knows where these are. Its own download takes file names from the server, accepts short bodies and sends
//! the user's key to where the server points, so what fills the cache is ours.

use super::settings::Settings;
use crate::error::Result;
use crate::storage::disk;
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::path::{Path, PathBuf};

pub(crate) struct Repository {
    cache: CacheRepo,
    revision: String,
}

impl Repository {
    /// The repository `owner/name` at a revision; both are plain names.
    pub(crate) fn new(settings: &Settings, kind: RepoType, name: &str, revision: &str) -> Self {
        let repo = Repo::with_revision(name.to_string(), kind, revision.to_string());
        Self { cache: Cache::new(settings.cache.clone()).repo(repo), revision: revision.to_string() }
    }

    /// Where the content that the hub calls `etag` is kept.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.cache.blob_path(etag)
    }

    /// The directory of a commit's files.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.cache.pointer_path(commit)
    }

    /// The directory of the commit that the revision named when it was last asked for, or that it is itself.
    pub(crate) fn last_snapshot(&self) -> Option<PathBuf> {
        let named = std::fs::read_to_string(self.reference()).ok();
        let named = named.map(|commit| commit.trim().to_string()).filter(|commit| is_hash(commit));
        let itself = Some(self.revision.clone()).filter(|revision| is_hash(revision));
        named.or(itself).map(|commit| self.snapshot(&commit)).filter(|directory| directory.is_dir())
    }

    /// Gives the blob `etag` its name among a commit's files; `file` may have folders.
    pub(crate) fn link(&self, etag: &str, commit: &str, file: &str) -> Result<PathBuf> {
        let path = self.snapshot(commit).join(file);
        disk::make_directory(disk::parent(&path))?;
        let up = "../".repeat(2 + file.matches('/').count());
        disk::link(&self.blob(etag), &Path::new(&up).join("blobs").join(etag), &path)?;
        Ok(path)
    }

    /// Notes the commit that the revision names now.
    pub(crate) fn point_to(&self, commit: &str) -> Result<()> {
        if self.revision == commit {
            return Ok(());
        }
        let reference = self.reference();
        disk::make_directory(disk::parent(&reference))?;
        disk::replace(&reference, commit.as_bytes())
    }

    fn reference(&self) -> PathBuf {
        let blobs = self.cache.blob_path("");
        disk::parent(&blobs).join("refs").join(&self.revision)
    }
}

/// Whether the text may become a name in the cache.
pub(crate) fn is_hash(text: &str) -> bool {
    (7..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
