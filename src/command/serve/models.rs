//! The models that are served, by name; each is loaded when it is first asked for.

use super::super::args::DeviceArgs;
use super::super::output::note;
use super::Limits;
use super::failure::Failure;
use super::metrics::Metrics;
use super::pool::{Loading, Model, Pool};
use crate::checkpoint::{is_exported, no_language_model, parse_config};
use crate::error::{Error, Result};
use crate::storage::{CONFIG, METRICS, MODEL};
use hyper::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// How deep below `--runs` a checkpoint may lie.
const DEPTH: usize = 4;

/// How many names of checkpoints that are not served a message has.
const SHOWN: usize = 5;

/// The models of a server.
pub(super) struct Models {
    entries: BTreeMap<String, Arc<Entry>>,
    /// The model of a request that names none.
    default: Option<String>,
    /// The checkpoint of the command line, which stays loaded.
    checkpoint: Option<(String, Arc<Model>)>,
    /// Those below `--runs`.
    pool: Arc<Pool>,
    /// Of those who wait for a model to be loaded one holds a thread, so that requests can still be read.
    turn: tokio::sync::Mutex<()>,
}

struct Entry {
    path: PathBuf,
    created: u64,
}

impl Models {
    /// The checkpoint, which is loaded at once, and those below `runs`. Fails if the checkpoint is refused, the directory
    /// cannot be read, or there is no model at all.
    pub(super) fn open(
        checkpoint: Option<&Path>,
        runs: Option<&Path>,
        device: &DeviceArgs,
        limits: &Arc<Limits>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self> {
        let loading = Loading { device: device.clone(), limits: limits.clone(), metrics: metrics.clone() };
        let pool = Arc::new(Pool::new(limits.models, loading));
        let mut models = Self {
            entries: BTreeMap::new(),
            default: None,
            checkpoint: None,
            pool,
            turn: Default::default(),
        };
        if let Some(runs) = runs {
            let mut others = Vec::new();
            models.find(runs, runs, 0, &mut others)?;
            others.sort();
            if models.entries.is_empty() && checkpoint.is_none() {
                let what = match others.len() {
                    0 => "no checkpoint lies below it".into(),
                    _ => format!("none of the checkpoints below it is a language model: {}", some(&others)),
                };
                return Err(Error::data(runs, what));
            }
            if !others.is_empty() {
                note(&format!(
                    "not served, since they are no language models, from {}: {}",
                    runs.display(),
                    some(&others)
                ));
            }
        }
        if let Some(path) = checkpoint {
            let name = name_of(path);
            if let (Some(runs), Some(_)) =
                (runs, models.entries.get(&name).filter(|entry| !is_same(&entry.path, path)))
            {
                let what = format!(
                    "{name}: {} has a model of this name too, which could not be asked for; rename one of the two",
                    runs.display()
                );
                return Err(Error::config(what));
            }
            models.checkpoint = Some((name.clone(), Arc::new(models.pool.open(path)?)));
            models.entries.insert(name.clone(), Arc::new(Entry::new(path)));
            models.default = Some(name);
        } else if models.entries.len() == 1 {
            models.default = models.entries.keys().next().cloned();
        }
        Ok(models)
    }

    /// Language models in `directory` and below, named by their path from `root`, and the names of `others`; links are not
    /// followed. What lies within a run, its training states say, is none.
    fn find(&mut self, root: &Path, directory: &Path, depth: usize, others: &mut Vec<String>) -> Result<()> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            // As `rhn runs` does; only what was named must be there to be read.
            Err(error) if error.kind() == ErrorKind::PermissionDenied && depth > 0 => {
                note(&format!("{}: cannot be read, and is passed over", directory.display()));
                return Ok(());
            }
            Err(error) => return Err(Error::io(directory)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(Error::io(directory))?;
            let path = entry.path();
            let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
            if is_hidden || !entry.file_type().map_err(Error::io(&path))?.is_dir() {
                continue;
            }
            let name =
                path.strip_prefix(root).ok().and_then(Path::to_str).map(|name| name.replace('\\', "/"));
            let Some(name) = name else { continue };
            let is_checkpoint = [CONFIG, MODEL].iter().all(|file| path.join(file).is_file());
            if is_checkpoint && may_be_served(&path) {
                self.entries.insert(name, Arc::new(Entry::new(&path)));
            } else if is_checkpoint {
                others.push(name);
            } else if depth < DEPTH && !path.join(METRICS).is_file() {
                self.find(root, &path, depth + 1, others)?;
            }
        }
        Ok(())
    }

