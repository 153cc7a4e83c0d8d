//! A recipe brought to its sentences: the vocabulary, the splits as items and the model's sizes.

use super::{VaeTask, training};
use crate::config::{ModelConfig, Recipe, Unit};
use crate::data::items::Items;
use crate::data::{Corpus, DataDirectories, Encoded, ShardedCorpus, Tokenizer};
use crate::error::{Error, Result};
use crate::task::language::{check_unit, size_model};
use crate::task::vocabulary;
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use std::cell::RefCell;
use std::collections::BTreeMap;

impl VaeTask {
    /// Opens the corpus; else as [`VaeTask::with_corpus`].
    ///
    /// # Errors
    /// As [`VaeTask::with_corpus`], and if there is no such corpus, or it is one of shards.
    pub fn prepare(
        recipe: Recipe,
        directories: &DataDirectories,
        tokenizer: Option<Tokenizer>,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        if ShardedCorpus::find(&recipe.corpus, directories)?.is_some() {
            let what =
                "is a corpus of shards, and a sentence VAE reads its text whole: give one of its files";
            return Err(Error::data(&recipe.corpus.name, what));
        }
        let corpus = Corpus::open(&recipe.corpus, directories)?;
        Self::with_corpus(recipe, corpus, tokenizer, precision, device)
    }

    /// Takes the vocabulary of `corpus` (or goes on with `tokenizer`) and sizes the model.
    ///
    /// # Errors
    /// If the corpus cannot be used, has no sentences for a split, or the vocabulary lacks a token that is needed.
    pub fn with_corpus(
        recipe: Recipe,
        corpus: Corpus,
        tokenizer: Option<Tokenizer>,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        let tokenizer = match tokenizer {
            None => vocabulary::build(&recipe, &corpus)?,
            Some(tokenizer) => tokenizer,
        };
        let line_end = sentence_end(&tokenizer)?;
        let (model, fixed) = size_vae(&recipe, &tokenizer)?;
        let items = |encoded: &Encoded| Items::of(&encoded.tokens, line_end, recipe.corpus.longest_sentence);
        let train = tokenizer.encode(&corpus.train)?;
        let valid = tokenizer.encode(&corpus.valid)?;
        let test = if corpus.test.is_empty() { None } else { Some(tokenizer.encode(&corpus.test)?) };
        let task = Self {
            train: items(&train),
            valid: items(&valid),
            unseen: [train.unseen, valid.unseen, test.as_ref().map_or(0, |test| test.unseen)],
            test: test.as_ref().map(items).filter(|test| !test.is_empty()),
            corpus: corpus.name,
            corpus_sha256: corpus.sha256,
            line_end,
            model,
            fixed,
            precision,
            device: device.clone(),
            taken: Vec::new(),
            order: RefCell::default(),
            tokenizer,
            recipe,
        };
        task.check_sizes()?;
        Ok(task)
    }

    fn check_sizes(&self) -> Result<()> {
        let batch = self.recipe.train.batch_size;
        let what = match (self.train.len(), self.valid.len()) {
            (train, _) if train < batch => {
                format!("{train} training sentences are too few for a batch of {batch}")
            }
            (_, 0) => "has no sentences for validation, which decides which weights are kept".into(),
            _ => return Ok(()),
        };
        Err(Error::data(&self.corpus, what))
    }
}

/// The model's sizes once the vocabulary is known, and its tables of characters.
///
/// # Errors
/// If the vocabulary is of another unit than the recipe says, or lacks a token that is needed.
pub(in crate::task) fn size_vae(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
) -> Result<(ModelConfig, BTreeMap<String, Tensor>)> {
    check_unit(recipe, tokenizer)?;
    sentence_end(tokenizer)?;
    let (mut model, fixed) = size_model(recipe, tokenizer)?;
    let latent = model.spec.latent.as_mut().ok_or_else(no_latent)?;
    let keep = training(recipe).word_keep;
    if latent.inputless && keep != 0.0 {
        return Err(Error::config(format!(
            "model.latent.inputless is a decoder that reads no words, and train.latent.word_keep is {keep}: it would be trained \
             on words and measured on none; wanted train.latent.word_keep = 0"
        )));
    }
    latent.inputless = keep == 0.0;
    if keep < 1.0 && tokenizer.unknown_id().is_none() {
        return Err(Error::config(format!(
            "train.latent.word_keep is {keep}: words that the decoder does not read are <unk> to it, and this vocabulary has \
             none; wanted corpus.unknown = true"
        )));
    }
    Ok((model, fixed))
}

fn no_latent() -> Error {
    Error::config("[task] kind = \"vae\" needs a [model.latent], and this model has none")
}

/// The token that ends a sentence, and from which a decoder begins.
///
/// # Errors
/// If the vocabulary has no line end of its own.
pub(crate) fn sentence_end(tokenizer: &Tokenizer) -> Result<u32> {
    match tokenizer.line_end_id() {
        Some(line_end) if tokenizer.unit() != Unit::Bpe => Ok(line_end),
        _ => Err(Error::config(format!(
            "a sentence VAE needs lines whose end is a token of its own, and this vocabulary of unit {} has none; wanted \
             corpus.unit = \"word\", \"char\" or \"byte\"",
            tokenizer.unit().as_str()
        ))),
    }
}
