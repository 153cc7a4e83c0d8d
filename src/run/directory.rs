//! The directory of a run as its recorder: events, training states, the best model, the result.

use crate::checkpoint::{self, Checkpoint};
use crate::console::note;
use crate::error::Result;
use crate::events::{Event, EventLog, Events, Outcome};
use crate::storage::disk;
use crate::storage::{RESULT, to_json};
use crate::train::recorder::Recorder;
use crate::train::state::Position;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A run's directory, whose lock the caller holds.
pub struct RunDirectory {
    out: PathBuf,
    log: EventLog,
}

impl RunDirectory {
    /// Opens the directory of a run that goes on from `position`, and drops the events that it will record again;
    /// without a position, those of an attempt that ended before anything was saved. Fails if its events cannot be read
    /// or written.
    pub fn open(out: &Path, position: Option<&Position>) -> Result<Self> {
        let mut log = EventLog::open(out)?;
        match position {
            Some(position) => {
                if let Err(error) = Events::of(out).look() {
                    note(&format!(
                        "{error}; until that line is removed, only training can use this run's events"
                    ));
                }
                let diverged = position.course.recorded_step;
                let kinds = [("evaluation", position.evaluated_step), ("divergence", diverged)];
                log.truncate_after(position.step, position.epoch, &kinds)?;
            }
            None => log.clear()?,
        }
        Ok(Self { out: out.to_path_buf(), log })
    }
}

impl Recorder for RunDirectory {
    /// Keeps the event; the result of a run has a file of its own as well.
    fn record(&mut self, event: &Event) -> Result<()> {
        let Event::Result(outcome) = event else { return self.log.append(event) };
        self.log.drop_result(outcome.steps)?;
        let with_step = Outcome { step: Some(outcome.steps), ..Outcome::clone(outcome) };
        self.log.append(&Event::Result(Box::new(with_step)))?;
        self.log.sync()?;
        let sorted = serde_json::to_value(outcome).expect("string keys and numbers");
        disk::replace(&self.out.join(RESULT), &to_json(&sorted)) // last: it says that the run is done
    }

    fn save(&mut self, step: u64, files: &[(&str, Vec<u8>)]) -> Result<()> {
        self.log.sync()?; // a state on the disk has its events there
        checkpoint::save(&self.out, step, files).map(drop)
    }

    fn publish(&mut self, files: &[(&str, Vec<u8>)]) -> Result<()> {
        checkpoint::publish(&self.out, files)
    }

    fn best_weights(&self) -> Result<Option<BTreeMap<String, Tensor>>> {
        Checkpoint::open(&self.out)?.tensors().map(Some)
    }
}

/// The directory of a run for a rank that leaves it to rank 0: nothing is written.
pub struct Follower {
    out: PathBuf,
}

impl Follower {
    /// Of the run in `out`.
    pub fn of(out: &Path) -> Self {
        Self { out: out.to_path_buf() }
    }
}

impl Recorder for Follower {
    fn record(&mut self, _event: &Event) -> Result<()> {
        Ok(())
    }

    fn best_weights(&self) -> Result<Option<BTreeMap<String, Tensor>>> {
        Checkpoint::open(&self.out)?.tensors().map(Some)
    }
}

/// The `result.json` in `out`, if it is there and whole.
pub fn read_result(out: &Path) -> Option<Outcome> {
    serde_json::from_slice(&std::fs::read(out.join(RESULT)).ok()?).ok()
}
