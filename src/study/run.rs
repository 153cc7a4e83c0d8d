//! A run's history, as its `metrics.jsonl` has it.

use super::kept::{self, Kept};
use super::measure::Item;
use crate::checkpoint;
use crate::config::{TaskKind, Unit};
use crate::error::{Error, Result};
use crate::events::{Epoch, Event, Events, Outcome, Start, Step};
use crate::hub::SCHEME;
use crate::storage::{EVALUATIONS, MANIFEST, METRICS};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

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
    /// The last step that was reported.
    pub last_step: Option<Step>,
    /// What it came to; `None` while it is not finished.
    pub result: Option<Outcome>,
    /// What `rhn eval --keep` found on the test split since, by protocol.
    pub kept: BTreeMap<String, Kept>,
    /// Whether the file's last line was half written, and left out.
    pub torn: bool,
}

/// A run that is looked at again and again; each look reads what its events have since the last.
pub(crate) struct Follower {
    events: Events,
    run: RunHistory,
    begun: bool,
    /// What the files looked like from which kept evaluations were read last: that takes reading the weights.
    kept_from: Option<[Seen; 2]>,
}

/// When a file was written last and how long it is, if it is there.
type Seen = Option<(SystemTime, u64)>;

fn seen(path: &Path) -> Seen {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl Follower {
    /// The run in a directory or at `hf://owner/name[@revision]`. Fails if the address cannot be had.
    pub(crate) fn new(argument: &Path) -> Result<Self> {
        let directory = checkpoint::resolve(argument)?;
        let address = argument.to_str().filter(|argument| argument.starts_with(SCHEME));
        let name = address.map_or_else(|| name_of(&directory), repository);
        let events = Events::of(&directory);
        Ok(Self { events, run: RunHistory::empty(name, directory), begun: false, kept_from: None })
    }

    /// The run as it is now, and whether its events were read from their begin. Fails if there is none, or its metrics are
    /// not what a run writes.
    pub(crate) fn look(&mut self) -> Result<(&RunHistory, bool)> {
        let news = self.events.look()?;
        if news.anew {
            let RunHistory { name, directory, .. } = &self.run;
            self.run = RunHistory::empty(name.clone(), directory.clone());
            self.begun = false;
            self.kept_from = None;
        }
        for event in news.events {
            self.begun |= matches!(event, Event::Start(_) | Event::Resume(_));
            self.run.observe(event);
        }
        if !self.begun {
            return Err(self.events.refuse(1, "wanted the event `start`; the run has not begun yet"));
        }
        self.run.torn = self.events.torn;
        self.run.check_protocol()?;
        let kept_from = [EVALUATIONS, MANIFEST].map(|name| seen(&self.run.directory.join(name)));
        if self.kept_from != Some(kept_from) {
            self.run.kept = kept::read(&self.run.directory);
            self.kept_from = Some(kept_from);
        }
        self.run.forget_dishonest_figures();
        Ok((&self.run, news.anew))
    }
}

impl RunHistory {
    /// Reads the run in a directory or at `hf://owner/name[@revision]`. Fails if there is none, or its
    /// metrics are not what a run writes.
    pub(crate) fn read(argument: &Path) -> Result<Self> {
        let mut follower = Follower::new(argument)?;
        follower.look()?;
        Ok(follower.run)
    }

    fn empty(name: String, directory: PathBuf) -> Self {
        Self {
            name,
            directory,
            start: Start::default(),
            epochs: vec![],
            evaluations: vec![],
            last_step: None,
            result: None,
            kept: BTreeMap::new(),
            torn: false,
        }
    }

    /// Refuses a test figure that does not compare with others: training writes those of weights that stay as they were
    /// trained and of no cache, `rhn eval` names what else there is.
    fn check_protocol(&self) -> Result<()> {
        let protocol = self.result.as_ref().and_then(|result| result.test.protocol.as_deref());
        match protocol {
            None | Some("stream" | "batched" | "images" | "classify" | "lists" | "elbo") => Ok(()),
            Some(other) => {
                let what = format!(
                    "its test figure is by the protocol {other:?}, which does not compare with the plain figures of \
                     other runs"
                );
                Err(Error::checkpoint(self.directory.join(METRICS), what))
            }
        }
    }

    /// Takes back what earlier versions divided by text that was not predicted: where the vocabulary lacked symbols, they
    /// wrote no count of characters beside the bits for each.
    fn forget_dishonest_figures(&mut self) {
        let is_text = self.is_of_running_text();
        let Some(result) = &mut self.result else { return };
        let test = &mut result.test;
        if is_text && test.words.is_none() && test.oov_tokens.is_some_and(|unseen| unseen > 0) {
            let reason =
                "written by an earlier version, over text that was not predicted; rhn eval says it anew";
            test.bits_per_char = None;
            test.bits_per_byte = None;
            test.bits_per_char_absent = Some(reason.into());
            self.epochs.iter_mut().for_each(|epoch| epoch.valid_bits_per_char = None);
        }
    }

    fn observe(&mut self, event: Event) {
        match event {
            Event::Start(start) => {
                self.start = start;
                self.result = None;
            }
            Event::Resume(start) => {
                let rows = self.epochs.iter_mut().chain(&mut self.evaluations);
                rows.for_each(|row| row.lost |= start.lost_best);
                let begun_from = start.begun_from.or(self.start.begun_from.take());
                self.start = Start { begun_from, ..start };
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
            Event::Result(result) => self.result = Some(*result),
            Event::Step(step) => self.last_step = Some(step),
            Event::Skip(_) | Event::Divergence(_) | Event::Stop(_) => {}
        }
    }

    /// What a token is, if the recipe says.
    pub(crate) fn unit(&self) -> Option<Unit> {
        Unit::deserialize(&self.start.recipe["corpus"]["unit"]).ok()
    }

    /// What it learns; runs of earlier versions, which name no task, are of running text. None if it is not known here.
    fn task(&self) -> Option<TaskKind> {
        match &self.start.recipe["task"]["kind"] {
            Value::Null => Some(TaskKind::Language),
            kind => TaskKind::deserialize(kind).ok(),
        }
    }

    /// Whether it is a language model's on running text.
    pub(crate) fn is_of_running_text(&self) -> bool {
        self.task() == Some(TaskKind::Language)
    }

    /// Whether its losses are bounds, and those in training have a part that is weighed: the KL of a sentence VAE.
    pub(crate) fn is_of_bound(&self) -> bool {
        self.task() == Some(TaskKind::Vae)
    }

    /// What its losses are of.
    pub(crate) fn item(&self) -> Item {
        match self.task() {
            Some(TaskKind::Classify) => Item::Sentence,
            Some(TaskKind::Images) => Item::Image,
            Some(TaskKind::Language | TaskKind::Rescore | TaskKind::Vae) | None => Item::Token,
        }
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

    /// The row whose model was the best on the validation split.
    pub(crate) fn best(&self) -> Option<&Epoch> {
        Epoch::best_of(self.rows().into_iter())
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
pub(super) mod tests;
