//! A run that is ready, to its end or until it is stopped.

use super::tensorboard::TensorBoard;
use super::{Follower, Run, RunDirectory, directory};
use crate::checkpoint::Checkpoint;
use crate::config::TrainConfig;
use crate::config::train::Schedule;
use crate::error::{Error, Result};
use crate::events::Outcome;
use crate::parallel::world::agree;
use crate::signals::Signals;
use crate::storage::TENSORBOARD;
use crate::train::limits::Stop;
use crate::train::recorder::Recorder;
use crate::train::resume::Resumed;
use crate::train::state::Position;
use crate::train::task::Task;
use crate::train::trainer::Trainer;
use std::path::Path;

/// How a run ended in this process.
pub(crate) enum Ended {
    /// It is finished, and was so before.
    Before(Outcome, Finish),
    Finished(Outcome),
    /// It is trained, and a signal with this exit code came before its test was done, or with 0 the end of its time.
    Untested(u8),
    Stopped(Stop),
    /// It is trained, and rank 0 tests it.
    Followed,
}

/// Why a run is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Epochs that are done, and that were asked for.
    pub epochs: [u64; 2],
    /// `train.patience`, if it is used up.
    pub patience: Option<u64>,
    /// Whether the rate depends on the number of epochs, so that no more of them can be had.
    pub is_bound: bool,
    /// Whether `train.averaging.from_start` ended it: the validation loss no longer falls.
    pub no_longer_falls: bool,
}

/// Why a run at `position` is finished.
fn finish(position: &Position, config: &TrainConfig) -> Finish {
    let waited = position.best.as_ref().map_or(0, |best| best.waited(position.epoch));
    Finish {
        epochs: [position.epoch, config.epochs],
        patience: Some(config.patience).filter(|&patience| patience > 0 && waited >= patience),
        is_bound: matches!(config.schedule, Schedule::Cosine(_)),
        no_longer_falls: position.averaging.is_over(),
    }
}

impl<T: Task> Run<T> {
    /// How many numbers the model has, and how many of them this training changes.
    pub(crate) fn parameters(&self) -> [u64; 2] {
        let parameters = &self.stepper.parameters;
        [parameters.count(), parameters.updated_count()]
    }

    /// Trains to the recipe's end or a limit, and measures the test split with the best weights. Fails if a number is
    /// not finite, or something cannot be written.
    pub(crate) fn train(self, screen: Box<dyn Recorder>, signals: Signals) -> Result<Ended> {
        let Self { task, out, resumed, stepper, limits, tensorboard, lock: _lock } = self;
        let world = stepper.world().clone();
        let leads = world.rank() == 0;
        let with_tensorboard = tensorboard || out.join(TENSORBOARD).exists();
        let recorders = match leads {
            true => recorders(&out, resumed.as_ref(), screen, with_tensorboard),
            false => Ok(vec![Box::new(Follower::of(&out)) as Box<dyn Recorder>]),
        };
        let trainer = recorders.and_then(|recorders| {
            Trainer::new(&task, stepper, Box::new(recorders), resumed.as_ref(), signals, limits)
        });
        let mut trainer = agree(&*world, trainer)?;
        let steps = trainer.position().step;
        let has_model = resumed.as_ref().is_none_or(|resumed| !resumed.lost_best);
        let before = directory::read_result(&out).filter(|result| has_model && result.steps == steps);
        if let Some(outcome) = before.filter(|_| trainer.is_over()) {
            task.parameters_of(&Checkpoint::open(&out)?)?; // "the model is in …" is said of one that is whole
            return Ok(Ended::Before(outcome, finish(trainer.position(), &task.recipe().train)));
        }
        if let Some(stop) = trainer.run()? {
            return Ok(Ended::Stopped(stop));
        }
        if !leads {
            return Ok(Ended::Followed);
        }
        let best = task.parameters_of(&Checkpoint::open(&out)?)?;
        match trainer.test(&best) {
            Ok(outcome) => Ok(Ended::Finished(outcome)),
            Err(Error::Stopped { code }) => Ok(Ended::Untested(code)),
            Err(error) => Err(error),
        }
    }
}

/// What records a run that writes into `out`.
fn recorders(
    out: &Path,
    resumed: Option<&Resumed>,
    screen: Box<dyn Recorder>,
    with_tensorboard: bool,
) -> Result<Vec<Box<dyn Recorder>>> {
    let directory = RunDirectory::open(out, resumed.map(|resumed| &resumed.position))?;
    let mut recorders: Vec<Box<dyn Recorder>> = vec![Box::new(directory), screen];
    if with_tensorboard {
        recorders.push(Box::new(TensorBoard::open(out)?));
    }
    Ok(recorders)
}
