//! What a run leaves on the disk: the best model for other commands, the training state for `--resume`.

use super::schedule::RateMemory;
use super::session::Session;
use super::step::{StepReport, Stepper};
use crate::checkpoint::{
    self, CONFIG, MODEL, OPTIMIZER, RECIPE, STATE, SavedState, TOKENIZER, load_weights, parse_config,
    save_tensors,
};
use crate::config::{ModelConfig, Recipe};
use crate::data::{Encoded, Tokenizer};
use crate::error::{Error, Result};
use crate::model::{Parameters, specs};
use crate::write;
use candle_core::{DType, Device, Tensor};
use rhn_kernels::precision::Precision;
use rhn_kernels::update::squared_norm;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The version of `state.json` that this program writes, and the newest that it reads.
const FORMAT: u64 = 1;

/// Where a run is; with the tensors beside it, everything that outlives a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    format: u64,
    /// Epochs that are done.
    pub epoch: u64,
    /// Windows of the current epoch that are done.
    pub window: u64,
    /// Steps of the run that are done.
    pub step: u64,
    /// Steps among them whose update was skipped: a number was not finite.
    #[serde(default)]
    pub skipped_steps: u64,
    /// Tokens that were trained on.
    pub tokens: u64,
    /// Sums over the current epoch.
    pub epoch_sums: EpochSums,
    /// What the schedule remembers.
    pub rate: RateMemory,
    /// The best epoch so far.
    pub best: Option<Best>,
    /// Wall-clock seconds so far.
    pub seconds: f64,
    /// Updates that the optimizer has made.
    optimizer_updates: u64,
    /// Of the corpus's text.
    corpus_sha256: String,
    /// Tokens of training, validation and test split: one text can be split in several ways.
    split_tokens: [u64; 3],
    /// What the weights are made of.
    precision: String,
}

/// Sums over the steps of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochSums {
    /// −ln p over the tokens.
    pub nats: f64,
    /// Tokens.
    pub tokens: u64,
    /// Gradient norms over the steps.
    pub grad_norms: f64,
    /// Steps.
    pub steps: u64,
}

impl EpochSums {
    /// Adds a step.
    pub fn add(&mut self, report: &StepReport) {
        self.nats += report.nats;
        self.tokens += report.tokens;
        self.grad_norms += report.grad_norm;
        self.steps += 1;
    }
}

/// The best epoch on the validation split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Counted from 1.
    pub epoch: u64,
    /// By the `batched` protocol.
    pub valid_nats_per_token: f64,
}

impl Position {
    /// Before the first step of a run.
    pub fn first(session: &Session) -> Self {
        Self {
            format: FORMAT,
            epoch: 0,
            window: 0,
            step: 0,
            skipped_steps: 0,
            tokens: 0,
            epoch_sums: EpochSums::default(),
            rate: RateMemory::default(),
            best: None,
            seconds: 0.0,
            optimizer_updates: 0,
            corpus_sha256: session.corpus_sha256.clone(),
            split_tokens: split_tokens(session),
            precision: session.precision.as_str().into(),
        }
    }
}

/// A training state that was found whole and understood.
pub struct Resumed {
    /// Where the run was.
    pub position: Position,
    /// How it was asked for.
    pub recipe: Recipe,
    /// The vocabulary that the run began with.
    pub tokenizer: Tokenizer,
    model: ModelConfig,
    weights: BTreeMap<String, Tensor>,
    /// Moments and the lanes' state.
    remembered: BTreeMap<String, Tensor>,
    path: PathBuf,
}

impl Resumed {
    /// The newest training state in `out` that is whole and understood; those passed over are told to `tell`.
    ///
    /// # Errors
    /// If there are states and none will do, or one is of a later version of this program.
    pub fn find(out: &Path, tell: impl Fn(&str)) -> Result<Option<Self>> {
        let Some(found) = checkpoint::load_newest(out, |state| Self::read(&state))? else { return Ok(None) };
        for rejected in &found.rejected {
            tell(&format!("passed over {}: {}", rejected.path.display(), rejected.error));
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
        // Of any other precision the weights are single; that it is the one asked for is checked with the session.
        let double = position.precision == Precision::F64.as_str();
        let dtype = if double { DType::F64 } else { DType::F32 };
        let weights = load_weights(&path(MODEL), state.bytes(MODEL)?, &specs, dtype, &Device::Cpu)?;
        let remembered = state.tensors(OPTIMIZER, &Device::Cpu)?;
        check_finite(&path(OPTIMIZER), &remembered)?;
        let tokenizer = Tokenizer::parse(&path(TOKENIZER), state.bytes(TOKENIZER)?)?;
        Ok(Self { position, recipe, tokenizer, model, weights, remembered, path: state.path.clone() })
    }

    /// Refuses to go on with other settings that matter; shows the difference.
    pub fn check_settings(&self, recipe: &Recipe) -> Result<()> {
        let differences = differences(&self.recipe, recipe);
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::config(format!(
            "--resume: the run in this directory has other settings: {}. Give the same; or begin another run with \
             another --out, from these weights with --init-from",
            differences.join("; ")
        )))
    }

