//! `rhn inspect`: what a checkpoint is, how it was trained, and whether it is whole.

use super::output::json_line;
use crate::checkpoint::{self, Checkpoint};
use crate::config::recipe::Recipe;
use crate::config::{ModelConfig, TaskKind, Unit};
use crate::error::Result;
use crate::events::{self, Epoch, Event};
use crate::model::{TensorSpec, specs};
use crate::readable::{counted, perplexity};
use crate::storage;
use crate::study::RunHistory;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const AFTER_HELP: &str = "\
Every file is read and its length and SHA-256 compared with the manifest's, every tensor's shape
with the configuration's; what does not fit is refused with exit code 4.

Examples:
  rhn inspect checkpoints/shakespeare
  rhn inspect hf://owner/name --json";

/// Show what a checkpoint is: model, training, tensors, sizes and verified hashes
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run's directory, or hf://owner/name[@revision]
    checkpoint: PathBuf,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// All there is to know about a checkpoint.
#[derive(Serialize)]
struct Inspection {
    #[serde(serialize_with = "shown")]
    directory: PathBuf,
    verified: bool,
    unit: Unit,
    parameters: u64,
    config: ModelConfig,
    recipe: Option<Recipe>,
    #[serde(serialize_with = "sorted")]
    best: Option<Event>,
    result: Option<Value>,
    files: Vec<FileRow>,
    tensors: Vec<TensorRow>,
}

/// A path as messages have it: JSON cannot hold one that is not Unicode.
fn shown<S: Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// The event with its keys in the order of `metrics.jsonl`.
fn sorted<S: Serializer>(best: &Option<Event>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serde_json::to_value(best).map_err(S::Error::custom)?.serialize(serializer)
}

#[derive(Serialize)]
struct FileRow {
    name: String,
    bytes: u64,
    sha256: Option<String>,
}

#[derive(Serialize)]
struct TensorRow {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    trained: bool,
}

/// Inspects and prints. Fails if the checkpoint is not whole, or the standard output cannot be written.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let found = inspect(&args.checkpoint)?;
    let mut out = io::stdout().lock();
    let printed = if args.json { json_line(&mut out, &found) } else { found.print(&mut out) };
    Ok(printed?)
}

fn inspect(argument: &Path) -> Result<Inspection> {
    let checkpoint = Checkpoint::open(&checkpoint::resolve(argument)?)?;
    let tokenizer = checkpoint.read_tokenizer()?;
    let specs = specs(&checkpoint.config)?;
    let directory = &checkpoint.directory;
    Ok(Inspection {
        verified: checkpoint.verified,
        unit: tokenizer.unit(),
        parameters: specs.values().filter(|spec| spec.trained()).map(TensorSpec::count).sum(),
        recipe: checkpoint.read_recipe()?,
        best: best_epoch(directory),
        result: result(directory),
        files: files(directory)?,
        tensors: tensors(&checkpoint, &specs)?,
        config: checkpoint.config.clone(),
        directory: checkpoint.directory,
    })
}

/// The run's result, unless the run has gone on since, as its events say.
fn result(directory: &Path) -> Option<Value> {
    let result = serde_json::from_slice(&fs::read(directory.join(storage::RESULT)).ok()?).ok()?;
    let run = RunHistory::read(directory);
    Some(result)
        .filter(|_| run.is_ok_and(|run| run.result.is_some()) || !directory.join(storage::METRICS).exists())
}

/// The weights' names, shapes and number types, once all of them are found to fit the configuration.
fn tensors(checkpoint: &Checkpoint, specs: &BTreeMap<String, TensorSpec>) -> Result<Vec<TensorRow>> {
    let stored = checkpoint.tensors()?;
    checkpoint.weights(specs, candle_core::DType::F32, &candle_core::Device::Cpu)?;
    let row = |(name, spec): (&String, &TensorSpec)| TensorRow {
        name: name.clone(),
        shape: spec.shape.clone(),
        dtype: stored.get(name).map_or_else(String::new, |tensor| tensor.dtype().as_str().to_string()),
        trained: spec.trained(),
    };
    Ok(specs.iter().map(row).collect())
}

/// What the manifest lists; without one, what there is of the usual files.
fn files(directory: &Path) -> Result<Vec<FileRow>> {
    if let Some(manifest) = checkpoint::published_manifest(directory)? {
        let row = |name: &str| {
            let record = manifest.get(name)?;
            Some(FileRow { name: name.into(), bytes: record.bytes, sha256: Some(record.sha256.clone()) })
        };
        return Ok(manifest.names().filter_map(row).collect());
    }
    let names = [storage::CONFIG, storage::MODEL, storage::TOKENIZER, storage::RECIPE, storage::THRESHOLD];
    let row = |name: &str| {
        let bytes = fs::metadata(directory.join(name)).ok()?.len();
        Some(FileRow { name: name.into(), bytes, sha256: None })
    };
    Ok(names.into_iter().filter_map(row).collect())
}

