//! The directory of a run: the one that is named, locked by one process at a time, and free of another run.

use crate::checkpoint::{self, PENDING, newest_recipe};
use crate::config::recipe::BUILT_IN;
use crate::console::note;
use crate::error::{Error, Result};
use crate::storage::file_set::check_file;
use crate::storage::{self, Lock, MANIFEST, MODEL, RECIPE, STATES};
use std::path::{Path, PathBuf};

/// The run that is named in place of a recipe, unless a built-in recipe is called so too. Fails if there was a run that has
/// saved nothing yet.
pub(super) fn named(name: &str) -> Result<Option<PathBuf>> {
    let is_built_in = BUILT_IN.iter().any(|(known, _)| *known == name);
    let directory = PathBuf::from(name);
    let has = |file: &str| !is_built_in && directory.join(file).is_file();
    match (has(RECIPE), has(storage::METRICS)) {
        (true, _) => Ok(Some(directory)),
        (false, true) if newest_recipe(&directory).is_some() => Ok(Some(directory)), // it has published nothing yet
        (false, false) => Ok(None),
        (false, true) if has(MODEL) || has(MANIFEST) || directory.join(STATES).exists() => {
            let what = "is missing: it says what the run that is there was asked to do";
            Err(Error::checkpoint(directory.join(RECIPE), what))
        }
        (false, true) => {
            Lock::acquire(&directory)?; // one that trains saves something soon
            let what = format!(
                "{name}: a run that has saved nothing yet: begin it again by its recipe, with --out {name}"
            );
            Err(Error::config(what))
        }
    }
}

/// The file that says what the run in `directory` was asked to do: the newest training state's own, since what was published
/// may be of other settings, that were changed since; else the published one.
///
/// # Errors
/// If the published one is damaged, and there is no other.
pub(super) fn recipe(directory: &Path) -> Result<PathBuf> {
    let published = directory.join(RECIPE);
    let checked = if directory.join(MANIFEST).exists() { check_file(directory, RECIPE) } else { Ok(()) };
    match (newest_recipe(directory), checked) {
        (Some(newest), Ok(())) => Ok(newest),
        (Some(newest), Err(error)) => {
            note(&format!("{error}; read from {} instead", newest.display()));
            Ok(newest)
        }
        (None, checked) => checked.map(|()| published),
    }
}

/// `NAME` in `checkpoints`, or `NAME-2`, … if there is a model without a training state, as the one that comes with
/// this program.
pub(super) fn default(checkpoints: &Path, name: &str) -> PathBuf {
    let numbered = (2..).map(|number| checkpoints.join(format!("{name}-{number}")));
    let mut directories = std::iter::once(checkpoints.join(name)).chain(numbered);
    let has = |directory: &Path, file: &str| directory.join(file).exists();
    let is_given = |directory: &PathBuf| has(directory, MODEL) && !has(directory, STATES);
    directories.find(|directory| !is_given(directory)).expect("there are numbers enough")
}

/// Locks the run's directory, which is made if need be, and finishes what a kill interrupted there.
/// Unless it is to be resumed, no run may be there.
pub(super) fn hold(out: &Path, resume: bool) -> Result<Lock> {
    if out.exists() && !out.is_dir() {
        return Err(Error::config(format!("--out {}: is a file, wanted a directory", out.display())));
    }
    let lock = Lock::acquire(out)?;
    checkpoint::recover(out)?;
    if !resume {
        check_fresh(out)?;
    }
    Ok(lock)
}

/// As [`hold`], of a run that is read and not changed, which may lie where this user cannot write.
pub(super) fn hold_to_read(out: &Path) -> Result<Option<Lock>> {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match hold(out, true) {
        Err(Error::Io { source, .. }) if [PermissionDenied, ReadOnlyFilesystem].contains(&source.kind()) => {
            let lock = Lock::share(out)?;
            match out.join(PENDING).exists() {
                false => Ok(lock),
                true => Err(Error::checkpoint(
                    out,
                    format!(
                        "holds a model whose publication was interrupted ({PENDING}), and cannot be written to finish it"
                    ),
                )),
            }
        }
        held => held.map(Some),
    }
}

/// Refuses to train over a run that is there.
fn check_fresh(out: &Path) -> Result<()> {
    let holds = |name: &str| out.join(name).exists();
    let names = [storage::MANIFEST, storage::CONFIG, MODEL, STATES, PENDING];
    match names.into_iter().find(|name| holds(name)) {
        Some(name) => Err(Error::config(format!(
            "{}: a run is there already ({name}); --resume goes on with it, --out begins another",
            out.display()
        ))),
        None => check_foreign(out),
    }
}

/// Refuses a directory without a run that has files of a run's names: what someone keeps there would be replaced. The events of
/// a run that has saved nothing yet may be.
pub(super) fn check_foreign(out: &Path) -> Result<()> {
    // A first line that is no event, of whichever version; one that was cut off may be one.
    let events = std::fs::read(out.join(storage::METRICS)).unwrap_or_default();
    let first = events.split_inclusive(|byte| *byte == b'\n').next().filter(|line| line.ends_with(b"\n"));
    let is_event = |line: &[u8]| {
        serde_json::from_slice::<serde_json::Value>(line).is_ok_and(|value| value["event"].is_string())
    };
    let has_foreign_events = first.is_some_and(|line| !is_event(line));
    let names = [storage::RECIPE, storage::TOKENIZER, storage::RESULT, storage::THRESHOLD];
    let there = names.into_iter().find(|name| out.join(name).exists());
    match there.or(has_foreign_events.then_some(storage::METRICS)) {
        Some(name) => Err(Error::config(format!(
            "{}: has a {name} and no run, which would replace it; --out names another directory",
            out.display()
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::default;
    use crate::storage::{MODEL, STATES};
    use std::fs;

    #[test]
    fn a_model_that_was_given_keeps_its_place_and_a_run_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let chosen = || default(folder.path(), "bard").file_name().unwrap().to_owned();
        assert_eq!(chosen(), "bard");
        fs::create_dir(folder.path().join("bard")).unwrap();
        fs::write(folder.path().join("bard").join(MODEL), "").unwrap();
        assert_eq!(chosen(), "bard-2");
        fs::create_dir_all(folder.path().join("bard-2").join(STATES)).unwrap();
        fs::write(folder.path().join("bard-2").join(MODEL), "").unwrap();
        assert_eq!(chosen(), "bard-2"); // --resume goes on with it
        fs::create_dir(folder.path().join("bard").join(STATES)).unwrap();
        assert_eq!(chosen(), "bard");
    }
}