    /// The model of this name, which is loaded if it is not yet; without one, the only model.
    pub(super) async fn get(&self, name: Option<&str>) -> std::result::Result<(String, Arc<Model>), Failure> {
        let Some(name) = name.or(self.default.as_deref()) else { return Err(unnamed()) };
        let Some(entry) = self.entries.get(name) else { return Err(unknown(name)) };
        let is_checkpoint =
            |(checkpoint, model): &(String, Arc<Model>)| (checkpoint == name).then(|| model.clone());
        let found = self.checkpoint.as_ref().and_then(is_checkpoint);
        if let Some(model) = found.or_else(|| self.pool.find(name)) {
            return Ok((name.into(), model));
        }
        let _turn = self.turn.lock().await;
        if let Some(model) = self.pool.find(name) {
            return Ok((name.into(), model)); // somebody before has loaded it
        }
        let pool = self.pool.clone();
        let entry = entry.clone();
        let asked = name.to_string();
        let loaded = tokio::task::spawn_blocking(move || pool.load(&asked, &entry.path)).await;
        match loaded {
            Ok(Ok(model)) => Ok((name.into(), model)),
            Ok(Err(error)) => Err(unavailable(name, &error)),
            Err(_) => Err(Failure::internal("loading the model failed")),
        }
    }

    /// `GET /v1/models`.
    pub(super) fn list(&self) -> Value {
        let data: Vec<Value> = self.entries.iter().map(|(name, entry)| entry.json(name)).collect();
        json!({"object": "list", "data": data})
    }

    /// `GET /v1/models/NAME`.
    pub(super) fn describe(&self, name: &str) -> std::result::Result<Value, Failure> {
        self.entries.get(name).map(|entry| entry.json(name)).ok_or_else(|| unknown(name))
    }

    /// The names.
    pub(super) fn names(&self) -> Vec<&str> {
        self.entries.keys().map(String::as_str).collect()
    }

    /// Whether the threads of all models that are loaded still run.
    pub(super) fn are_alive(&self) -> bool {
        let checkpoint = self.checkpoint.iter().map(|(_, model)| model.clone());
        self.pool.all().into_iter().chain(checkpoint).all(|model| model.engine.is_alive())
    }
}

/// The first of the names, and how many more there are.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Whether two paths lead to one directory.
fn is_same(one: &Path, other: &Path) -> bool {
    let [one, other] = [one, other].map(|path| std::fs::canonicalize(path).ok());
    one.is_some() && one == other
}

/// Whether a checkpoint is not known to be something else than a language model: what is damaged says so when it is asked for.
fn may_be_served(directory: &Path) -> bool {
    let path = directory.join(CONFIG);
    if is_exported(directory) {
        return false;
    }
    let config = std::fs::read(&path).ok().and_then(|bytes| parse_config(&path, &bytes).ok());
    config.is_none_or(|config| no_language_model(&config).is_none())
}

/// The answer where a model cannot be loaded; the error goes to the standard error alone, as it names files.
pub(super) fn unavailable(name: &str, error: &Error) -> Failure {
    note(&format!("the model {name} cannot be served: {error}"));
    let message = "the model cannot be loaded; the server's standard error says why";
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "model_unavailable", message)
}

fn unnamed() -> Failure {
    Failure::field("model", "model is missing, and several are served: GET /v1/models lists them")
}

fn unknown(name: &str) -> Failure {
    let shown: String = name.chars().take(80).collect();
    let message = format!("there is no model {shown:?}: GET /v1/models lists them");
    Failure::new(StatusCode::NOT_FOUND, "model_not_found", message)
}

impl Entry {
    fn new(path: &Path) -> Self {
        let modified = std::fs::metadata(path.join(CONFIG)).and_then(|file| file.modified());
        let created = modified.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let created = created.map_or(0, |age| age.as_secs());
        Self { path: path.to_path_buf(), created }
    }

    fn json(&self, name: &str) -> Value {
        json!({"id": name, "object": "model", "created": self.created, "owned_by": "rhn"})
    }
}

/// The last part of a directory's path, or what follows `hf://`.
pub(super) fn name_of(path: &Path) -> String {
    if let Some(address) = path.to_str().and_then(|path| path.strip_prefix("hf://")) {
        return address.into();
    }
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    whole.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}
