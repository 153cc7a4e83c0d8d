//! Sentences with a label each, whether they need an edit: for training a classifier, and for choosing a threshold.
//!
//! Three kinds of files, told apart by what is in them: lines of a label and a sentence, pairs of a good and a bad sentence
//! as `rhn judge` reads them (both are taken, the bad one needs the edit), CoLA's lines, and the XML of AESW 2016.

mod lines;
mod xml;

use super::corpus::one_text;
use super::directory::{NAMES, files, only_one};
use super::packed;
use super::text::Text;
use super::{DataDirectories, TrainedOn, split};
use crate::config::CorpusConfig;
use crate::digest::hex;
use crate::error::{Error, Result};
use crate::readable::too_few;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A sentence and its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledSentence {
    /// One line, without its end.
    pub text: String,
    /// Whether it needs an edit: label 1.
    pub needs_edit: bool,
}

/// The sentences of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    /// In the file's order; what one line or element gives is together.
    pub sentences: Vec<LabelledSentence>,
    /// Where among them each line or element ends.
    ends: Vec<usize>,
    /// Elements without any text before the edit, which are no sentences.
    pub left_out: u64,
}

impl Labelled {
    /// Reads a file, packed or not, or the standard input (`-`).
    ///
    /// # Errors
    /// If it cannot be read, or is none of the kinds: names file, line, what was found and what was wanted.
    pub fn read(path: &Path) -> Result<Self> {
        match path == Path::new("-") {
            true => Self::parse(&Text::read_stdin()?),
            false => Self::parse(&Text::read(path)?),
        }
    }

    fn parse(text: &Text) -> Result<Self> {
        let content = text.as_str()?;
        let found = match content.trim_start().starts_with('<') {
            true => xml::parse(&text.source, content)?,
            false => lines::parse(&text.source, content)?,
        };
        if found.sentences.is_empty() {
            let what = "has no sentences; wanted lines of label<TAB>sentence, pairs, or <sentence> elements";
            return Err(Error::data(&text.source, what));
        }
        Ok(found)
    }

    fn add(&mut self, record: impl IntoIterator<Item = LabelledSentence>) {
        self.sentences.extend(record);
        self.ends.push(self.sentences.len());
    }

    /// How many need an edit.
    pub fn positives(&self) -> usize {
        self.sentences.iter().filter(|sentence| sentence.needs_edit).count()
    }

    /// The labels in order.
    pub fn labels(&self) -> Vec<bool> {
        self.sentences.iter().map(|sentence| sentence.needs_edit).collect()
    }

    /// Cuts by percentages of lines or elements, which stay whole.
    fn split(self, percentages: [f64; 3], source: &Path) -> Result<[Self; 3]> {
        split::validate(percentages)?;
        let count = self.ends.len();
        let boundary = |percent: f64| ((count as f64 * percent / 100.0).round() as usize).min(count);
        let first = boundary(percentages[0]);
        let second = boundary(percentages[0] + percentages[1]).max(first);
        let parts = [0..first, first..second, second..count];
        for ((part, percent), name) in parts.iter().zip(percentages).zip(["training", "validation", "test"]) {
            if percent > 0.0 && part.is_empty() {
                let what = format!(
                    "{} to be split {percentages:?}: none is left for {name}",
                    too_few(count, "line")
                );
                return Err(Error::data(source, what));
            }
        }
        let begin = |record: usize| if record == 0 { 0 } else { self.ends[record - 1] };
        Ok(parts.map(|part| {
            let sentences = begin(part.start)..begin(part.end);
            Self {
                ends: self.ends[part].iter().map(|end| end - sentences.start).collect(),
                sentences: self.sentences[sentences].to_vec(),
                left_out: 0,
            }
        }))
    }
}

/// Sentences for training, for validation and for the test.
#[derive(Clone, Debug)]
pub struct LabelledCorpus {
    /// The path it was read from.
    pub name: String,
    /// What a model learns from; both labels are in it.
    pub train: Labelled,
    /// What decides which weights are kept, and the threshold; both labels are in it.
    pub valid: Labelled,
    /// What results are reported on, if the corpus has such a split.
    pub test: Option<Labelled>,
    /// Elements of all splits without any text before the edit, which are no sentences.
    pub left_out: u64,
    /// The SHA-256 of the files' texts one after another.
    pub sha256: String,
}

impl LabelledCorpus {
    /// Reads what `config.name` says: a directory with a file for each split (`train.tsv`, `valid.tsv` or `dev.tsv`,
    /// `test.tsv`, or `.xml`, each name as the last part of a longer one too), or one file, which is cut as `config.split`
    /// says.
    ///
    /// # Errors
    /// If there is no such corpus, a file is none of the kinds, or a split lacks a label that it needs.
    pub fn open(config: &CorpusConfig, directories: &DataDirectories) -> Result<Self> {
        match one_file(&config.name, directories)? {
            Some(text) => Self::of_file(config, text),
            None => Self::of_files(&config.name, of_directory(Path::new(&config.name))?),
        }
    }

