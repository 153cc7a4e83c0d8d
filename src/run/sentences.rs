//! A run that learns from labelled sentences, from its own first weights or from those of a trained model.

use super::Request;
use super::first::{First, TAKEN};
use super::prepared::trained_on;
use crate::config::Resolved;
use crate::data::chosen::labelled_of;
use crate::data::labelled::LabelledCorpus;
use crate::error::{Error, Result};
use crate::task::classify::ClassifyTask;
use crate::train::resume::Resumed;
use std::path::Path;

impl Request {
    /// As [`Request::begin`], of labelled sentences.
    pub(super) fn begin_classify(
        &self,
        mut resolved: Resolved,
        first: Option<&First>,
        resumed: Option<(&Resumed, &Path)>,
    ) -> Result<ClassifyTask> {
        if self.grow_vocab {
            return Err(Error::config(
                "--grow-vocab is for language models, not for [task] kind = \"classify\"",
            ));
        }
        first.map_or(Ok(()), |first| first.lend_classifier(&mut resolved))?;
        let config = &resolved.recipe.corpus;
        let corpus = match resumed {
            None => LabelledCorpus::open(config, &self.directories)?,
            Some(resumed) => labelled_of(trained_on(config, resumed), &self.directories)?,
        };
        let tokenizer =
            resumed.map(|(resumed, _)| &resumed.tokenizer).or(first.map(|first| &first.tokenizer));
        let mut recipe = resolved.recipe;
        if let Some(first) = first {
            first.keep_embedding_size(&mut recipe, first.tokenizer.vocab_size());
        }
        let task =
            ClassifyTask::with_corpus(recipe, corpus, tokenizer.cloned(), self.precision, &self.device)?;
        Ok(task.with_taken(first.map_or_else(Vec::new, |_| TAKEN.map(String::from).to_vec())))
    }
}
