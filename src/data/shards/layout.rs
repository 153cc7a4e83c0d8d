//! Which files of a directory are shards, and of which split.
//!
//! The first rule that applies decides: the recipe's patterns; the names of the one-billion-word benchmark; folders
//! `train/`, `valid/` and `test/`; with `corpus.storage = "disk"`, names such as `en.train-0001.txt.gz`.

use super::pattern;
use crate::config::{CorpusConfig, ShardPatterns, Storage};
use crate::data::directory::{NAMES, stem};
use crate::data::packed;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Training, validation and test.
type Splits = [Vec<PathBuf>; 3];

/// The folders of the one-billion-word benchmark (Chelba et al., 2013).
const BENCHMARK: [&str; 2] =
    ["training-monolingual.tokenized.shuffled", "heldout-monolingual.tokenized.shuffled"];

/// Its held-out shards for validation and for the test, by convention.
const HELD_OUT: [&str; 2] = ["news.en.heldout-00001-of-00050", "news.en.heldout-00000-of-00050"];

/// The shards of `directory`; none if it is no directory of shards.
///
/// # Errors
/// If a split that must be there has none.
pub(super) fn splits(directory: &Path, config: &CorpusConfig) -> Result<Option<Splits>> {
    if let Some(patterns) = &config.shards {
        return by_patterns(directory, patterns).map(Some);
    }
    if BENCHMARK.iter().all(|folder| directory.join(folder).is_dir()) {
        return benchmark(directory).map(Some);
    }
    if let [Some(train), Some(valid), test] = NAMES.map(|names| folder(directory, names)) {
        return by_folders([Some(train), Some(valid), test]).map(Some);
    }
    match config.storage {
        Storage::Memory => Ok(None),
        Storage::Disk => by_names(directory).map(Some),
    }
}

fn by_patterns(directory: &Path, patterns: &ShardPatterns) -> Result<Splits> {
    let ShardPatterns { train, valid, test } = patterns;
    let mut splits = Splits::default();
    for ((key, patterns), shards) in
        [("train", train), ("valid", valid), ("test", test)].into_iter().zip(&mut splits)
    {
        for pattern in patterns {
            let found = pattern::matching(directory, pattern)?;
            if found.is_empty() {
                let what = format!("has no file that corpus.shards.{key} = {pattern:?} matches");
                return Err(Error::data(directory, what));
            }
            shards.extend(found);
        }
        shards.sort();
        shards.dedup();
        if shards.is_empty() && key != "test" {
            return Err(Error::config(format!(
                "corpus.shards.{key} is empty; wanted the patterns of its files, as [\"{key}-*.txt.gz\"]"
            )));
        }
    }
    let [train, valid, test] = &splits;
    let mut trained = train.iter().map(|path| whole(path)).collect::<Result<Vec<_>>>()?;
    trained.sort();
    for (key, others) in [("valid", valid), ("test", test)] {
        for shared in others {
            if trained.binary_search(&whole(shared)?).is_err() {
                continue;
            }
            let what = format!(
                "is in corpus.shards.train and in corpus.shards.{key}: what is measured was trained on"
            );
            return Err(Error::data(shared, what));
        }
    }
    Ok(splits)
}

/// The path of a file without links and `..`, by which one file is known however it is named.
fn whole(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(Error::io(path))
}

fn benchmark(directory: &Path) -> Result<Splits> {
    let [training, held_out] = BENCHMARK.map(|folder| directory.join(folder));
    let train = files(&training)?.into_iter().filter(|path| unpacked(path).starts_with("news.en-")).collect();
    let [valid, test] = HELD_OUT.map(|name| -> Result<Vec<PathBuf>> {
        let found: Vec<PathBuf> =
            files(&held_out)?.into_iter().filter(|path| unpacked(path) == name).collect();
        match found.len() {
            0 => Err(Error::data(
                &held_out,
                format!("has no {name}; the test is shard 00000, validation 00001"),
            )),
            1 => Ok(found),
            _ => Err(Error::data(&held_out, format!("has {name} several times; keep one"))),
        }
    });
    wanted(&training, "news.en-00001-of-00100 and its like", [train, valid?, test?])
}

