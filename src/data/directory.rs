//! A directory as a corpus: its files named for training, validation and test.

use super::text::Text;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The names of each split's file: `train.txt`, `anything.train.txt`, also with the ending `.tokens`.
const NAMES: [&[&str]; 3] = [&["train"], &["valid", "validation", "dev"], &["test"]];

/// The splits of a directory. A missing test split is empty. Fails if training or validation are missing or
/// empty, or one has two files.
pub(super) fn splits(directory: &Path) -> Result<[Text; 3]> {
    let files = files(directory)?;
    let find =
        |names: &[&str]| only_one(directory, files.iter().filter(|path| is_split(path, names)).collect());
    let [train, valid, test] = NAMES.map(find);
    let missing = |split: &str, names: &str| Error::data(directory, describe(split, names, &files));
    let train = train?.ok_or_else(|| missing("training", "train.txt"))?;
    let valid = valid?.ok_or_else(|| missing("validation", "valid.txt, validation.txt or dev.txt"))?;
    let test = test?.map_or_else(|| Ok(Text::empty(directory.join("test.txt"))), |path| Text::read(path))?;
    Ok([read(train)?, read(valid)?, test])
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).map_err(Error::io(directory))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = paths.map_err(Error::io(directory))?;
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

fn is_split(path: &Path, names: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".txt").or_else(|| name.strip_suffix(".tokens"));
    stem.and_then(|stem| stem.rsplit('.').next()).is_some_and(|last| names.contains(&last))
}

fn only_one<'a>(directory: &Path, found: Vec<&'a PathBuf>) -> Result<Option<&'a PathBuf>> {
    match found[..] {
        [] => Ok(None),
        [path] => Ok(Some(path)),
        [first, second, ..] => {
            let first = first.display();
            let second = second.display();
            Err(Error::data(directory, format!("both {first} and {second} could be the split; keep one")))
        }
    }
}

fn read(path: &PathBuf) -> Result<Text> {
    let text = Text::read(path)?;
    if text.is_empty() { Err(Error::data(path, "is empty; wanted text")) } else { Ok(text) }
}

fn describe(split: &str, names: &str, files: &[PathBuf]) -> String {
    let found: Vec<_> = files.iter().take(5).filter_map(|path| path.file_name()?.to_str()).collect();
    let found = if found.is_empty() { "no file".to_owned() } else { found.join(", ") };
    format!(
        "has no {split} split: found {found}; wanted {names} (a single file can be given by its own path)"
    )
}
