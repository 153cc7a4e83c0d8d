//! A directory as a corpus: its files named for training, validation and test.

use super::text::Text;
use super::{documents, packed};
use crate::config::CorpusConfig;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The names of each split's file: `train.txt`, `anything.train.txt`.
pub(super) const NAMES: [&[&str]; 3] = [&["train"], &["valid", "validation", "val", "dev"], &["test"]];

/// The files of training, validation and test in the corpora of Botha and Blunsom (2014) as Kim et al. (2016) read them.
const BOTHA_AND_BLUNSOM: [&str; 3] = ["train.in", "test.in", "finaltest.in"];

/// The folder within a language's that has those files.
const OF_ONE_MILLION: &str = "1m-mono";

/// The endings of texts; after each there may be one of [`packed::ENDINGS`].
const TEXTS: [&str; 3] = ["txt", "tokens", "raw"];

/// The endings of the documents of a folder that has none of [`TEXTS`]: beside such they are notes.
const MARKDOWN: [&str; 2] = ["md", "markdown"];

/// The splits of a directory, of its own files for each or, if none is named so, of all its texts together. A missing test
/// split is empty. Fails if training or validation are missing or empty, or one has two files.
pub(super) fn splits(directory: &Path, config: &CorpusConfig) -> Result<[Text; 3]> {
    if let Some([train, valid, test]) = botha_and_blunsom(directory) {
        return Ok([read(&train)?, read(&valid)?, read(&test)?]);
    }
    let files = files(directory)?;
    let documents = documents(&files);
    if !documents.is_empty() {
        return documents::splits(directory, &documents, config);
    }
    let [train, valid, test] = NAMES.map(|names| find(directory, &files, names));
    let missing = |split: &str, names: &str| match incomplete(directory) {
        Some(error) => error,
        None => Error::data(directory, describe(split, names, &files)),
    };
    let train = train?.ok_or_else(|| missing("training", "train.txt"))?;
    let valid =
        valid?.ok_or_else(|| missing("validation", "valid.txt, validation.txt, val.txt or dev.txt"))?;
    let test = test?.map_or_else(|| Ok(Text::empty(directory.join("test.txt"))), |path| Text::read(path))?;
    Ok([read(train)?, read(valid)?, test])
}

/// The splits that a directory has, for reading alone: a missing one is empty. None if its texts are documents. Fails if
/// it has no text at all.
pub(super) fn splits_there(directory: &Path) -> Result<Option<[Text; 3]>> {
    if let Some([train, valid, test]) = botha_and_blunsom(directory) {
        return Ok(Some([Text::read(&train)?, Text::read(&valid)?, Text::read(&test)?]));
    }
    let files = files(directory)?;
    if !documents(&files).is_empty() {
        return Ok(None);
    }
    let found = NAMES.map(|names| find(directory, &files, names));
    let texts = found.map(|path| path?.map_or_else(|| Ok(Text::empty(directory)), |path| Text::read(path)));
    let [train, valid, test] = texts;
    let splits = [train?, valid?, test?];
    if splits.iter().all(Text::is_empty) {
        return Err(Error::data(directory, describe("test", "train.txt, valid.txt or test.txt", &files)));
    }
    Ok(Some(splits))
}

/// The files of each split if the directory, or its folder [`OF_ONE_MILLION`], has all of [`BOTHA_AND_BLUNSOM`].
fn botha_and_blunsom(directory: &Path) -> Option<[PathBuf; 3]> {
    let folders = [directory.to_path_buf(), directory.join(OF_ONE_MILLION)];
    let mut files = folders.iter().map(|folder| BOTHA_AND_BLUNSOM.map(|name| folder.join(name)));
    files.find(|files| files.iter().all(|file| file.is_file()))
}

/// What is missing where some of [`BOTHA_AND_BLUNSOM`] are there.
fn incomplete(directory: &Path) -> Option<Error> {
    let folders = [directory.to_path_buf(), directory.join(OF_ONE_MILLION)];
    folders.into_iter().find_map(|folder| {
        let is_there = |name: &&str| folder.join(name).is_file();
        let (there, missing): (Vec<&str>, Vec<&str>) = BOTHA_AND_BLUNSOM.into_iter().partition(is_there);
        let what = format!("has {} and no {}", there.join(" and "), missing.join(" and no "));
        (!there.is_empty()).then(|| Error::data(folder, what))
    })
}

/// The files of a directory's documents, in the order of their names.
pub(super) fn texts(directory: &Path) -> Result<Vec<PathBuf>> {
    Ok(documents(&files(directory)?))
}

/// Whether the texts of a directory are documents.
pub(super) fn has_documents(directory: &Path) -> bool {
    botha_and_blunsom(directory).is_none() && texts(directory).is_ok_and(|texts| !texts.is_empty())
}

/// All texts of a directory that has documents; none if it has not.
///
/// # Errors
/// If one cannot be read.
pub(super) fn whole(directory: &Path, config: &CorpusConfig) -> Result<Text> {
    Ok(documents::join(directory, &documents(&files(directory)?), config)?.0)
}

/// The texts of a directory, if none of them is named for a split.
fn documents(files: &[PathBuf]) -> Vec<PathBuf> {
    let split = |path: &PathBuf| NAMES.iter().any(|names| is_split(path, names));
    if files.iter().any(split) {
        return vec![];
    }
    let of = |endings: &[&str]| -> Vec<PathBuf> {
        files.iter().filter(|path| stem_before(path, endings).is_some()).cloned().collect()
    };
    let texts = of(&TEXTS);
    if texts.is_empty() { of(&MARKDOWN) } else { texts }
}

fn find<'a>(directory: &Path, files: &'a [PathBuf], names: &[&str]) -> Result<Option<&'a PathBuf>> {
    only_one(directory, files.iter().filter(|path| is_split(path, names)).collect())
}

/// The files of a directory in the order of their names.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).map_err(Error::io(directory))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = paths.map_err(Error::io(directory))?;
    // A link to nothing is kept: that it cannot be read must be said.
    paths.retain(|path| path.is_file() || !path.exists());
    paths.sort();
    Ok(paths)
}

fn is_split(path: &Path, names: &[&str]) -> bool {
    stem(path).is_some_and(|stem| stem.rsplit('.').next().is_some_and(|last| names.contains(&last)))
}

/// The name of a text's file without its ending; none if the file is no text, or is hidden.
pub(super) fn stem(path: &Path) -> Option<String> {
    stem_before(path, &TEXTS)
}

fn stem_before(path: &Path, endings: &[&str]) -> Option<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let without = |name: &str, endings: &[&str]| {
        let (stem, ending) = name.rsplit_once('.')?;
        endings.contains(&ending).then(|| stem.to_owned())
    };
    let unpacked = without(&name, &packed::ENDINGS).unwrap_or_else(|| name.clone().into_owned());
    without(&unpacked, endings).filter(|_| !name.starts_with('.'))
}

/// The one file that there is; of several none can be chosen.
pub(super) fn only_one<'a>(directory: &Path, found: Vec<&'a PathBuf>) -> Result<Option<&'a PathBuf>> {
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
        "has no {split} split: found {found}; wanted {names}, or documents with the endings .txt, .tokens or .raw, or .md if there \
         are no others, also with .gz or .zst (a single file of any name can be given by its own path)"
    )
}
