//! A run that learns from n-best lists, which begins with a trained model.

use super::Request;
use super::first::{First, TAKEN};
use crate::config::Resolved;
use crate::error::{Error, Result};
use crate::task::rescore::{ExpectedErrors, Rescoring};
use crate::train::resume::Resumed;
use crate::train::step::Stepper;

impl Request {
    /// The task of a run on n-best lists that begins with the weights of `first`, or goes on.
    pub(super) fn begin_lists(
        &self,
        mut resolved: Resolved,
        first: Option<&First>,
        resumed: Option<&Resumed>,
    ) -> Result<(Rescoring, Stepper<ExpectedErrors>)> {
        if self.grow_vocab {
            return Err(Error::config("--grow-vocab is for running text, not for n-best lists"));
        }
        let open = |recipe, tokenizer| Rescoring::open(recipe, tokenizer, self.precision, &self.device);
        Ok(match (resumed, first) {
            (Some(resumed), _) => {
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
}
