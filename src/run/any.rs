//! A run of any task, as it is before its kind matters.

use super::{Run, location};
use crate::error::{Error, Result};
use crate::parallel::world::{World, agree};
use crate::task::classify::ClassifyTask;
use crate::task::images::ImageTask;
use crate::task::language::Language;
use crate::task::rescore::Rescoring;
use crate::task::vae::VaeTask;
use crate::train::state::Position;
use crate::train::task::{Data, Task};
use std::path::Path;
use std::sync::Arc;

/// A run of any task.
pub(crate) enum AnyRun {
    Language(Box<Run<Language>>),
    Images(Box<Run<ImageTask>>),
    Classify(Box<Run<ClassifyTask>>),
    Rescoring(Box<Run<Rescoring>>),
    Vae(Box<Run<VaeTask>>),
}

/// What `$does` gives of the run, of whichever task it is.
macro_rules! of_any {
    ($any:expr, $run:ident => $does:expr) => {
        match $any {
            AnyRun::Language($run) => $does,
            AnyRun::Images($run) => $does,
            AnyRun::Classify($run) => $does,
            AnyRun::Rescoring($run) => $does,
            AnyRun::Vae($run) => $does,
        }
    };
}

impl AnyRun {
    pub(super) fn out(&self) -> &Path {
        of_any!(self, run => &run.out)
    }

    /// What it learns from.
    pub(super) fn data(&self) -> Data<'_> {
        of_any!(self, run => run.task.data())
    }

    /// Where it goes on.
    pub(super) fn position(&self) -> Option<&Position> {
        of_any!(self, run => run.resumed.as_ref()).map(|resumed| &resumed.position)
    }

    /// Becomes one rank of several.
    pub(super) fn join(&mut self, world: Arc<dyn World>) -> Result<()> {
        of_any!(self, run => run.stepper.join(world))
    }

    /// Holds the directory, which is made if it is not there.
    pub(super) fn hold(&mut self) -> Result<()> {
        of_any!(self, run => {
            if run.lock.is_none() {
                run.lock = Some(location::hold(&run.out, false)?);
            }
        });
        Ok(())
    }

    /// Fails if the ranks are to go on from different states, or read different texts; rank 0 says so.
    pub(super) fn check_same(&self, world: &dyn World) -> Result<()> {
        let step = self.position().map_or(0, |position| position.step);
        let Data { corpus, sha256, tokens } = self.data();
        let text = format!("{sha256} {tokens:?}");
        let ranks = world.gather([&step.to_le_bytes()[..], text.as_bytes()].concat())?;
        let other = ranks.iter().position(|other| *other != ranks[0]).filter(|_| world.rank() == 0);
        let own = other.map_or(Ok(()), |rank| {
            let same = "than rank 0; all ranks must see the same files";
            Err(match ranks[rank].starts_with(&ranks[0][..size_of_val(&step)]) {
                true => Error::data(corpus, format!("rank {rank} reads another text there {same}")),
                false => {
                    Error::checkpoint(self.out(), format!("rank {rank} finds another state there {same}"))
                }
            })
        });
        agree(world, own)
    }
}
