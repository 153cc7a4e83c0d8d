//! A run that learns from labelled sentences, from its own first weights or from those of a trained model.

use super::Request;
use super::first::{First, TAKEN};
use crate::config::Resolved;
use crate::data::labelled::LabelledCorpus;
use crate::error::{Error, Result};
use crate::task::classify::ClassifyTask;
use crate::train::resume::Resumed;

impl Request {
    /// As [`Request::begin`], of labelled sentences.
    pub(super) fn begin_classify(
        &self,
        mut resolved: Resolved,
        first: Option<&First>,
        resumed: Option<&Resumed>,
    ) -> Result<ClassifyTask> {
        if self.grow_vocab {
            return Err(Error::config(
                "--grow-vocab is for language models, not for [task] kind = \"classify\"",
            ));
        }
        first.map_or(Ok(()), |first| first.lend_classifier(&mut resolved))?;
        let corpus = LabelledCorpus::open(&resolved.recipe.corpus, &self.directories)?;
        let tokenizer = resumed.map(|resumed| &resumed.tokenizer).or(first.map(|first| &first.tokenizer));
        let mut recipe = resolved.recipe;
        if let Some(first) = first {
            first.keep_embedding_size(&mut recipe, first.tokenizer.vocab_size());
        }
        let task =
            ClassifyTask::with_corpus(recipe, corpus, tokenizer.cloned(), self.precision, &self.device)?;
        Ok(task.with_taken(first.map_or_else(Vec::new, |_| TAKEN.map(String::from).to_vec())))
    }
}
