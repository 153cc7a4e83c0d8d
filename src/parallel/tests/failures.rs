//! What fails on one rank ends or is undone on all.

use super::super::group::Group;
use super::super::rows::Rows;
use super::super::world::with_common_code;
use super::{language, weights};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::model::State;
use crate::signals::Signals;
use crate::task::language::{NextToken, Window, WindowNoise};
use crate::train::limits::Limits;
use crate::train::objective::{Loss, Objective};
use crate::train::recorder::Recorder;
use crate::train::step::Stepper;
use crate::train::task::Task;
use crate::train::trainer::Trainer;
use rhn_kernels::precision::Precision;

/// A loss that one rank cannot compute in one of its steps.
struct Failing {
    of: NextToken,
    fails: bool,
}

impl Objective for Failing {
    type Batch = Window;
    type Noise = WindowNoise;

    fn zero_state(&self) -> Result<State> {
        self.of.zero_state()
    }

    fn noise(&self, batch: &Window, step: u64) -> Result<WindowNoise> {
        match self.fails && step == 2 {
            true => Err(Error::data("a shard", "cannot be read")),
            false => self.of.noise(batch, step),
        }
    }

    fn rows(&self, batch: &Window, noise: WindowNoise, rows: Rows) -> Result<(Window, WindowNoise)> {
        self.of.rows(batch, noise, rows)
    }

    fn loss(&self, batch: &Window, carried: &State, noise: &WindowNoise) -> Result<Loss> {
        self.of.loss(batch, carried, noise)
    }
}

#[test]
fn a_step_that_fails_on_one_rank_is_made_by_none() {
    let ended = Group::run_shared(3, |world| {
        let language = language(&[], Precision::F64);
        let rank = world.rank();
        let whole = language.stepper(None).unwrap();
        let Stepper { objective, parameters, update, average, .. } = whole;
        let objective = Failing { of: objective, fails: rank == 1 };
        let mut stepper = Stepper::new(objective, parameters, update, average, 5).unwrap();
        stepper.join(world.clone()).unwrap();
        let mut step = |step: u64| stepper.step(&language.batch(0, step as usize).unwrap(), step, 0.2);
        step(0).unwrap();
        step(1).unwrap();
        let error = step(2).unwrap_err();
        assert!(stepper.has_failed_together());
        let error = with_common_code(&*world, error).unwrap();
        assert_eq!(error.exit_code(), 3, "whichever ends first");
        (error.to_string(), weights(&stepper))
    });
    assert_eq!(ended[1].0, "a shard: cannot be read");
    for rank in [0, 2] {
        assert!(ended[rank].0.contains("another rank"), "{}", ended[rank].0);
        assert_eq!(ended[rank].1, ended[1].1);
    }
}

#[test]
fn a_batch_that_one_rank_cannot_read_is_a_step_that_is_made_by_none() {
    let ended = Group::run_shared(2, |world| {
        let language = language(&[], Precision::F64);
        let mut stepper = language.stepper(None).unwrap();
        stepper.join(world.clone()).unwrap();
        let before = weights(&stepper);
        let made = match world.rank() {
            1 => stepper.fail(Error::data("a shard", "is damaged")),
            _ => stepper.advance(&language.batch(0, 0).unwrap(), 0, 0.2),
        };
        let error = made.unwrap_err();
        assert!(stepper.has_failed_together());
        assert_eq!(weights(&stepper), before);
        with_common_code(&*world, error).unwrap().exit_code()
    });
    assert_eq!(ended, [3, 3]);
}

#[test]
fn a_validation_that_one_rank_breaks_off_is_broken_off_by_all() {
    let ended = Group::run_shared(2, |world| {
        let language = language(&[], Precision::F64);
        let parameters = language.first_parameters().unwrap();
        let mut calls = 0;
        let progress = &mut |_, _| {
            calls += 1;
            if calls == 2 && world.rank() == 1 { Err(Error::Stopped { code: 130 }) } else { Ok(()) }
        };
        language.validate(&parameters, &*world, progress).unwrap_err().exit_code()
    });
    assert_eq!(ended, [130, 130]);
}

/// A disk that is full from the second write of a kind on.
struct Full {
    kind: &'static str,
    written: usize,
}

impl Full {
    fn write(&mut self, kind: &str) -> Result<()> {
        self.written += usize::from(kind == self.kind);
        match self.written > 1 {
            true => Err(Error::io("the disk")(std::io::ErrorKind::StorageFull.into())),
            false => Ok(()),
        }
    }
}

impl Recorder for Full {
    fn record(&mut self, _event: &Event) -> Result<()> {
        self.write("event")
    }

    fn save(&mut self, _step: u64, _files: &[(&str, Vec<u8>)]) -> Result<()> {
        self.write("state")
    }

    fn publish(&mut self, _files: &[(&str, Vec<u8>)]) -> Result<()> {
        self.write("model")
    }
}

#[test]
fn what_the_first_rank_cannot_write_ends_all() {
    for kind in ["event", "state", "model"] {
        let ended = Group::run_shared(2, |world| {
            let language = language(&["train.evaluate_steps=3"], Precision::F64);
            let mut stepper = language.stepper(None).unwrap();
            stepper.join(world.clone()).unwrap();
            let is_full = if world.rank() == 0 { kind } else { "nothing" };
            let recorder = Box::new(Full { kind: is_full, written: 0 });
            let limits = Limits { max_steps: Some(30), time: None };
            let signals = Signals::listen().unwrap();
            let mut trainer = Trainer::new(&language, stepper, recorder, None, signals, limits).unwrap();
            let error = trainer.run().unwrap_err();
            (error.exit_code(), error.to_string())
        });
        assert_eq!(ended.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [1, 1], "{kind}");
        assert!(ended[0].1.contains("the disk") && ended[1].1.contains("another rank"), "{kind}: {ended:?}");
    }
}