/// The epoch of the run, or what was measured within one, whose model was the best on the validation split.
fn best_epoch(directory: &Path) -> Option<Event> {
    let events = events::readable(directory);
    let is_loss = |event: &Event| matches!(event, Event::Resume(start) if start.lost_best);
    let kept = events.iter().rposition(is_loss).map_or(0, |last| last + 1);
    let measured = events[kept..].iter().filter_map(|event| match event {
        Event::Epoch(row) | Event::Evaluation(row) => Some(row),
        _ => None,
    });
    let best = *Epoch::best_of(measured)?;
    events
        .into_iter()
        .find(|event| matches!(event, Event::Epoch(row) | Event::Evaluation(row) if *row == best))
}

impl Inspection {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let whole =
            if self.verified { "verified: every file is what the manifest says" } else { "no manifest" };
        writeln!(out, "{} ({whole})", self.directory.display())?;
        writeln!(out, "model       {}", self.config)?;
        match self.config.pixels() {
            Some(_) => writeln!(out, "classes     {}", self.config.vocab_size)?,
            None => writeln!(out, "vocabulary  {} by {}", self.config.vocab_size, self.unit.as_str())?,
        }
        writeln!(out, "parameters  {}", self.parameters)?;
        if let Some(recipe) = &self.recipe {
            writeln!(out, "trained     {}", describe_training(recipe))?;
        }
        if let Some(Event::Epoch(best) | Event::Evaluation(best)) = &self.best {
            let valid = self.loss(best.valid_nats_per_token);
            writeln!(out, "best        epoch {}, valid {valid}", best.epoch)?;
        }
        if let Some(result) = &self.result {
            match (result["split"].as_str(), result["nats_per_token"].as_f64()) {
                (Some(split), nats @ Some(_)) => {
                    writeln!(out, "result      {split} {} ({})", self.loss(nats), text(result, "protocol"))?;
                }
                _ => writeln!(out, "result      finished; the corpus has no test split")?,
            }
        }
        self.print_files(out)?;
        self.print_tensors(out)
    }

    /// A loss: the perplexity of tokens; a label of a sentence or an image has none.
    fn loss(&self, nats: Option<f64>) -> String {
        let pixels = self.config.pixels().is_some();
        let labels = self.config.spec.classifier.is_some() || pixels;
        match nats {
            Some(nats) if labels => {
                format!("nats {nats:.4} per {}", if pixels { "image" } else { "sentence" })
            }
            Some(nats) => format!("perplexity {}", perplexity(nats, 4)),
            None => "loss unknown".into(),
        }
    }

    fn print_files(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\nfile                     bytes  sha256")?;
        for FileRow { name, bytes, sha256 } in &self.files {
            writeln!(out, "{name:<18} {bytes:>11}  {}", sha256.as_deref().unwrap_or("unknown"))?;
        }
        Ok(())
    }

    fn print_tensors(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\ntensor                          type  shape")?;
        for TensorRow { name, shape, dtype, trained } in &self.tensors {
            let fixed = if *trained { "" } else { "  (not trained)" };
            let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
            writeln!(out, "{name:<30} {dtype:>5}  {}{fixed}", shape.join(" × "))?;
        }
        Ok(())
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("?")
}

fn describe_training(recipe: &Recipe) -> String {
    let train = &recipe.train;
    let optimizer = train.optimizer.as_str();
    let step = match recipe.task.kind {
        TaskKind::Language => format!("{} × {} tokens", train.batch_size, train.bptt_steps),
        TaskKind::Classify | TaskKind::Vae => counted(train.batch_size as u64, "sentence"),
        TaskKind::Rescore => counted(train.batch_size as u64, "list"),
        TaskKind::Images => counted(train.batch_size as u64, "image"),
    };
    format!(
        "on {}, at most {} of {step} a step, {optimizer} at {}, seed {}",
        recipe.corpus.name,
        counted(train.epochs, "epoch"),
        train.learning_rate,
        train.seed
    )
}

#[cfg(test)]
mod tests {
    use super::inspect;
    use crate::error::Error;

    #[test]
    fn a_directory_that_is_not_there_is_refused_by_name() {
        let error =
            inspect(std::path::Path::new("no/such/directory")).err().expect("there is no such directory");
        assert!(matches!(error, Error::Checkpoint { .. }) && error.to_string().contains("no/such/directory"));
    }
}
