//! A run that learns from n-best lists, which begins with a trained model.

use super::Request;
use super::first::{First, TAKEN};
use super::prepared::trained_on;
use crate::config::{CorpusConfig, Recipe, Resolved};
use crate::data::chosen;
use crate::error::{Error, Result};
use crate::task::rescore::{ExpectedErrors, Lists, Rescoring};
use crate::train::resume::Resumed;
use crate::train::step::Stepper;
use std::path::Path;

impl Request {
    /// The task of a run on n-best lists that begins with the weights of `first`, or goes on.
    pub(super) fn begin_lists(
        &self,
        mut resolved: Resolved,
        first: Option<&First>,
        resumed: Option<(&Resumed, &Path)>,
    ) -> Result<(Rescoring, Stepper<ExpectedErrors>)> {
        if self.grow_vocab {
            return Err(Error::config("--grow-vocab is for running text, not for n-best lists"));
        }
        let open = |recipe: Recipe, tokenizer| {
            let lists = self.lists_of(&recipe, resumed)?;
            Rescoring::open(recipe, lists, tokenizer, self.precision, &self.device)
        };
        Ok(match (resumed, first) {
            (Some((resumed, _)), _) => {
                let task = open(resolved.recipe, resumed.tokenizer.clone())?;
                let stepper = task.resumed_stepper()?;
                (task, stepper)
            }
            (None, Some(first)) => {
                first.lend(&mut resolved)?;
                let mut recipe = resolved.recipe;
                let (own, wanted) = (first.tokenizer.unit(), recipe.corpus.unit);
                if own != wanted {
                    return Err(Error::config(format!(
                        "the checkpoint's vocabulary cuts by {}, and corpus.unit says {}",
                        own.as_str(),
                        wanted.as_str()
                    )));
                }
                first.keep_embedding_size(&mut recipe, first.tokenizer.vocab_size());
                let task = open(recipe, first.tokenizer.clone())?;
                let stepper = task.stepper(&first.checkpoint)?;
                (task.with_taken(TAKEN.map(String::from).to_vec()), stepper)
            }
            (None, None) => {
                return Err(Error::config(
                    "[task] kind = \"rescore\" goes on from a trained language model: --init-from CHECKPOINT names it",
                ));
            }
        })
    }

    /// The lists that the recipe names; of a run that goes on, those with its SHA-256, if several directories have the name.
    fn lists_of(&self, recipe: &Recipe, resumed: Option<(&Resumed, &Path)>) -> Result<Lists> {
        let format = recipe.train.lists.unwrap_or_default().format;
        let named = |config: &CorpusConfig| Lists::open(&config.name, format);
        let Some(resumed) = resumed else { return named(&recipe.corpus) };
        let run = trained_on(&recipe.corpus, resumed);
        let found = chosen::find(run, &self.directories, |config, _| named(config), |lists| &lists.sha256)?;
        found.map_or_else(|| named(&recipe.corpus), Ok) // the error says what is wrong
    }
}