fn by_folders(folders: [Option<PathBuf>; 3]) -> Result<Splits> {
    let mut splits = Splits::default();
    for (folder, shards) in folders.iter().zip(&mut splits) {
        let Some(folder) = folder else { continue };
        *shards = files(folder)?.into_iter().filter(|path| is_text(path)).collect();
        if shards.is_empty() {
            let what = "has no text; wanted names that end in .txt, .tokens, .raw or -00001-of-00100, also with .gz or .zst";
            return Err(Error::data(folder, what));
        }
    }
    Ok(splits)
}

fn by_names(directory: &Path) -> Result<Splits> {
    let texts: Vec<PathBuf> = files(directory)?.into_iter().filter(|path| is_text(path)).collect();
    let of = |names: &[&str]| texts.iter().filter(|path| has_part(path, names)).cloned().collect::<Vec<_>>();
    let splits = NAMES.map(of);
    let twice = texts.iter().find(|path| NAMES.iter().filter(|names| has_part(path, names)).count() > 1);
    if let Some(path) = twice {
        return Err(Error::data(path, "is named for several splits; say by corpus.shards which it is of"));
    }
    let [_, valid, _] = &splits;
    if valid.is_empty() {
        let what = "has no text for validation: wanted names such as valid-0001.txt.gz, folders train/ and valid/, or \
            corpus.shards = { train = [\"…\"], valid = [\"…\"] }";
        return Err(Error::data(directory, what));
    }
    wanted(directory, "names such as train-0001.txt.gz", splits)
}

/// The splits, if there is something to train on.
fn wanted(directory: &Path, names: &str, splits: Splits) -> Result<Splits> {
    if splits[0].is_empty() {
        return Err(Error::data(directory, format!("has no text for training; wanted {names}")));
    }
    Ok(splits)
}

/// The first of the folders of these names.
fn folder(directory: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| directory.join(name)).find(|folder| folder.is_dir())
}

/// The files of a folder that are not hidden, in the order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = pattern::entries(folder)?;
    files.retain(|path| path.is_file() || !path.exists()); // a link to nothing is kept, so that it is reported
    Ok(files)
}

/// Whether the name is one of a text, packed or not.
fn is_text(path: &Path) -> bool {
    stem(path).is_some() || is_numbered(&unpacked(path))
}

/// A name such as `news.en-00001-of-00100`.
fn is_numbered(name: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let Some((rest, all)) = name.rsplit_once("-of-") else { return false };
    digits(all) && rest.rsplit_once('-').is_some_and(|(_, number)| digits(number))
}

/// The file's name without the ending of a packed file.
fn unpacked(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.rsplit_once('.') {
        Some((unpacked, ending)) if packed::ENDINGS.contains(&ending) => unpacked.to_owned(),
        _ => name,
    }
}

