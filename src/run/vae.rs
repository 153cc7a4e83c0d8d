//! Runs of sentence VAEs.

use super::Request;
use super::first::{First, TAKEN};
use super::prepared::trained_on;
use crate::config::Resolved;
use crate::data::Corpus;
use crate::data::chosen::corpus_of;
use crate::error::{Error, Result};
use crate::task::vae::VaeTask;
use crate::train::resume::Resumed;
use std::path::Path;

impl Request {
    /// A run of a sentence VAE that begins, with the sizes and the vocabulary of `first` if there is one, or goes on with those
    /// that it had.
    pub(super) fn begin_vae(
        &self,
        mut resolved: Resolved,
        first: Option<&First>,
        resumed: Option<(&Resumed, &Path)>,
    ) -> Result<VaeTask> {
        if self.grow_vocab {
            return Err(Error::config(
                "--grow-vocab is for language models, and this recipe trains a sentence VAE",
            ));
        }
        first.map_or(Ok(()), |first| first.lend(&mut resolved))?;
        let vocabulary =
            resumed.map(|(resumed, _)| &resumed.tokenizer).or(first.map(|first| &first.tokenizer));
        let tokenizer = vocabulary.cloned();
        let recipe = resolved.recipe;
        let task = match resumed {
            None => VaeTask::prepare(recipe, &self.directories, tokenizer, self.precision, &self.device)?,
            Some(resumed) => {
                let found = corpus_of(trained_on(&recipe.corpus, resumed), &self.directories)?;
                let corpus = Corpus { name: recipe.corpus.name.clone(), ..found };
                VaeTask::with_corpus(recipe, corpus, tokenizer, self.precision, &self.device)?
            }
        };
        let taken = first.map_or(&[][..], |_| &TAKEN).iter();
        Ok(task.with_taken(taken.map(ToString::to_string).collect()))
    }
}
