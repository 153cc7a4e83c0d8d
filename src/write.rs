//! The only place that changes a run on disk: every write, sync, rename and removal goes through here.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Creates or replaces a file; its bytes are on the disk when this returns.
pub(crate) fn file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(Error::io(path))
}

/// Replaces a file so that a kill leaves the old bytes or the new ones.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    file(Path::new(&aside), bytes)?;
    rename(Path::new(&aside), path)?;
    sync_directory(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Creates a directory and those above it.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io(path))
}

/// Renames, replacing a file of that name. Durable only after `sync_directory` on both parents.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io(to))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    if cfg!(not(unix)) {
        return Ok(()); // elsewhere a directory cannot be opened to be synced
    }
    File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::io(path))
}

/// Removes a directory with all it holds; nothing there is fine.
pub(crate) fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

/// Makes `link` point to `target`, as the hub's cache does; where links are not to be had, a copy.
#[cfg(feature = "hub")]
pub(crate) fn link(target: &Path, relative: &Path, link: &Path) -> Result<()> {
    let aside = link.with_extension(format!("{}.tmp", std::process::id()));
    let _ = fs::remove_file(&aside); // left by a killed process of the same id
    #[cfg(unix)]
    let made = {
        let _ = target;
        std::os::unix::fs::symlink(relative, &aside)
    };
    #[cfg(not(unix))]
    let made = {
        let _ = relative;
        fs::copy(target, &aside).map(|_| ())
    };
    made.map_err(Error::io(&aside))?;
    rename(&aside, link)
}