    /// What `config.name` means for a checkpoint of `run`: as [`LabelledCorpus::open`], but a file or the standard input with
    /// another text than the run's is not cut.
    ///
    /// # Errors
    /// As there.
    pub fn named(config: &CorpusConfig, run: TrainedOn<'_>, directories: &DataDirectories) -> Result<Named> {
        match one_file(&config.name, directories)? {
            Some(text) if !run.is_of(&config.name, &text) => Ok(Named::Whole(Labelled::parse(&text)?)),
            Some(text) => Self::of_file(config, text).map(Named::Splits),
            None => Self::open(config, directories).map(Named::Splits),
        }
    }

    fn of_file(config: &CorpusConfig, text: Text) -> Result<Self> {
        let parsed = Labelled::parse(&text)?;
        let left_out = parsed.left_out;
        let [train, valid, test] = parsed.split(config.split, &text.source)?;
        Self::of_files(&config.name, (vec![text], [Labelled { left_out, ..train }, valid, test]))
    }

    fn of_files(name: &str, (texts, parts): (Vec<Text>, [Labelled; 3])) -> Result<Self> {
        let mut hash = Sha256::new();
        texts.iter().for_each(|text| hash.update(text.bytes()));
        let [train, valid, test] = parts;
        check_labels(name, "training", &train)?;
        check_labels(name, "validation", &valid)?;
        Ok(Self {
            name: name.to_owned(),
            left_out: train.left_out + valid.left_out + test.left_out,
            train,
            valid,
            test: Some(test).filter(|test| !test.sentences.is_empty()),
            sha256: hex(hash),
        })
    }

    /// The training sentences as a text, a line each: what a vocabulary is taken from.
    pub fn training_text(&self) -> Text {
        let lines = self.train.sentences.iter().flat_map(|sentence| [sentence.text.as_str(), "\n"]);
        Text::new(lines.collect::<String>().into_bytes(), &self.name)
    }
}

/// What a path means: the splits of a corpus, or the sentences of a file that is not cut.
#[derive(Debug)]
pub enum Named {
    /// A directory with a file for each split, or the file that a run was trained on.
    Splits(LabelledCorpus),
    /// Another file.
    Whole(Labelled),
}

/// The text of a file or the standard input; `None` for a directory.
fn one_file(name: &str, directories: &DataDirectories) -> Result<Option<Text>> {
    if directories.registry.get(name).is_some() {
        let what = "is a corpus of text or images; wanted labelled sentences, a directory or a file: `rhn data errors \
                    --labels` makes some of a text";
        return Err(Error::data(name, what));
    }
    one_text(name, directories)
}

/// Refuses a split in which all labels are the same.
fn check_labels(name: &str, split: &str, labelled: &Labelled) -> Result<()> {
    let all = labelled.sentences.len();
    let positives = labelled.positives();
    if positives > 0 && positives < all {
        return Ok(());
    }
    let what = format!(
        "the {split} split has {all} sentences of which {positives} need an edit; wanted some of both labels"
    );
    Err(Error::data(name, what))
}

/// The files of a directory and what is in them; a missing test split is empty.
fn of_directory(directory: &Path) -> Result<(Vec<Text>, [Labelled; 3])> {
    let all = files(directory)?;
    let of_split = |names: &[&str]| {
        only_one(directory, all.iter().filter(|path| is_split(path, names)).collect())
            .map(Option::<&PathBuf>::cloned)
    };
    let [train, valid, test] = NAMES.map(of_split);
    let missing = |split: &str, file: &str| {
        let what = format!(
            "has no {split} split; wanted {file}.tsv or {file}.xml, also as the last part of a longer name, and with .gz or .zst"
        );
        Error::data(directory, what)
    };
    let train = train?.ok_or_else(|| missing("training", "train"))?;
    let valid = valid?.ok_or_else(|| missing("validation", "valid, validation, val or dev"))?;
    let mut texts = vec![Text::read(&train)?, Text::read(&valid)?];
    texts.extend(test?.map(|path| Text::read(&path)).transpose()?);
    let mut parts = texts.iter().map(Labelled::parse);
    let mut next = || parts.next().transpose().map(Option::unwrap_or_default);
    let parts = [next()?, next()?, next()?];
    Ok((texts, parts))
}

/// Whether a file's name, its endings apart, ends in one of `names` behind a separator.
fn is_split(path: &Path, names: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unpacked = packed::ENDINGS.iter().find_map(|ending| name.strip_suffix(&format!(".{ending}")));
    let unpacked = unpacked.unwrap_or(&name);
    let Some(stem) = unpacked.strip_suffix(".tsv").or_else(|| unpacked.strip_suffix(".xml")) else {
        return false;
    };
    let last = stem.rsplit(['.', '_', '-']).next().unwrap_or_default();
    !name.starts_with('.') && names.contains(&last)
}

#[cfg(test)]
mod tests;
