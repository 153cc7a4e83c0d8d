//! The models that recipes would train, without what their training needs beside the vocabulary.

use super::classify::size_classifier;
use super::fit;
use super::images::size_net;
use super::language::size_model;
use super::vae::size_vae;
use super::vocabulary;
use crate::config::{CorpusConfig, ModelConfig, Resolved, TaskKind};
use crate::data::images::ImageCorpus;
use crate::data::labelled::LabelledCorpus;
use crate::data::{Corpus, DataDirectories, ShardedCorpus, Tokenizer};
use crate::error::{Error, Result};

/// What a corpus says of the models that learn from it.
enum Known {
    Words(Tokenizer),
    Images(ImageCorpus),
}

/// What decides which vocabulary a recipe has.
#[derive(PartialEq)]
struct Key {
    corpus: CorpusConfig,
    task: TaskKind,
    is_sorted: bool,
    /// A small text may be split in another way than its recipe says, for so many steps of an epoch.
    min_epoch_steps: u64,
    batch_size: usize,
    bptt_steps: usize,
    /// Which of [`fit::KEYS`] may be changed for that.
    free: [bool; 3],
}

impl Key {
    fn of(resolved: &Resolved) -> Self {
        let recipe = &resolved.recipe;
        Self {
            corpus: recipe.corpus.clone(),
            task: recipe.task.kind,
            is_sorted: recipe.needs_sorted_words(),
            min_epoch_steps: recipe.train.min_epoch_steps,
            batch_size: recipe.train.batch_size,
            bptt_steps: recipe.train.bptt_steps,
            free: fit::KEYS.map(|key| !resolved.is_set(key)),
        }
    }
}

/// The models of several recipes; a corpus is read once for all that share it.
pub(crate) struct Sizes<'a> {
    directories: &'a DataDirectories,
    known: Vec<(Key, Known)>,
}

impl<'a> Sizes<'a> {
    pub(crate) fn new(directories: &'a DataDirectories) -> Self {
        Self { directories, known: Vec::new() }
    }

    /// The model that a run of `resolved` trains from its own first weights.
    ///
    /// # Errors
    /// If its corpus cannot be read, there is no such model, or it begins with a checkpoint's.
    pub(crate) fn model(&mut self, resolved: &Resolved) -> Result<ModelConfig> {
        let recipe = &resolved.recipe;
        let task = recipe.task.kind;
        let key = Key::of(resolved);
        let at = match self.known.iter().position(|(known, _)| *known == key) {
            Some(at) => at,
            None => {
                let known = self.read(resolved)?;
                self.known.push((key, known));
                self.known.len() - 1
            }
        };
        match (&self.known[at].1, task) {
            (Known::Images(corpus), _) => size_net(recipe, corpus),
            (Known::Words(tokenizer), TaskKind::Classify) => Ok(size_classifier(recipe, tokenizer)?.0),
            (Known::Words(tokenizer), TaskKind::Vae) => Ok(size_vae(recipe, tokenizer)?.0),
            (Known::Words(tokenizer), _) => Ok(size_model(recipe, tokenizer)?.0),
        }
    }

    fn read(&self, resolved: &Resolved) -> Result<Known> {
        let recipe = &resolved.recipe;
        let config = &recipe.corpus;
        Ok(match recipe.task.kind {
            TaskKind::Images => Known::Images(ImageCorpus::open(config, self.directories)?),
            TaskKind::Classify => {
                let corpus = LabelledCorpus::open(config, self.directories)?;
                Known::Words(Tokenizer::build(config, &corpus.training_text())?)
            }
            TaskKind::Rescore => {
                return Err(Error::config(
                    "[task] kind = \"rescore\" begins with a trained model: rhn train --init-from CHECKPOINT",
                ));
            }
            TaskKind::Vae => {
                let corpus = Corpus::open(config, self.directories)?;
                Known::Words(vocabulary::build(recipe, &corpus)?)
            }
            TaskKind::Language => Known::Words(match ShardedCorpus::find(config, self.directories)? {
                Some(shards) => shards.vocabulary(recipe)?,
                None => {
                    let is_free = |key: &str| !resolved.is_set(key);
                    fit::open(&mut recipe.clone(), self.directories, is_free, vocabulary::build)?.tokenizer
                }
            }),
        })
    }
}
