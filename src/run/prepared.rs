//! A task of any kind that is known to fit, with what its training begins with: before there is a directory.

use super::first::First;
use super::{Request, find_state};
use crate::config::{CorpusConfig, Resolved, TaskKind};
use crate::data::TrainedOn;
use crate::data::images::ImageCorpus;
use crate::error::Result;
use crate::task::classify::ClassifyTask;
use crate::task::images::ImageTask;
use crate::task::language::Language;
use crate::task::rescore::Rescoring;
use crate::task::vae::VaeTask;
use crate::train::resume::Resumed;
use crate::train::step::Stepper;
use crate::train::task::Task;
use std::path::Path;

/// A task, and the first step's weights with all that changes them.
type Ready<T> = Box<(T, Stepper<<T as Task>::Objective>)>;

/// A task of any kind.
pub(crate) enum Prepared {
    Language(Ready<Language>),
    Images(Ready<ImageTask>),
    Classify(Ready<ClassifyTask>),
    Rescoring(Ready<Rescoring>),
    Vae(Ready<VaeTask>),
}

/// What a run in the directory `out` that goes on was trained on. A corpus that is named anew lies where its name says.
pub(super) fn trained_on<'a>(
    config: &'a CorpusConfig,
    (resumed, out): (&'a Resumed, &'a Path),
) -> TrainedOn<'a> {
    let directory = if config.name == resumed.recipe.corpus.name { out } else { Path::new("") };
    TrainedOn { config, sha256: Some(&resumed.position.corpus_sha256), directory }
}

impl Request {
    /// What would be trained: from the first step on, without a directory, or as the run that would be resumed has it, which
    /// is read and not held. Fails if the recipe, its corpus or the checkpoint to begin with cannot be used.
    pub(crate) fn prepared(&self) -> Result<Prepared> {
        let (mut resolved, run, first) = self.resolve()?;
        let out = self.directory(run, &resolved);
        let resumed = if self.resume { find_state(&out, &mut resolved)? } else { None };
        self.prepare(resolved, first.as_ref(), resumed.as_ref(), (&out, None))
    }

    /// A run that begins, or goes on from `resumed` in the directory `out`; with the images of the recipe if they are open
    /// already.
    pub(super) fn prepare(
        &self,
        resolved: Resolved,
        first: Option<&First>,
        resumed: Option<&Resumed>,
        (out, images): (&Path, Option<ImageCorpus>),
    ) -> Result<Prepared> {
        if first.is_none() && resumed.is_none() {
            resolved.recipe.validate()?; // all others were, with what they took
        }
        let checkpoint = first.map(|first| &first.checkpoint);
        Ok(match resolved.recipe.task.kind {
            TaskKind::Language => {
                let task = match resumed {
                    None => self.begin(resolved, first)?,
                    Some(resumed) => self.reopen(resolved.recipe, resumed, out)?,
                };
                task.tokenizer().check_size()?;
                let stepper = task.stepper(checkpoint)?;
                Prepared::Language(Box::new((task, stepper)))
            }
            TaskKind::Images => {
                let task =
                    self.begin_images(resolved, first, resumed.map(|resumed| (resumed, out)), images)?;
                let stepper = task.stepper(checkpoint)?;
                Prepared::Images(Box::new((task, stepper)))
            }
            TaskKind::Classify => {
                let task = self.begin_classify(resolved, first, resumed.map(|resumed| (resumed, out)))?;
                task.tokenizer().check_size()?;
                let stepper = task.stepper(checkpoint)?;
                Prepared::Classify(Box::new((task, stepper)))
            }
            TaskKind::Rescore => {
                let resumed = resumed.map(|resumed| (resumed, out));
                Prepared::Rescoring(Box::new(self.begin_lists(resolved, first, resumed)?))
            }
            TaskKind::Vae => {
                let task = self.begin_vae(resolved, first, resumed.map(|resumed| (resumed, out)))?;
                task.tokenizer().check_size()?;
                let stepper = task.stepper(checkpoint)?;
                Prepared::Vae(Box::new((task, stepper)))
            }
        })
    }
}
