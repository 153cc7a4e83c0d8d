//! A checkpoint in the forms that other programs load: a directory for `transformers`, or ONNX graphs.
//!
//! What a form has no equations for is refused by name before anything is written (`subject`).

mod onnx;
mod subject;
mod transformers;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::storage::{disk, file_set};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use subject::Subject;

/// The files of an export by name.
type Files = Vec<(&'static str, Vec<u8>)>;

/// For whom a checkpoint is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `AutoModelForCausalLM` and `AutoTokenizer` of the library `transformers`.
    Transformers,
    /// Whatever runs ONNX.
    Onnx,
}

/// Writes `checkpoint` into `directory`, which must be new or empty; all of it or nothing. Gives the files' names.
///
/// # Errors
/// If something is in `directory`, the checkpoint is damaged, or it has a part that `target` cannot be given.
pub fn export(checkpoint: &Checkpoint, target: Target, directory: &Path) -> Result<Vec<&'static str>> {
    check_empty(directory)?;
    let subject = Subject::new(checkpoint)?;
    let files = match target {
        Target::Transformers => transformers::files(&subject)?,
        Target::Onnx => onnx::files(&subject, onnx::MOST_INSIDE)?,
    };
    disk::make_directory(disk::parent(directory))?;
    file_set::commit_files(&aside(directory), directory, &files)?;
    Ok(files.into_iter().map(|(name, _)| name).collect())
}

/// Refuses a directory with something in it, and what is no directory.
fn check_empty(directory: &Path) -> Result<()> {
    let here = std::env::current_dir().and_then(std::fs::canonicalize);
    if let (Ok(named), Ok(here)) = (std::fs::canonicalize(directory), here)
        && here == named
    {
        let what = "is where you are, and an export replaces its directory as a whole: name a new one";
        return Err(Error::config(format!("{}: {what}", directory.display())));
    }
    match std::fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let what = "is not empty; export into a new directory, or remove it first";
            Err(Error::config(format!("{}: {what}", directory.display())))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            Err(Error::config(format!("{}: is no directory", directory.display())))
        }
        Err(error) => Err(Error::io(directory)(error)),
    }
}

/// Where the files are written before the directory gets its name.
fn aside(directory: &Path) -> PathBuf {
    let name = directory.components().next_back().map(|last| last.as_os_str().to_string_lossy());
    let name = format!(".{}.{}.part", name.unwrap_or_default(), std::process::id());
    disk::parent(directory).join(name)
}
