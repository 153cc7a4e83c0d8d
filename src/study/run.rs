//! A run's history, as its `metrics.jsonl` has it.

use crate::checkpoint;
use crate::config::Unit;
use crate::error::Result;
use crate::events::{Epoch, Event, Events, Outcome, Start};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The history of a run that is live, stopped or finished.
#[derive(Clone, Debug)]
pub(crate) struct RunHistory {
    /// What pictures and tables call it: its directory's name unless it is labelled.
    pub name: String,
    pub directory: PathBuf,
    /// What it was when it last began or went on.
    pub start: Start,
    /// Its rows, an epoch each.
    pub epochs: Vec<Epoch>,
    /// What was measured within epochs, where the run asked for it.
    pub evaluations: Vec<Epoch>,
    /// What it came to; `None` while it is not finished.
    pub result: Option<Outcome>,
    /// Whether the file's last line was half written, and left out.
    pub torn: bool,
}

impl RunHistory {
    /// Reads the run in a directory or at `hf://owner/name[@revision]`. Fails if there is none, or its
    /// metrics are not what a run writes.
    pub(crate) fn read(argument: &str) -> Result<Self> {
        let directory = checkpoint::resolve(argument)?;
        let name = if argument.starts_with("hf://") { repository(argument) } else { name_of(&directory) };
        let events = Events::read(&directory)?;
        let mut run = Self {
            name,
            directory,
            start: Start::default(),
            epochs: vec![],
            evaluations: vec![],
            result: None,
            torn: events.torn,
        };
        let mut begun = false;
        for event in events.typed()? {
            begun |= matches!(event, Event::Start(_) | Event::Resume(_));
            run.observe(event);
        }
        if begun {
            Ok(run)
        } else {
            Err(events.refuse(1, "wanted the event `start`; the run has not begun yet"))
        }
    }

    fn observe(&mut self, event: Event) {
        match event {
            Event::Start(start) | Event::Resume(start) => {
                self.start = start;
                self.result = None;
            }
            Event::Epoch(epoch) => {
                self.epochs.retain(|before| before.epoch < epoch.epoch); // what a resumed run did again
                self.epochs.push(epoch);
                self.result = None;
            }
            Event::Evaluation(row) => {
                self.evaluations.retain(|before| before.step < row.step);
                self.evaluations.push(row);
                self.result = None;
            }
            Event::Result(result) => self.result = Some(result),
            Event::Step(_) | Event::Skip(_) | Event::Divergence(_) | Event::Stop(_) => {}
        }
    }

    /// What a token is, if the recipe says.
    pub(crate) fn unit(&self) -> Option<Unit> {
        Unit::deserialize(&self.start.recipe["corpus"]["unit"]).ok()
    }

    pub(crate) fn epochs_asked(&self) -> Option<u64> {
        self.start.recipe["train"]["epochs"].as_u64()
    }

    /// All rows in the order of their steps, those within epochs among them.
    pub(crate) fn rows(&self) -> Vec<&Epoch> {
        let mut rows: Vec<&Epoch> = self.epochs.iter().chain(&self.evaluations).collect();
        rows.sort_by_key(|row| row.step);
        rows
    }

    /// The row with the least loss on the validation split.
    pub(crate) fn best(&self) -> Option<&Epoch> {
        let rows = self.rows().into_iter();
        let measured = rows.filter_map(|row| Some((row.valid_nats_per_token?, row)));
        measured.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, epoch)| epoch)
    }

    /// Wall-clock seconds so far.
    pub(crate) fn seconds(&self) -> Option<f64> {
        let total = self.result.as_ref().and_then(|result| result.seconds_total);
        total.or_else(|| self.epochs.last()?.seconds)
    }
}

/// `name` of `hf://owner/name@revision`.
fn repository(address: &str) -> String {
    let path = address.split('@').next().unwrap_or(address);
    path.rsplit('/').next().unwrap_or(path).to_string()
}

