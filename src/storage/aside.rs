//! A file under a name of its own until it is whole; removed if it never is.

use super::disk::{Growing, make_directory, parent, remove_file, rename, sync_name};
use crate::error::Result;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A file on its way to `path`.
pub(crate) struct Aside {
    file: Growing,
    temporary: PathBuf,
    path: PathBuf,
}

impl Aside {
    /// Writes all of a file to `path`.
    pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
        let mut aside = Self::create(path)?;
        aside.append(bytes)?;
        aside.commit()
    }

    /// An empty file beside `path`; what killed processes left there is removed.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        make_directory(parent(path))?;
        remove_abandoned(path);
        let temporary = parent(path).join(format!("{}{}.part", stem(path), std::process::id()));
        let file = Growing::create(&temporary)?;
        file.claim();
        Ok(Self { file, temporary, path: path.to_path_buf() })
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.append(bytes)
    }

    /// The file is whole: it gets its name.
    pub(crate) fn commit(self) -> Result<()> {
        self.file.sync()?;
        rename(&self.temporary, &self.path)?;
        sync_name(&self.path)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = remove_file(&self.temporary); // gone already once it was renamed
    }
}

/// What the names aside of `path` begin with.
fn stem(path: &Path) -> String {
    format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes parts that no living process claims. That there are some is no reason to fail.
fn remove_abandoned(path: &Path) {
    let stem = stem(path);
    for entry in std::fs::read_dir(parent(path)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let part = name.starts_with(&stem) && name.ends_with(".part");
        if part && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = remove_file(&entry.path());
        }
    }
}
