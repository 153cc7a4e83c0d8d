//! A recipe brought to its corpus: the vocabulary, the splits as tokens, their batch rows and the model's sizes.

use super::{Language, size_model};
use crate::config::{Recipe, Sentences};
use crate::data::{Corpus, DataDirectories, Encoded, ShardedCorpus, Tokenizer};
use crate::error::{Error, Result};
use crate::task::split::SplitTokens;
use crate::task::teachers::Teachers;
use crate::task::vocabulary;
use candle_core::Device;
use rhn_kernels::precision::Precision;
use std::sync::Arc;

impl Language {
    /// Opens the corpus, takes its vocabulary (or goes on with `tokenizer`) and sizes the model.
    pub fn prepare(
        recipe: Recipe,
        directories: &DataDirectories,
        tokenizer: Option<Tokenizer>,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        if let Some(shards) = ShardedCorpus::find(&recipe.corpus, directories)? {
            return Self::with_shards(recipe, shards, tokenizer, precision, device);
        }
        let corpus = Corpus::open(&recipe.corpus, directories)?;
        Self::with_corpus(recipe, corpus, tokenizer, precision, device)
    }

    /// As [`Language::prepare`], with a corpus that is open. A `tokenizer` is taken to be sorted by falling frequency where
    /// the recipe needs that.
    pub fn with_corpus(
        recipe: Recipe,
        corpus: Corpus,
        tokenizer: Option<Tokenizer>,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let tokenizer = match tokenizer {
            None => vocabulary::build(&recipe, &corpus)?,
            Some(tokenizer) => tokenizer,
        };
        check_unit(&recipe, &tokenizer)?;
        if corpus.valid.is_empty() {
            return Err(Error::config(format!(
                "corpus.split is {:?}, which leaves {} no validation split, and training needs one: it decides which \
                 weights are kept. Give it a part, as --set corpus.split=[90,5,5]",
                recipe.corpus.split, corpus.name
            )));
        }
        let text = |encoded: Encoded| SplitTokens::Text(Arc::new(encoded));
        let train = tokenizer.encode(&corpus.train)?;
        let valid = tokenizer.encode_measured(&corpus.valid)?;
        let test = if corpus.test.is_empty() { None } else { Some(tokenizer.encode_measured(&corpus.test)?) };
        let test = test.filter(|test| test.tokens.len() > 1); // the first token is only context
        let names = [corpus.name, corpus.sha256];
        let splits = (text(train), text(valid), test.map(text));
        Self::of_splits(recipe, names, splits, tokenizer, precision.into(), device)
    }

    /// As [`Language::prepare`], with the shards of a corpus that is read from disk. They are encoded first, where the
    /// cache does not have them; a `tokenizer` is as for [`Language::with_corpus`].
    pub fn with_shards(
        recipe: Recipe,
        corpus: ShardedCorpus,
        tokenizer: Option<Tokenizer>,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let tokenizer = tokenizer.map_or_else(|| corpus.vocabulary(&recipe), Ok)?;
        check_unit(&recipe, &tokenizer)?;
        let encode = |split: usize| corpus.encode(split, &tokenizer).map(SplitTokens::Shards);
        let train = encode(0)?;
        let valid = encode(1)?;
        let test = if corpus.splits[2].is_empty() { None } else { Some(encode(2)?) };
        let splits = (train, valid, test.filter(|test| test.size().tokens > 1));
        let names = [corpus.name.clone(), corpus.sha256(&tokenizer)?];
        let language = Self::of_splits(recipe, names, splits, tokenizer, precision.into(), device)?;
        Ok(Self { shards: Some(corpus), ..language })
    }

    fn of_splits(
        recipe: Recipe,
        [corpus, corpus_sha256]: [String; 2],
        (train, valid, test): (SplitTokens, SplitTokens, Option<SplitTokens>),
        tokenizer: Tokenizer,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        let windows = train.training(&format!("{corpus} (training split)"), &recipe, &tokenizer)?;
        let valid_windows = valid.validation(&format!("{corpus} (validation split)"), &recipe, &tokenizer)?;
        let (model, fixed) = size_model(&recipe, &tokenizer)?;
        let teachers = recipe.train.loss.distill();
        if teachers.is_some() && recipe.corpus.sentences == Sentences::Reset {
            return Err(Error::config(
                "train.loss.kind = \"distill\" and corpus.sentences = \"reset\": teachers carry their state over the ends of \
                 sentences; wanted corpus.sentences = \"running\" or \"carry\"",
            ));
        }
        let open = |settings| Teachers::open(settings, &tokenizer, precision, device);
        let teachers = teachers.map(open).transpose()?;
        Ok(Self {
            corpus,
            corpus_sha256,
            tokenizer,
            train,
            valid,
            test,
            shards: None,
            model,
            windows,
            valid_windows,
            precision,
            device: device.clone(),
            fixed,
            taken: Vec::new(),
            teachers,
            recipe,
        })
    }
}

/// Refuses a vocabulary of another unit than the recipe's.
pub(crate) fn check_unit(recipe: &Recipe, tokenizer: &Tokenizer) -> Result<()> {
    let found = tokenizer.unit();
    let wanted = recipe.corpus.unit;
    if found == wanted {
        return Ok(());
    }
    Err(Error::config(format!(
        "the checkpoint's vocabulary cuts by {}, and corpus.unit says {}",
        found.as_str(),
        wanted.as_str()
    )))
}
