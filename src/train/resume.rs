//! Going on with a run: the newest state that is whole, and what may not have changed since.

use super::objective::Objective;
use super::state::{FORMAT, Position, check_finite};
use super::step::Stepper;
use super::task::Task;
use super::update::Saved;
use crate::checkpoint::{self, SavedState, parse_config};
use crate::config::train::Schedule;
use crate::config::{ModelConfig, Recipe, Resolved};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::model::specs;
use crate::storage::{CONFIG, MODEL, OPTIMIZER, RECIPE, STATE, TOKENIZER, load_weights};
use candle_core::{DType, Device, Tensor};
use rhn_kernels::precision::Precision;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A training state that was found whole and understood.
pub struct Resumed {
    /// The position that the run had.
    pub position: Position,
    /// How it was asked for.
    pub recipe: Recipe,
    /// The vocabulary that the run began with.
    pub tokenizer: Tokenizer,
    /// Whether the best model so far is lost: then the position has none.
    pub lost_best: bool,
    model: ModelConfig,
    weights: BTreeMap<String, Tensor>,
    /// The update rule's memory and the carried state.
    remembered: BTreeMap<String, Tensor>,
    path: PathBuf,
}

impl Resumed {
    /// The newest training state in `out` that is whole and understood; each one passed over is named to `report`.
    ///
    /// # Errors
    /// If there are states and none will do, or one is of a later version of this program.
    pub fn find(out: &Path, report: impl Fn(&str)) -> Result<Option<Self>> {
        let Some(found) = checkpoint::load_newest(out, |state| Self::read(&state))? else { return Ok(None) };
        for rejected in &found.rejected {
            report(&format!("passed over {}: {}", rejected.path.display(), rejected.error));
        }
        Ok(Some(found.state))
    }

    fn read(state: &SavedState) -> Result<Self> {
        let path = |name: &str| state.path.join(name);
        let position = read_position(state)?;
        let text = std::str::from_utf8(state.bytes(RECIPE)?);
        let text = text.map_err(|error| Error::checkpoint(path(RECIPE), error.to_string()))?;
        let recipe = Recipe::parse(text, Path::new(RECIPE))
            .map_err(|error| Error::checkpoint(path(RECIPE), error.to_string()))?;
        let model = parse_config(&path(CONFIG), state.bytes(CONFIG)?)?;
        let specs = specs(&model)?;
        // Of any other precision the weights are single; that it is the one asked for is checked with the task.
        let double = position.precision == Precision::F64.as_str();
        let types = recipe.train.tables.types(if double { DType::F64 } else { DType::F32 });
        let weights = load_weights(&path(MODEL), state.bytes(MODEL)?, &specs, types, &Device::Cpu)?;
        let remembered = state.tensors(OPTIMIZER, &Device::Cpu)?;
        check_finite(&path(OPTIMIZER), &remembered)?;
        let tokenizer = Tokenizer::parse(&path(TOKENIZER), state.bytes(TOKENIZER)?)?;
        let path = state.path.clone();
        Ok(Self { position, recipe, tokenizer, lost_best: false, model, weights, remembered, path })
    }

