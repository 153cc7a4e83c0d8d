//! A file under a name of its own until it is whole; removed if it never is.

use super::disk::{Growing, make_directory, parent, remove_file, rename, sync_name};
use crate::error::{Error, Result};
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
        Self::create(path)?.finish(bytes)
    }

    /// Writes all of a file to a path that a user named: a link is followed, as by any program, and what is no file is written
    /// into as it is.
    pub(crate) fn write_as_named(path: &Path, bytes: &[u8]) -> Result<()> {
        let path = followed(path);
        if path.is_dir() {
            return Err(Error::config(format!("{}: is a directory, wanted a file's name", path.display())));
        }
        if path.metadata().is_ok_and(|found| !found.is_file()) {
            return Growing::into(&path)?.append(bytes);
        }
        Self::write(&path, bytes)
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

    fn finish(mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes)?;
        self.commit()
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

/// Where a path leads if it is a link.
fn followed(path: &Path) -> PathBuf {
    let target = || path.canonicalize().or_else(|_| Ok(parent(path).join(path.read_link()?)));
    match path.is_symlink() {
        true => target().unwrap_or_else(|_: std::io::Error| path.to_path_buf()),
        false => path.to_path_buf(),
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

#[cfg(all(test, unix))]
mod tests {
    use super::Aside;
    use std::fs;
    use std::io::Read;

    #[test]
    fn a_link_is_followed_and_a_pipe_is_written_into() {
        let place = tempfile::tempdir().unwrap();
        let [real, link, dangling, pipe] =
            ["real", "link", "dangling", "pipe"].map(|name| place.path().join(name));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        std::os::unix::fs::symlink("later", &dangling).unwrap();
        Aside::write_as_named(&link, b"new").unwrap();
        Aside::write_as_named(&dangling, b"made").unwrap();
        assert!(link.is_symlink() && dangling.is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert_eq!(fs::read(place.path().join("later")).unwrap(), b"made");

        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut read = Vec::new();
                fs::File::open(pipe).unwrap().read_to_end(&mut read).unwrap();
                read
            }
        });
        Aside::write_as_named(&pipe, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert!(!pipe.metadata().unwrap().is_file());
        Aside::write_as_named(std::path::Path::new("/dev/null"), b"nothing").unwrap();
        assert!(!std::path::Path::new("/dev/null").metadata().unwrap().is_file());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 5, "nothing is left aside");

        let error = Aside::write_as_named(place.path(), b"no").unwrap_err().to_string();
        assert!(error.ends_with("is a directory, wanted a file's name"), "{error}");

        // A file of the program's own takes the place of a link.
        Aside::write(&link, b"own").unwrap();
        assert!(!link.is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"new");
    }
}
