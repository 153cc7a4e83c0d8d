//! The only code that changes a run on disk: every write, sync, rename and removal goes through here.
//!
//! At each of them a test can let the disk fail or the process die (`fault`).

use super::fault;
use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Creates or replaces a file; its bytes are on the disk when this returns.
pub(crate) fn file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = Growing::create(path)?;
    file.append(bytes)?;
    file.sync()
}

/// Replaces a file so that a kill leaves the old bytes or the new ones, and a failure nothing aside.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let aside = aside(path);
    let replaced = file(&aside, bytes).and_then(|()| rename(&aside, path));
    if replaced.is_err() {
        let _ = remove_file(&aside); // the first error is the one to report
    }
    replaced?;
    sync_name(path)
}

/// Removes what a kill during [`replace`] left aside.
pub(crate) fn remove_aside(path: &Path) -> Result<()> {
    remove_file(&aside(path))
}

/// Whether `name` is that of what [`replace`] leaves of `file` where it is killed.
pub(crate) fn is_aside(name: &str, file: &str) -> bool {
    name.strip_suffix(ASIDE) == Some(file)
}

/// What the name of a file that is to replace another ends with.
const ASIDE: &str = ".tmp";

fn aside(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(ASIDE);
    aside.into()
}

/// The directory that a path's name is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that grows at its end.
#[derive(Debug)]
pub(crate) struct Growing {
    file: File,
    path: PathBuf,
}

impl Growing {
    /// An empty file; one that is there is replaced.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        Self::new(path, |path| File::create(path))
    }

    /// What is there and is no file: a pipe, a device.
    pub(crate) fn into(path: &Path) -> Result<Self> {
        Self::new(path, |path| OpenOptions::new().write(true).open(path))
    }

    /// The file as it is, or an empty one.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::new(path, |path| OpenOptions::new().create(true).append(true).open(path))
    }

    fn new(path: &Path, open: impl FnOnce(&Path) -> io::Result<File>) -> Result<Self> {
        let file = change("create", path, || open(path))?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// Adds bytes, in one piece for a reader beside.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        write_all(&mut self.file, &self.path, bytes)
    }

    /// Leaves the first `length` bytes.
    pub(crate) fn cut(&self, length: u64) -> Result<()> {
        change("cut", &self.path, || self.file.set_len(length))
    }

    /// The bytes are on the disk when this returns.
    pub(crate) fn sync(&self) -> Result<()> {
        change("sync", &self.path, || self.file.sync_all())
    }

    /// Claims the file for this process until it is closed, where there are locks; the dead claim nothing.
    pub(super) fn claim(&self) {
        let _ = self.file.try_lock();
    }
}

/// Writes the only bytes of a file that is open and may be another's until then.
pub(crate) fn sign(file: &mut File, path: &Path, bytes: &[u8]) -> Result<()> {
    change("cut", path, || file.set_len(0))?;
    write_all(file, path, bytes)
}

fn write_all(file: &mut File, path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(fault) = fault::next("write", path) {
        let _ = file.write_all(&bytes[..bytes.len() / 2]); // as a disk does that fills up
        return Err(Error::io(path)(fault.inject()));
    }
    file.write_all(bytes).map_err(Error::io(path))
}

/// Does what changes the disk, or what a test wants to happen there; the error names `path`.
fn change<T>(action: &str, path: &Path, act: impl FnOnce() -> io::Result<T>) -> Result<T> {
    match fault::next(action, path) {
        Some(fault) => Err(Error::io(path)(fault.inject())),
        None => act().map_err(Error::io(path)),
    }
}

/// Creates a directory and those above it.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    change("create", path, || fs::create_dir_all(path))
}

/// Renames, replacing a file of that name. Durable only after `sync_directory` on both parents.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    change("rename", to, || fs::rename(from, to))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    if cfg!(not(unix)) {
        return Ok(()); // elsewhere a directory cannot be opened to be synced
    }
    change("sync", path, || File::open(path)?.sync_all())
}

/// Makes the name of `path` in its directory durable.
pub(crate) fn sync_name(path: &Path) -> Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    change("sync", path, || File::open(parent(path))?.sync_all())
}

/// Removes a file; nothing there is fine.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(());
    }
    change("remove", path, || fs::remove_file(path))
}

/// Removes a directory with all it holds; nothing there is fine.
pub(crate) fn remove_directory(path: &Path) -> Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(path))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::io(path))?;
        if entry.file_type().map_err(Error::io(path))?.is_dir() {
            remove_directory(&entry.path())?;
        } else {
            remove_file(&entry.path())?;
        }
    }
    change("remove", path, || fs::remove_dir(path))
}

/// Makes `link` point to `target`, as the hub's cache does; where links are not to be had, a copy.
#[cfg(feature = "hub")]
pub(crate) fn link(target: &Path, relative: &Path, link: &Path) -> Result<()> {
    let aside = link.with_extension(format!("{}.tmp", std::process::id()));
    let _ = fs::remove_file(&aside); // left by a killed process of the same id
    #[cfg(unix)]
    let make = || {
        let _ = target;
        std::os::unix::fs::symlink(relative, &aside)
    };
    #[cfg(not(unix))]
    let make = || {
        let _ = relative;
        fs::copy(target, &aside).map(|_| ())
    };
    change("create", &aside, make)?;
    rename(&aside, link)
}