/// A directory's last name, also where it is written as `.` or `..`.
fn name_of(directory: &Path) -> String {
    let whole = directory.canonicalize().unwrap_or_else(|_| directory.to_path_buf());
    whole.file_name().map_or_else(|| whole.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Gives runs whose directories have the same name longer ones: as many of their paths' parts as it takes.
pub(crate) fn distinguish(runs: &mut [RunHistory]) {
    let deepest = runs.iter().map(|run| run.directory.components().count()).max().unwrap_or(0);
    for parts in 2..=deepest {
        let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
        let shared = |name: &String| names.iter().filter(|other| *other == name).count() > 1;
        for run in runs.iter_mut().filter(|run| shared(&run.name)) {
            let all: Vec<_> = run.directory.components().collect();
            let last: PathBuf = all[all.len().saturating_sub(parts)..].iter().collect();
            run.name = last.display().to_string();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{RunHistory, distinguish};
    use crate::storage::METRICS;
    use serde_json::{Value, json};
    use std::path::Path;

    pub(in crate::study) fn start(seed: u64) -> Value {
        json!({"event": "start", "step": 0, "corpus": "ptb", "corpus_sha256": "ab", "parameters": 1000, "version": "1",
               "recipe": {"corpus": {"unit": "word"}, "train": {"epochs": 3, "seed": seed}}})
    }

    pub(in crate::study) fn epoch(number: u64, nats: f64) -> Value {
        json!({"event": "epoch", "epoch": number, "step": 10 * number, "tokens": 700 * number, "seconds": 60.0 * number as f64,
               "train_nats_per_token": nats + 0.5, "valid_nats_per_token": nats, "valid_bits_per_char": nats / 4.0,
               "tokens_per_second": 1500.0})
    }

    pub(in crate::study) fn result(nats: f64) -> Value {
        json!({"event": "result", "nats_per_token": nats, "bits_per_char": nats / 4.0, "seconds_total": 200.0})
    }

    pub(in crate::study) fn read(name: &str, events: &[Value]) -> RunHistory {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join(name), events);
        RunHistory::read(folder.path().join(name).to_str().unwrap()).unwrap()
    }

    fn write(directory: &Path, events: &[Value]) {
        std::fs::create_dir_all(directory).unwrap();
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        std::fs::write(directory.join(METRICS), lines).unwrap();
    }

    #[test]
    fn a_run_is_finished_once_its_result_is_the_last_word() {
        let mut events = vec![start(1), epoch(1, 5.0), epoch(2, 4.5), epoch(3, 4.6)];
        assert!(read("run", &events).result.is_none());
        events.push(result(4.4));
        let run = read("run", &events);
        assert_eq!((run.name.as_str(), run.best().unwrap().epoch, run.epochs_asked()), ("run", 2, Some(3)));
        assert_eq!(run.result.unwrap().test.nats_per_token, Some(4.4));
        let mut resume = start(1); // for more epochs
        resume["event"] = "resume".into();
        events.push(resume);
        assert!(read("run", &events).result.is_none());
    }

    #[test]
    fn an_epoch_that_was_lived_twice_counts_once() {
        let run = read("run", &[start(1), epoch(1, 5.0), epoch(2, 4.0), epoch(2, 4.5)]);
        assert_eq!(run.epochs.iter().map(|epoch| epoch.epoch).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(run.best().unwrap().valid_nats_per_token, Some(4.5));
    }

    #[test]
    fn the_best_row_may_be_one_within_an_epoch() {
        let mut within = epoch(2, 3.5);
        within["event"] = "evaluation".into();
        within["step"] = 15.into();
        let run = read("run", &[start(1), epoch(1, 5.0), within.clone(), within, epoch(2, 4.0)]);
        assert_eq!(run.rows().iter().map(|row| row.step).collect::<Vec<_>>(), [10, 15, 20]);
        let best = run.best().unwrap();
        assert_eq!((best.epoch, best.step, run.epochs.len()), (2, 15, 2));
    }

    #[test]
    fn a_loss_that_was_not_finite_is_not_the_best() {
        let mut broken = epoch(2, 1.0);
        broken["valid_nats_per_token"] = Value::Null; // as JSON has it
        assert_eq!(read("run", &[start(1), epoch(1, 5.0), broken]).best().unwrap().epoch, 1);
    }

    #[test]
    fn runs_of_the_same_name_are_distinguished_by_their_paths() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a/run", "b/run", "c/other"].map(|name| folder.path().join(name));
        paths.iter().for_each(|path| write(path, &[start(1)]));
        let mut runs = paths.map(|path| RunHistory::read(path.to_str().unwrap()).unwrap());
        distinguish(&mut runs);
        assert_eq!(runs.each_ref().map(|run| run.name.as_str()), ["a/run", "b/run", "other"]);
    }
}
