//! The n-best lists of a directory, with what was said: `train`, `valid` and `test`.

use crate::data::Tokenizer;
use crate::data::packed;
use crate::digest::hex;
use crate::error::{Error, Result};
use crate::eval::nbest::{Format, NBest, Weights, distances, read_lists, read_references};
use crate::eval::sentences::Sentence;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The names of the splits.
pub(super) const SPLITS: [&str; 3] = ["train", "valid", "test"];

/// What was found for one utterance, beside what was said.
pub(super) struct Utterance {
    pub(super) list: NBest,
    /// Word errors of each hypothesis.
    pub(super) errors: Vec<usize>,
    pub(super) reference: String,
    /// Words of the reference.
    pub(super) words: usize,
}

/// The lists of a directory.
pub(crate) struct Lists {
    /// The directory.
    pub(super) name: String,
    /// Of all that was read.
    pub(crate) sha256: String,
    /// For training, validation and, if it is there, the test.
    pub(super) splits: [Vec<Utterance>; 3],
}

impl Lists {
    /// Reads `train`, `valid` and, if it is there, `test` of the directory `name`: lists as `S.tsv`, packed or not, or of
    /// the other formats as a directory `S`; references as `S.text`, of Kaldi's also `S/text`.
    ///
    /// # Errors
    /// If lists or references of training or validation are missing, one cannot be read, or a list has no reference.
    pub(crate) fn open(name: &str, format: Format) -> Result<Self> {
        let directory = Path::new(name);
        if !directory.is_dir() {
            let what = "is no directory; n-best lists to learn from are in one with train and valid lists, as train.tsv and \
                        valid.tsv, and what was said, as train.text and valid.text";
            return Err(Error::data(name, what));
        }
        let mut splits = Vec::new();
        for split in SPLITS {
            splits.push(match find(directory, split, format)? {
                Some(path) => read(directory, split, &path, format)?,
                None if split == "test" => Vec::new(),
                None => {
                    let wanted = wanted(split, format);
                    return Err(Error::data(name, format!("has no {split} lists; wanted {wanted}")));
                }
            });
        }
        let sha256 = digest(&splits);
        let splits = splits.try_into().unwrap_or_else(|_| unreachable!("there are three"));
        Ok(Self { name: name.to_owned(), sha256, splits })
    }
}

fn wanted(split: &str, format: Format) -> String {
    match format {
        Format::Tsv => format!("{split}.tsv"),
        Format::Kaldi | Format::Srilm => format!("a directory {split}"),
    }
}

/// Where the lists of a split are, if they are there. Fails if they are there twice, packed and not.
fn find(directory: &Path, split: &str, format: Format) -> Result<Option<PathBuf>> {
    if format != Format::Tsv {
        return Ok(Some(directory.join(split)).filter(|path| path.is_dir()));
    }
    let plain = format!("{split}.tsv");
    let packed = packed::ENDINGS.iter().map(|ending| format!("{plain}.{ending}"));
    let names = std::iter::once(plain.clone()).chain(packed);
    let found: Vec<PathBuf> = names.map(|name| directory.join(name)).filter(|path| path.is_file()).collect();
    match &found[..] {
        [first, second, ..] => Err(Error::data(
            second,
            format!("is there beside {}, and only one can be the lists of {split}", first.display()),
        )),
        found => Ok(found.first().cloned()),
    }
}

fn read(directory: &Path, split: &str, path: &Path, format: Format) -> Result<Vec<Utterance>> {
    let lists = read_lists(path, format)?;
    let beside = directory.join(format!("{split}.text"));
    let text = match format {
        Format::Kaldi if !beside.is_file() => path.join("text"),
        _ => beside,
    };
    if !text.is_file() {
        let what = format!("is missing: it has what was said, lines of an id and the words, for {split}");
        return Err(Error::data(&text, what));
    }
    let references = read_references(std::slice::from_ref(&text))?;
    let of = |list: NBest| {
        let missing = || Error::data(&text, format!("has no reference of {:?}, a list of {split}", list.id));
        let reference = references.get(&list.id).ok_or_else(missing)?.clone();
        let (errors, words) = distances(&list, &reference);
        Ok(Utterance { list, errors, reference, words })
    };
    lists.into_iter().map(of).collect()
}

/// Of ids, scores and words, whatever files they were in.
fn digest(splits: &[Vec<Utterance>]) -> String {
    let mut hash = Sha256::new();
    for utterance in splits.iter().flatten() {
        hash.update(format!("{}\t{}\n", utterance.list.id, utterance.reference));
        for each in &utterance.list.hypotheses {
            hash.update(format!("{}\t{}\t{}\n", each.acoustic, each.old, each.text));
        }
    }
    hex(hash)
}

/// An utterance in a model's tokens.
pub struct ListTokens {
    /// Those of each hypothesis, the line end included.
    pub hypotheses: Vec<Vec<u32>>,
    /// What a hypothesis's total has beside the model's score.
    pub fixed: Vec<f64>,
    /// Word errors of each.
    pub errors: Vec<f64>,
    /// The tokens of what was said.
    pub reference: Vec<u32>,
    /// Words of all of these that the vocabulary lacks.
    pub unseen: usize,
}

impl ListTokens {
    /// Cuts all of an utterance.
    ///
    /// # Errors
    /// If a tokenizer of another program refuses some of it.
    pub(super) fn new(utterance: &Utterance, tokenizer: &Tokenizer, weights: &Weights) -> Result<Self> {
        let cut = |text: &str| Sentence::cut(text, tokenizer);
        let hypotheses = &utterance.list.hypotheses;
        let sentences = hypotheses.iter().map(|each| cut(&each.text)).collect::<Result<Vec<_>>>()?;
        let reference = cut(&utterance.reference)?;
        let unseen = sentences.iter().chain([&reference]).map(|sentence| sentence.unknown_words).sum();
        Ok(Self {
            fixed: hypotheses.iter().map(|each| weights.total(each)).collect(), // its `lp` is 0 until it is scored
            errors: utterance.errors.iter().map(|&errors| errors as f64).collect(),
            hypotheses: sentences.into_iter().map(|sentence| sentence.ids).collect(),
            reference: reference.ids,
            unseen,
        })
    }
}