/// Whether one of these names is a part of the file's, between points, lines and underscores.
fn has_part(path: &Path, names: &[&str]) -> bool {
    unpacked(path).split(['.', '-', '_']).any(|part| names.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unit;

    fn folder_of(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "a\n").unwrap();
        }
        folder
    }

    fn config(storage: Storage, shards: Option<ShardPatterns>) -> CorpusConfig {
        CorpusConfig { storage, shards, ..CorpusConfig::new("x", Unit::Word) }
    }

    fn names(folder: &Path, config: &CorpusConfig) -> Option<[Vec<String>; 3]> {
        let name = |path: PathBuf| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
        splits(folder, config)
            .unwrap()
            .map(|splits| splits.map(|files| files.into_iter().map(name).collect()))
    }

    fn error(folder: &Path, config: &CorpusConfig) -> String {
        splits(folder, config).unwrap_err().to_string()
    }

    #[test]
    fn the_one_billion_word_benchmark_is_known_by_its_names() {
        let [training, held_out] = BENCHMARK;
        let folder = folder_of(&[
            &format!("{training}/news.en-00002-of-00100"),
            &format!("{training}/news.en-00001-of-00100.gz"),
            &format!("{held_out}/news.en.heldout-00000-of-00050"),
            &format!("{held_out}/news.en.heldout-00001-of-00050"),
            &format!("{held_out}/news.en.heldout-00002-of-00050"),
            "README.corpus_generation",
        ]);
        let memory = config(Storage::Memory, None);
        let [train, valid, test] = names(folder.path(), &memory).unwrap();
        assert!(train[0].ends_with("00001-of-00100.gz") && train[1].ends_with("00002-of-00100"), "{train:?}");
        assert!(valid.len() == 1 && valid[0].ends_with("00001-of-00050"), "{valid:?}");
        assert!(test.len() == 1 && test[0].ends_with("00000-of-00050"), "{test:?}");
        std::fs::remove_file(folder.path().join(&test[0])).unwrap();
        let message = error(folder.path(), &memory);
        assert!(message.contains("has no news.en.heldout-00000-of-00050"), "{message}");
    }

    #[test]
    fn folders_of_splits_are_shards_and_a_folder_of_documents_is_not() {
        let folder = folder_of(&["train/b.txt.zst", "train/a.txt", "train/notes.md", "dev/x-00000-of-00001"]);
        let memory = config(Storage::Memory, None);
        let [train, valid, test] = names(folder.path(), &memory).unwrap();
        assert_eq!(
            (train, valid, test.len()),
            (
                vec!["train/a.txt".into(), "train/b.txt.zst".into()],
                vec!["dev/x-00000-of-00001".to_owned()],
                0
            )
        );
        assert_eq!(names(folder_of(&["one.txt", "two.txt"]).path(), &memory), None);
        let empty = folder_of(&["train/a.txt", "valid/notes.md"]);
        assert!(error(empty.path(), &memory).contains("valid: has no text"));
    }

    #[test]
    fn names_say_the_split_where_storage_is_on_disk() {
        let folder = folder_of(&[
            "wiki.train.tokens",
            "en_train-02.txt.gz",
            "valid-1.txt",
            "wiki.test.raw",
            "other.txt",
        ]);
        let disk = config(Storage::Disk, None);
        let [train, valid, test] = names(folder.path(), &disk).unwrap();
        assert_eq!(train, ["en_train-02.txt.gz", "wiki.train.tokens"]);
        assert_eq!((valid, test), (vec!["valid-1.txt".into()], vec!["wiki.test.raw".to_owned()]));
        assert!(error(folder_of(&["train-1.txt"]).path(), &disk).contains("no text for validation"));
        assert!(error(folder_of(&["train-valid.txt"]).path(), &disk).contains("several splits"));
    }

    #[test]
    fn patterns_say_it_where_names_do_not() {
        let folder = folder_of(&["a/1.txt", "a/2.txt", "b/9.txt"]);
        let patterns = |train: &str, valid: &str| {
            let of = |pattern: &str| if pattern.is_empty() { vec![] } else { vec![pattern.to_owned()] };
            config(Storage::Memory, Some(ShardPatterns { train: of(train), valid: of(valid), test: vec![] }))
        };
        let [train, valid, _] = names(folder.path(), &patterns("a/*.txt", "b/?.txt")).unwrap();
        assert_eq!((train, valid), (vec!["a/1.txt".into(), "a/2.txt".into()], vec!["b/9.txt".to_owned()]));
        assert!(error(folder.path(), &patterns("c/*", "b/*")).contains("corpus.shards.train = \"c/*\""));
        assert!(error(folder.path(), &patterns("a/*", "")).contains("corpus.shards.valid is empty"));
    }
}
