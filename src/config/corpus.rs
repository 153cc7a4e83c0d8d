//! `[corpus]` of a recipe: which text, cut into which units.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Separated by whitespace, with a mark at each line's end
    Word,
    /// A Unicode character
    Char,
    /// A byte
    Byte,
    /// A byte pair, trained on the corpus
    Bpe,
}

impl Unit {
    /// As recipes and flags name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Word => "word",
            Self::Char => "char",
            Self::Byte => "byte",
            Self::Bpe => "bpe",
        }
    }
}

/// How the sentences of a corpus, its lines, reach the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sentences {
    /// One running text: batch rows are its parts, and the state is carried from line to line.
    #[default]
    Running,
    /// Shuffled anew each epoch and packed whole into batch rows; each begins with the zero state.
    Reset,
    /// As `reset`, but the state is carried from one sentence to the next, whichever it is.
    Carry,
}

impl Sentences {
    /// As recipes and results name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Reset => "reset",
            Self::Carry => "carry",
        }
    }

    fn is_running(&self) -> bool {
        *self == Self::Running
    }
}

/// Where the tokens of a corpus are kept while a model is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// In memory, unless the directory is one of shards.
    #[default]
    Memory,
    /// In a cache on disk, read in blocks: the directory's files are shards.
    Disk,
}

impl Storage {
    fn is_memory(&self) -> bool {
        *self == Self::Memory
    }
}

/// The shards of each split, as patterns of paths within the corpus's directory: `*` and `?` stand for characters of one
/// name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardPatterns {
    /// What a model learns from.
    pub train: Vec<String>,
    /// What decides which weights are kept.
    pub valid: Vec<String>,
    /// What results are reported on; may be left out.
    #[serde(default)]
    pub test: Vec<String>,
}

/// Which text, and how it is cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusConfig {
    /// A built-in corpus's name, a file or a directory; `--corpus` replaces it.
    pub name: String,
    /// What a token is.
    pub unit: Unit,
    /// Keep a token `<unk>` for symbols that the training split lacks. Without it they are left out and counted.
    #[serde(default = "yes")]
    pub unknown: bool,
    /// Words seen less often than this in the training split become `<unk>`.
    #[serde(default = "one")]
    pub min_count: u64,
    /// For `bpe`: the vocabulary to train (0: 4,096); for `word`: the words to keep at most (0: all).
    #[serde(default)]
    pub vocab_size: usize,
    /// For `bpe`: take this tokenizer.json instead of training one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// For a text in one file: percentages of its bytes that go to training, validation and test, in order.
    #[serde(default = "ninety_five_five")]
    pub split: [f64; 3],
    /// For a folder of texts: what comes between two documents.
    #[serde(default = "line_end", skip_serializing_if = "is_line_end")]
    pub boundary: String,
    /// For a folder of texts: shuffle the documents, drawn from this seed. Without it they go by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shuffle: Option<u64>,
    /// How sentences, which are lines, reach the model.
    #[serde(default, skip_serializing_if = "Sentences::is_running")]
    pub sentences: Sentences,
    /// For a sentence VAE: sentences of more tokens, their line end not counted, are left out of every split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_sentence: Option<usize>,
    /// Where sentences are shuffled: so many at once, within blocks whose order is drawn too.
    #[serde(default = "block", skip_serializing_if = "is_block")]
    pub shuffle_sentences: usize,
    /// Where the tokens are kept.
    #[serde(default, skip_serializing_if = "Storage::is_memory")]
    pub storage: Storage,
    /// Which files of a directory are the shards of which split, where their names do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<ShardPatterns>,
    /// For `word`: take the words of this file, a word and its count a line, by falling count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<PathBuf>,
    /// For shards: keep the encoded ones in this directory instead of the user's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
}

fn is_block(sentences: &usize) -> bool {
    *sentences == block()
}

fn line_end() -> String {
    "\n".into()
}

fn is_line_end(text: &str) -> bool {
    text == "\n"
}

impl CorpusConfig {
    /// The corpus `name` with each setting as it is if a recipe does not say.
    pub fn new(name: impl Into<String>, unit: Unit) -> Self {
        Self {
            name: name.into(),
            unit,
            unknown: yes(),
            min_count: one(),
            vocab_size: 0,
            tokenizer: None,
            split: ninety_five_five(),
            boundary: line_end(),
            shuffle: None,
            sentences: Sentences::Running,
            longest_sentence: None,
            shuffle_sentences: block(),
            storage: Storage::Memory,
            shards: None,
            vocabulary: None,
            cache: None,
        }
    }
}

defaults! {
    yes: bool = true;
    one: u64 = 1;
    block: usize = 65_536;
    ninety_five_five: [f64; 3] = [90.0, 5.0, 5.0];
}