    /// Refuses to go on with another text, or in another precision.
    pub fn check_session(&self, session: &Session) -> Result<()> {
        let position = &self.position;
        let refuse = |what: String| Err(Error::config(format!("--resume: the run was {what}")));
        if position.corpus_sha256 != session.corpus_sha256 {
            let (was, is) = (&position.corpus_sha256, &session.corpus_sha256);
            return refuse(format!("on a text with SHA-256 {was}, {} has {is}", session.corpus));
        }
        let (was, is) = (position.split_tokens, split_tokens(session));
        if was != is {
            return refuse(format!("on splits of {was:?} tokens, {} has {is:?}", session.corpus));
        }
        match session.precision.as_str() {
            is if is == position.precision => Ok(()),
            is => refuse(format!("with --precision {}, this is {is}", position.precision)),
        }
    }

    /// Puts weights, moments and the lanes' state back.
    ///
    /// # Errors
    /// If one is missing or of another shape; names the file.
    pub fn restore(&self, session: &Session, stepper: &mut Stepper) -> Result<()> {
        if self.model != session.model {
            return Err(Error::checkpoint(self.path.join(CONFIG), "is of another model than the recipe's"));
        }
        let optimizer = self.path.join(OPTIMIZER);
        let name_file = |error: Error| Error::checkpoint(&optimizer, error.to_string());
        stepper.parameters.restore(&self.weights)?;
        let (updates, skipped) = (self.position.optimizer_updates, self.position.skipped_steps);
        stepper.optimizer.load(updates, &self.remembered).map_err(name_file)?;
        stepper.ledger.begin(updates, session.may_skip(skipped))?;
        stepper.state = stepper.state.load(&self.remembered).map_err(name_file)?;
        Ok(())
    }
}

/// The position in a state, if it is of a format that is known.
fn read_position(state: &SavedState) -> Result<Position> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    let Format { format } = state.json(STATE)?;
    checkpoint::check_format(&state.path.join(STATE), format, FORMAT)?;
    state.json(STATE)
}

fn check_finite(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    for (name, tensor) in tensors {
        if !squared_norm(tensor, tensor, 0.0)?.is_finite() {
            return Err(Error::checkpoint(path, format!("tensor {name:?} is not finite")));
        }
    }
    Ok(())
}

fn split_tokens(session: &Session) -> [u64; 3] {
    let tokens = |text: &Encoded| text.tokens.len() as u64;
    [tokens(&session.train), tokens(&session.valid), session.test.as_ref().map_or(0, tokens)]
}

/// Settings that may change between a stop and a resume: when to stop, when to save, and where the same text lies.
const FREE: [&str; 7] = [
    "train.patience",
    "train.save_minutes",
    "train.epochs",
    "train.on_non_finite",
    "train.max_skipped_steps",
    "corpus.name",
    "corpus.tokenizer",
];

/// What differs between two recipes, as `key was a, is b`. More epochs are free unless the rate depends on them.
fn differences(was: &Recipe, is: &Recipe) -> Vec<String> {
    let (was_leaves, is_leaves) = (was.leaves(), is.leaves());
    let cosine = matches!(was.train.schedule, crate::config::train::Schedule::Cosine(_));
    let keys: std::collections::BTreeSet<&String> = was_leaves.keys().chain(is_leaves.keys()).collect();
    let matters =
        |key: &&&String| !FREE.contains(&key.as_str()) || (cosine && key.as_str() == "train.epochs");
    let show = |value: Option<&String>| value.cloned().unwrap_or_else(|| "unset".into());
    keys.iter()
        .filter(matters)
        .filter(|key| was_leaves.get(**key) != is_leaves.get(**key))
        .map(|key| format!("{key} was {}, is {}", show(was_leaves.get(*key)), show(is_leaves.get(*key))))
        .collect()
}

/// The files of the checkpoint that other commands load.
pub fn published_files(session: &Session, parameters: &Parameters) -> Result<Vec<(&'static str, Vec<u8>)>> {
    Ok(vec![
        (checkpoint::CONFIG, to_json(&session.model)),
        (MODEL, save_tensors(&parameters.tensors())?),
        (TOKENIZER, session.tokenizer.to_json().into_bytes()),
        (RECIPE, session.recipe.to_toml().into_bytes()),
    ])
}

/// Saves the training state: all that is published, and what only a resumed run needs.
pub fn save(out: &Path, session: &Session, stepper: &Stepper, position: &mut Position) -> Result<()> {
    let (updates, mut remembered) = stepper.optimizer.save();
    position.optimizer_updates = updates;
    remembered.extend(
        stepper.state.save().into_iter().map(|(name, tensor): (String, Tensor)| (name, tensor.detach())),
    );
    // What would be refused when it is read is not written in place of what would not.
    check_finite(Path::new(OPTIMIZER), &remembered).map_err(|error| {
        let what = format!("{error}; the last saved state is kept");
        Error::NotFinite { step: position.step, what }
    })?;
    let mut files = published_files(session, &stepper.parameters)?;
    files.push((OPTIMIZER, save_tensors(&remembered)?));
    files.push((STATE, to_json(position)));
    checkpoint::save(out, position.step, &files)?;
    Ok(())
}

/// What `result.json` says, if it is there and whole.
pub fn read_result(out: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&std::fs::read(out.join(checkpoint::RESULT)).ok()?).ok()
}

/// Writes `result.json`.
pub fn write_result(out: &Path, result: &serde_json::Value) -> Result<()> {
    write::replace(&out.join(checkpoint::RESULT), &to_json(result))
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("string keys and finite numbers");
    text.push(b'\n');
    text
}
