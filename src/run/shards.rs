//! Runs on corpora of shards: how they begin, and how any run's corpus is opened again.

use super::Request;
use super::first::{First, TAKEN, TEACHER};
use super::prepared::trained_on;
use crate::config::Recipe;
use crate::data::chosen::{corpus_of, shards_of};
use crate::data::{Corpus, ShardedCorpus};
use crate::error::{Error, Result};
use crate::task::language::Language;
use crate::train::resume::Resumed;
use std::path::Path;

impl Request {
    /// As [`Request::begin`], of shards, which are never a small text.
    pub(super) fn begin_shards(
        &self,
        mut recipe: Recipe,
        shards: ShardedCorpus,
        first: Option<&First>,
        is_taught_by_first: bool,
    ) -> Result<Language> {
        let Some(first) = first else {
            return Language::with_shards(recipe, shards, None, self.precision, &self.device);
        };
        if self.grow_vocab {
            return Err(Error::config(
                "--grow-vocab reads the training text whole, and this corpus is one of shards: leave it out, or grow the \
                 vocabulary with one shard first",
            ));
        }
        if recipe.needs_sorted_words() && !first.checkpoint.config.sorted_by_frequency {
            return Err(Error::config(
                "--init-from: the checkpoint's vocabulary is not known to be sorted by falling frequency, which an adaptive \
                 softmax and sampled losses need",
            ));
        }
        let tokenizer = first.tokenizer.clone();
        first.keep_embedding_size(&mut recipe, tokenizer.vocab_size());
        let language = Language::with_shards(recipe, shards, Some(tokenizer), self.precision, &self.device)?;
        let mut taken = TAKEN.map(String::from).to_vec();
        taken.extend(is_taught_by_first.then(|| TEACHER.to_string()));
        Ok(language.with_taken(taken))
    }

    /// What the run in the directory `out` trains, with the vocabulary that it began with.
    pub(super) fn reopen(&self, recipe: Recipe, resumed: &Resumed, out: &Path) -> Result<Language> {
        let run = trained_on(&recipe.corpus, (resumed, out));
        let tokenizer = Some(resumed.tokenizer.clone());
        if let Some(shards) = shards_of(run, &resumed.tokenizer, &self.directories)? {
            return Language::with_shards(recipe, shards, tokenizer, self.precision, &self.device);
        }
        let found = corpus_of(run, &self.directories)?;
        resumed.check_corpus(&found.name, &found.sha256)?; // before its size can be wrong
        let corpus = Corpus { name: recipe.corpus.name.clone(), ..found };
        Language::with_corpus(recipe, corpus, tokenizer, self.precision, &self.device)
    }
}
