//! The numbers of a run as TensorBoard reads them, beside `metrics.jsonl` and always the same as that.
//!
//! A run that goes on writes the file anew from the events that `metrics.jsonl` still has, each at the time at which it was
//! first written: in one file that holds a step twice, one of TensorBoard's readers drops older points and the other keeps
//! both.

mod record;

use crate::error::Result;
use crate::events::{Epoch, Event, Outcome, Step, readable};
use crate::storage::TENSORBOARD;
use crate::storage::disk::{self, Growing};
use crate::train::recorder::Recorder;
use record::Scalars;
use std::collections::HashMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes a run's numbers for TensorBoard.
pub(crate) struct TensorBoard {
    file: Growing,
}

impl TensorBoard {
    /// Opens the file in `directory`, whose `metrics.jsonl` has the events that stay.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(TENSORBOARD);
        let now = now();
        let known = known_times(&std::fs::read(&path).unwrap_or_default());
        let mut bytes = record::version(now);
        for (step, values) in readable(directory).iter().filter_map(scalars) {
            let time = values.first().and_then(|(tag, _)| known.get(&(step, tag.clone())));
            bytes.extend(Scalars { wall_time: *time.unwrap_or(&now), step, values }.record());
        }
        disk::replace(&path, &bytes)?;
        Ok(Self { file: Growing::open(&path)? })
    }
}

impl Recorder for TensorBoard {
    fn record(&mut self, event: &Event) -> Result<()> {
        match scalars(event) {
            Some((step, values)) => self.file.append(&Scalars { wall_time: now(), step, values }.record()),
            None => Ok(()),
        }
    }

    fn save(&mut self, _step: u64, _files: &[(&str, Vec<u8>)]) -> Result<()> {
        self.file.sync()
    }
}

/// When each step's tag was written.
fn known_times(file: &[u8]) -> HashMap<(u64, String), f64> {
    let each = |scalars: Scalars| {
        let Scalars { wall_time, step, values } = scalars;
        values.into_iter().map(move |(tag, _)| ((step, tag), wall_time))
    };
    record::read(file).into_iter().flat_map(each).collect()
}

/// The numbers of an event that are there and finite, with its step; `None` if it has none.
fn scalars(event: &Event) -> Option<(u64, Vec<(String, f32)>)> {
    let (step, values) = match event {
        Event::Step(step) => (step.step, of_step(step)),
        Event::Evaluation(row) => (row.step, of_validation(row)),
        Event::Epoch(row) => {
            let mut values = of_validation(row);
            values.push(("epoch/train_nats_per_token", row.train_nats_per_token));
            values.push(("epoch/teacher_nats_per_token", row.teacher_nats_per_token));
            values.push(("epoch/grad_norm", row.grad_norm));
            values.push(("epoch/tokens_per_second", row.tokens_per_second));
            values.push(("epoch/epoch", Some(row.epoch as f64)));
            (row.step, values)
        }
        Event::Result(outcome) => (outcome.steps, of_test(outcome)),
        _ => return None,
    };
    let finite = |(tag, value): (&str, Option<f64>)| {
        value.filter(|value| value.is_finite()).map(|value| (tag.to_string(), value as f32))
    };
    let values: Vec<_> = values.into_iter().filter_map(finite).collect();
    (!values.is_empty()).then_some((step, values))
}

type Tagged = Vec<(&'static str, Option<f64>)>;

fn of_step(step: &Step) -> Tagged {
    vec![
        ("train/nats_per_token", step.train_nats_per_token),
        ("train/learning_rate", step.learning_rate),
        ("train/grad_norm", step.grad_norm),
    ]
}

fn of_validation(row: &Epoch) -> Tagged {
    vec![
        ("valid/nats_per_token", row.valid_nats_per_token),
        ("valid/perplexity", row.valid_perplexity),
        ("valid/bits_per_char", row.valid_bits_per_char),
        ("valid/accuracy", row.valid_accuracy),
        ("valid/reconstruction_nats", row.valid_reconstruction_nats),
        ("valid/kl_nats", row.valid_kl_nats),
        ("train/kl_weight", row.kl_weight),
        ("valid/f1", row.valid_f1),
        ("valid/word_error_rate", row.valid_word_error_rate),
        ("valid/expected_error_rate", row.valid_expected_error_rate),
    ]
}

fn of_test(outcome: &Outcome) -> Tagged {
    let test = &outcome.test;
    vec![
        ("test/nats_per_token", test.nats_per_token),
        ("test/perplexity", test.perplexity),
        ("test/bits_per_char", test.bits_per_char),
        ("test/accuracy", test.accuracy),
        ("test/f1", test.decisions.and_then(|decisions| decisions.f1)),
        ("test/word_error_rate", test.word_error_rate),
        ("test/expected_error_rate", test.expected_error_rate),
    ]
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EventLog;

    fn step(step: u64, nats: f64) -> Event {
        Event::Step(Step { step, epoch: 1, train_nats_per_token: Some(nats), ..Step::default() })
    }

    fn found(directory: &Path) -> Vec<Scalars> {
        record::read(&std::fs::read(directory.join(TENSORBOARD)).unwrap())
    }

    #[test]
    fn a_run_that_goes_on_keeps_what_its_metrics_keep_with_the_times_of_its_writing() {
        let run = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(run.path()).unwrap();
        let mut board = TensorBoard::open(run.path()).unwrap();
        for event in [step(1, 3.0), step(2, 2.0), step(3, 1.0)] {
            log.append(&event).unwrap();
            board.record(&event).unwrap();
        }
        let before = found(run.path());
        log.truncate_after(2, 0, &[]).unwrap();
        let mut board = TensorBoard::open(run.path()).unwrap();
        assert_eq!(found(run.path()), before[..2]);
        board.record(&step(3, 0.5)).unwrap();
        let after = found(run.path());
        assert_eq!(after.iter().map(|scalars| scalars.step).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(after[2].values, [("train/nats_per_token".to_string(), 0.5)]);
    }

    #[test]
    fn numbers_that_are_missing_or_not_finite_are_left_out() {
        assert_eq!(scalars(&step(7, f64::NAN)), None);
        let row = Epoch { step: 9, epoch: 2, valid_nats_per_token: Some(1.5), ..Epoch::default() };
        let evaluation = scalars(&Event::Evaluation(row)).unwrap();
        assert_eq!(evaluation, (9, vec![("valid/nats_per_token".to_string(), 1.5)]));
    }

    #[test]
    fn what_decides_a_run_on_lists_and_what_its_teacher_costs_are_there() {
        let row = Epoch {
            valid_word_error_rate: Some(0.25),
            valid_expected_error_rate: Some(0.5),
            teacher_nats_per_token: Some(2.0),
            ..Epoch::default()
        };
        let (_, values) = scalars(&Event::Epoch(row)).unwrap();
        for wanted in [
            ("valid/word_error_rate", 0.25),
            ("valid/expected_error_rate", 0.5),
            ("epoch/teacher_nats_per_token", 2.0),
        ] {
            assert!(
                values.iter().any(|(tag, value)| (tag.as_str(), *value) == wanted),
                "{wanted:?} in {values:?}"
            );
        }
    }
}