    /// Takes over what the run was made to fit when it began, then refuses to go on with other settings that matter;
    /// shows the difference.
    pub fn check_settings(&self, resolved: &mut Resolved) -> Result<()> {
        let is_moved = |key: &&str| FREE.contains(key) && resolved.is_set(key); // the same thing under another name
        let taken = self.position.taken.iter().map(String::as_str).filter(|key| !is_moved(key));
        let taken: Vec<&str> = taken.collect();
        if resolved.conflicts(&taken, &self.recipe).is_empty() {
            resolved.take(&taken, &self.recipe)?;
        }
        let differences = differences(&self.recipe, &resolved.recipe);
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::config(format!(
            "--resume: the run in this directory has other settings: {}. Give the same; or begin another run with \
             another --out, from these weights with --init-from",
            differences.join("; ")
        )))
    }

    /// Refuses to go on with the corpus `name` if its SHA-256 is another than the run's.
    pub(crate) fn check_corpus(&self, name: &str, sha256: &str) -> Result<()> {
        let own = &self.position.corpus_sha256;
        if own == sha256 {
            return Ok(());
        }
        let what = format!(
            "is another text than the run's: its SHA-256 is {sha256}, the run was begun on {own}; --resume goes on with that \
             one alone, --init-from begins another run with its weights"
        );
        Err(Error::data(name, what))
    }

    /// Refuses to go on with another text, or in another precision.
    pub fn check_task(&self, task: &impl Task) -> Result<()> {
        let position = &self.position;
        let data = task.data();
        let refuse = |what: String| Err(Error::config(format!("--resume: the run was {what}")));
        self.check_corpus(data.corpus, data.sha256)?;
        if position.split_tokens != data.tokens {
            let was = position.split_tokens;
            return refuse(format!("on splits of {was:?} tokens, {} has {:?}", data.corpus, data.tokens));
        }
        let teachers = task.teachers();
        if position.teachers != teachers {
            let named = |digests: &[String]| match digests {
                [] => "none".into(),
                digests => digests.join(" and "),
            };
            let [was, is] = [&position.teachers, &teachers].map(|digests| named(digests));
            return refuse(format!("taught by weights with SHA-256 {was}, train.loss.teacher has {is}"));
        }
        match task.precision().as_str() {
            is if is == position.precision => Ok(()),
            is => refuse(format!("with --precision {}, this is {is}", position.precision)),
        }
    }

    /// Puts weights, moments and the carried state back.
    ///
    /// # Errors
    /// If one is missing or of another shape; names the file.
    pub fn restore<T: Task>(&self, task: &T, stepper: &mut Stepper<T::Objective>) -> Result<()> {
        if &self.model != task.model() {
            return Err(Error::checkpoint(self.path.join(CONFIG), "is of another model than the recipe's"));
        }
        let optimizer = self.path.join(OPTIMIZER);
        stepper.parameters.restore(&self.weights).map_err(Error::in_file(self.path.join(MODEL)))?;
        let Position { optimizer_updates: updates, skipped_steps: skipped, .. } = self.position;
        let left_out = self.position.left_out.clone();
        let saved = Saved { updates, left_out, tensors: self.remembered.clone() };
        stepper.update.load(saved, skipped).map_err(Error::in_file(&optimizer))?;
        let averaging = self.position.averaging.clone();
        let averaged = stepper.average.load(averaging, &self.remembered, &stepper.parameters);
        averaged.map_err(Error::in_file(&optimizer))?;
        let carried =
            stepper.objective.zero_state()?.load(&self.remembered).map_err(Error::in_file(&optimizer))?;
        if let Some(layout) = &self.position.ranks {
            stepper.set_layout(layout.clone());
        }
        stepper.set_whole_state(&carried)
    }
}

/// The position in a state, if it is of a format that is known.
fn read_position(state: &SavedState) -> Result<Position> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    let Format { format } = state.json(STATE)?;
    crate::storage::check_format(&state.path.join(STATE), format, FORMAT)?;
    state.json(STATE)
}

/// Settings that may change between a stop and a resume: when to stop, to validate and to save, and where the same
/// text and the same teachers lie.
const FREE: [&str; 14] = [
    "train.evaluate_steps",
    "train.patience",
    "train.save_minutes",
    "train.epochs",
    "train.on_non_finite",
    "train.max_skipped_steps",
    "train.on_divergence",
    "train.max_rollbacks",
    "train.min_epoch_steps",
    "corpus.name",
    "corpus.tokenizer",
    "train.loss.teacher",
    "corpus.vocabulary",
    "corpus.cache",
];

/// What differs between two recipes, as `key was a, is b`. More epochs are free unless the rate depends on them.
fn differences(was: &Recipe, is: &Recipe) -> Vec<String> {
    let was_leaves = was.leaves();
    let is_leaves = is.leaves();
    let cosine = matches!(was.train.schedule, Schedule::Cosine(_));
    let keys: BTreeSet<&String> = was_leaves.keys().chain(is_leaves.keys()).collect();
    let matters =
        |key: &&&String| !FREE.contains(&key.as_str()) || (cosine && key.as_str() == "train.epochs");
    let show = |value: Option<&String>| value.cloned().unwrap_or_else(|| "unset".into());
    keys.iter()
        .filter(matters)
        .filter(|key| was_leaves.get(**key) != is_leaves.get(**key))
        .map(|key| format!("{key} was {}, is {}", show(was_leaves.get(*key)), show(is_leaves.get(*key))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::FREE;
    use crate::config::Resolved;

    #[test]
    fn every_key_that_may_change_is_a_key_of_a_recipe() {
        let leaves = |set: &str| {
            let cache = "corpus.cache=\"some\"".to_string();
            Resolved::new("ptb-rhn", &[set.to_string(), cache]).unwrap().recipe.leaves()
        };
        let sets = [
            r#"corpus.tokenizer="some.json""#,
            r#"corpus.vocabulary="some""#,
            r#"train.loss={kind="distill",teacher="some"}"#,
        ];
        let leaves: std::collections::BTreeMap<_, _> = sets.into_iter().flat_map(leaves).collect();
        for key in FREE {
            assert!(leaves.contains_key(key), "no recipe has the key {key}");
        }
    }
}
