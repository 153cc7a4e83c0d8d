//! Where corpora are looked for: the directory given, `$RHN_DATA`, `./data`, the user's cache.

use super::registry::Registry;
use crate::error::{Error, Result};
use crate::hub::Timeouts;
use std::path::{Path, PathBuf};

/// Where corpora are looked for, in this order, and where fetched ones are kept.
#[derive(Clone, Debug)]
pub struct DataDirectories {
    /// Directories that the user named: files are taken from NAME/ and from the directory itself.
    pub given: Vec<PathBuf>,
    /// Directories that are always tried; a plain `train.txt` right in them belongs to nobody.
    pub usual: Vec<PathBuf>,
    /// Where fetched files are kept, in NAME/.
    pub store: PathBuf,
    /// Where the encoded shards of corpora that are read from disk are kept.
    pub encoded: PathBuf,
    /// The corpora known by name.
    pub registry: Registry,
    /// How long a transfer may take.
    pub timeouts: Timeouts,
}

impl DataDirectories {
    /// The directories for `--data-dir` and the environment as they are.
    ///
    /// # Errors
    /// If `data_dir` is given and is no directory.
    pub fn new(data_dir: Option<&Path>) -> Result<Self> {
        if let Some(dir) = data_dir.filter(|dir| dir.exists() && !dir.is_dir()) {
            return Err(Error::data(dir, "is no directory; --data-dir wants the one that holds corpora"));
        }
        let named = set("RHN_DATA").map(PathBuf::from);
        let given: Vec<PathBuf> = data_dir.map(Path::to_path_buf).into_iter().chain(named).collect();
        let cache = cache_dir();
        let store = given.first().unwrap_or(&cache).clone();
        let encoded = cache.join("encoded");
        let usual = vec!["data".into(), cache];
        let registry = Registry::built_in();
        Ok(Self { given, usual, store, encoded, registry, timeouts: Timeouts::default() })
    }

    /// Looks only in `dir` and keeps fetched files there.
    pub fn only(dir: &Path, registry: Registry) -> Self {
        let given = vec![dir.to_path_buf()];
        let store = dir.to_path_buf();
        let encoded = dir.join("encoded");
        Self { given, usual: vec![], store, encoded, registry, timeouts: Timeouts::default() }
    }

    /// The first file under one of these names.
    pub fn find(&self, corpus: &str, names: &[String]) -> Option<PathBuf> {
        let given = self.given.iter().map(|dir| (dir, true));
        let usual = self.usual.iter().map(|dir| (dir, false));
        given
            .chain(usual)
            .flat_map(|(dir, named)| candidates(dir, named, corpus, names))
            .find(|path| path.is_file())
    }

    /// Where a fetched file is kept.
    pub fn kept(&self, corpus: &str, name: &str) -> PathBuf {
        self.store.join(corpus).join(name)
    }
}

fn candidates(dir: &Path, named: bool, corpus: &str, names: &[String]) -> Vec<PathBuf> {
    let inside = names.iter().map(|name| dir.join(corpus).join(name));
    let telling = names.iter().filter(|name| named || name.contains(corpus));
    inside.chain(telling.map(|name| dir.join(name))).collect()
}

fn set(variable: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

/// `$XDG_CACHE_HOME/rhn`, else `~/Library/Caches/rhn` on macOS, else `~/.cache/rhn`.
fn cache_dir() -> PathBuf {
    // Without HOME the system is asked: a directory that all users share is no place for what is trusted later.
    let home = || {
        let named = set("HOME").map(PathBuf::from).or_else(std::env::home_dir);
        named.filter(|home| !home.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from("/"))
    };
    let usual = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
    set("XDG_CACHE_HOME").map_or_else(|| home().join(usual), PathBuf::from).join("rhn")
}
