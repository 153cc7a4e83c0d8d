//! `rhn study adapt`: what adapted models gained on the new text, and what they lost on the old.

use super::subject::note_sentences;
use crate::command::args::{DataArgs, DeviceArgs};
use crate::command::output::{Meter, Treatment, json_line, load, note_unseen, refuse_lists};
use crate::command::runs;
use crate::config::{Recipe, Unit};
use crate::data::{Chosen, DataDirectories, Encoded, SplitName, TrainedOn};
use crate::error::{Error, Result};
use crate::eval::{Evaluation, Split, stream};
use crate::predict::Loaded;
use crate::readable::grouped;
use crate::signals::Signals;
use crate::study::{Item, Measure, markdown};
use candle_core::{DType, Device};
use serde::Serialize;
use std::path::PathBuf;

const AFTER_HELP: &str = "\
All models read the same tokens, by the stream protocol of `rhn eval`; differences in brackets are from START.
Adapted models must have START's vocabulary, and its weights wherever train.update left them.

Examples:
  rhn study adapt checkpoints/shakespeare checkpoints/adapted-gates checkpoints/adapted-all
  rhn study adapt checkpoints/ptb-rhn checkpoints/adapted --new letters.txt --old ptb --json";

/// What an adaptation gained on the new text, and lost on the old
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The checkpoint that was adapted: a run's directory, or hf://owner/name[@revision]
    start: PathBuf,
    /// Runs that began from it
    #[arg(required = true)]
    adapted: Vec<PathBuf>,
    /// The new text: a known name, a file or a directory [default: the corpus of the first adapted run]
    #[arg(long, value_name = "NAME|PATH")]
    new: Option<String>,
    /// The old one [default: the corpus of START]
    #[arg(long, value_name = "NAME|PATH")]
    old: Option<String>,
    /// The part of each corpus to read [default: test; all of a file that the run was not trained on]
    #[arg(long, value_enum, value_name = "SPLIT")]
    split: Option<SplitName>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
}

/// A text that all models read.
struct Text {
    corpus: String,
    split: SplitName,
    encoded: Encoded,
}

#[derive(Serialize)]
struct Row {
    checkpoint: String,
    /// The group of weights that its run trained; a dash for the start.
    update: &'static str,
    /// How many numbers they are.
    updated: Option<u64>,
    new: Evaluation,
    old: Evaluation,
}

#[derive(Serialize)]
struct Found {
    study: &'static str,
    measure: Measure,
    rows: Vec<Row>,
}

/// Evaluates and prints. Fails if a checkpoint or a text is refused, or a model was not adapted from the first.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let start = load(&args.start, &args.device)?;
    let adapted = args.adapted.iter().map(|one| load(one, &args.device)).collect::<Result<Vec<_>>>()?;
    adapted.iter().try_for_each(|one| check_vocabulary(one, &start))?;
    let directories = args.data.directories()?;
    let texts = [
        open_text(&adapted[0], &start, args.new.as_deref(), args.split, &directories)?,
        open_text(&start, &start, args.old.as_deref(), args.split, &directories)?,
    ];
    for one in std::iter::once(&start).chain(&adapted) {
        if note_sentences(&one.recipe()?) {
            break; // of all of them once
        }
    }
    let signals = Signals::listen()?;
    let mut rows = Vec::new();
    for (name, loaded) in
        std::iter::once(&args.start).chain(&args.adapted).zip(std::iter::once(&start).chain(&adapted))
    {
        let is_start = rows.is_empty();
        let recipe = if is_start { None } else { Some(loaded.recipe()?) };
        let updated = recipe.as_ref().map(|recipe| updated(loaded, recipe, &start)).transpose()?;
        let [new, old] = [&texts[0], &texts[1]].map(|text| evaluate(loaded, text, &signals));
        rows.push(Row {
            checkpoint: name.display().to_string(),
            update: recipe.map_or("–", |recipe| recipe.train.update.name()),
            updated,
            new: new?,
            old: old?,
        });
    }
    let found = Found { study: "adapt", measure: measure(&rows, start.tokenizer.unit()), rows };
    if args.json {
        return Ok(json_line(&mut std::io::stdout().lock(), &found)?);
    }
    Ok(runs::print(&found.table())?)
}

/// Refuses a model that predicts other tokens than the start.
fn check_vocabulary(adapted: &Loaded, start: &Loaded) -> Result<()> {
    if adapted.tokenizer.to_json() == start.tokenizer.to_json() {
        return Ok(());
    }
    let what = format!(
        "has another vocabulary than {}, of {} tokens where that has {}: their losses do not compare",
        start.directory().display(),
        adapted.tokenizer.vocab_size(),
        start.tokenizer.vocab_size()
    );
    Err(Error::checkpoint(adapted.directory(), what))
}

/// How many numbers the run of `recipe` trained. Fails if others are not those of the start.
fn updated(adapted: &Loaded, recipe: &Recipe, start: &Loaded) -> Result<u64> {
    let group = recipe.train.update;
    let parameters = adapted.checkpoint().parameters(DType::F32, &Device::Cpu)?;
    let parameters = parameters.update_only(group, &adapted.model.config().spec)?;
    let before = start.checkpoint().tensors()?;
    for (name, held) in parameters.held() {
        let same = match before.get(name) {
            Some(first) if first.dims() == held.dims() => {
                first.to_dtype(DType::F32)?.eq(held.as_tensor())?.flatten_all()?.min(0)?.to_scalar::<u8>()?
                    == 1
            }
            _ => false,
        };
        if !same {
            let what = format!(
                "its {name} is not that of {}, and train.update = {:?} leaves it as it was: it was adapted from another model",
                start.directory().display(),
                group.name()
            );
            return Err(Error::checkpoint(adapted.directory(), what));
        }
    }
    Ok(parameters.updated_count())
}

/// The text `name`, or the one that `run` was trained on, in the start's tokens.
fn open_text(
    run: &Loaded,
    start: &Loaded,
    name: Option<&str>,
    split: Option<SplitName>,
    directories: &DataDirectories,
) -> Result<Text> {
    let recipe = run.recipe()?;
    if name.is_none() {
        refuse_lists(&recipe, "--new and --old name the texts")?;
    }
    let sha256 = run.corpus_sha256();
    let trained = TrainedOn { config: &recipe.corpus, sha256: sha256.as_deref(), directory: run.directory() };
    let mut chosen = match name {
        None => vec![Chosen::of_run(trained, split, directories)?],
        Some(name) => Chosen::named(name, trained, split, directories)?,
    };
    let first = chosen.swap_remove(0);
    if !chosen.is_empty() {
        let what =
            "is a folder of documents, wanted one text or a corpus with splits; --split all takes it whole";
        return Err(Error::data(name.unwrap_or_default(), what));
    }
    let Chosen { corpus, split, text } = first;
    let encoded = start.tokenizer.encode_measured(&text)?;
    note_unseen(encoded.unseen, &corpus, Treatment::of(&start.tokenizer));
    Ok(Text { corpus, split, encoded })
}

fn evaluate(loaded: &Loaded, text: &Text, signals: &Signals) -> Result<Evaluation> {
    let Text { corpus, split, encoded } = text;
    let split = Split { corpus, split: split.as_str(), unit: loaded.tokenizer.unit(), text: encoded };
    let meter = Meter::new("evaluating");
    stream(&loaded.model, &split, &mut |done, total| {
        meter.set(done, total);
        signals.check()
    })
}

/// Perplexity for words and byte pairs, else bits per character, or nats where `<unk>` hides characters.
fn measure(rows: &[Row], unit: Unit) -> Measure {
    let has_bits = rows.iter().all(|row| row.new.bits_per_char.and(row.old.bits_per_char).is_some());
    match unit {
        Unit::Word | Unit::Bpe => Measure::Perplexity,
        Unit::Char | Unit::Byte if has_bits => Measure::BitsPerChar,
        Unit::Char | Unit::Byte => Measure::Nats,
    }
}

impl Found {
    fn value(&self, evaluation: &Evaluation) -> f64 {
        match self.measure {
            Measure::Perplexity => evaluation.nats_per_token.exp(),
            Measure::BitsPerChar => evaluation.bits_per_char.unwrap_or(f64::NAN),
            Measure::Nats => evaluation.nats_per_token,
        }
    }

    fn table(&self) -> String {
        let first = &self.rows[0];
        let text = |which: &str, read: &Evaluation| {
            let part = if read.split == "all" { "whole".into() } else { format!("{} split", read.split) };
            format!("{which}: {}, {part}", read.corpus)
        };
        let head = [
            self.measure.name(Some(Item::Token)),
            "updated".into(),
            text("new", &first.new),
            text("old", &first.old),
        ];
        let cell = |read: &Evaluation, before: &Evaluation| {
            let value = self.value(read);
            let shown = self.measure.show(value);
            let change = value - self.value(before);
            let sign = if change < 0.0 { "−" } else { "+" };
            if std::ptr::eq(read, before) {
                shown
            } else {
                format!("{shown} ({sign}{})", self.measure.show(change.abs()))
            }
        };
        let row = |row: &Row| {
            let updated =
                row.updated.map_or_else(|| "–".into(), |count| format!("{}: {}", row.update, grouped(count)));
            vec![row.checkpoint.clone(), updated, cell(&row.new, &first.new), cell(&row.old, &first.old)]
        };
        let rows: Vec<Vec<String>> = self.rows.iter().map(row).collect();
        let tokens = |which: &str, read: &Evaluation| {
            format!(
                "{which}: {} tokens predicted, {} symbols not in the vocabulary\n",
                grouped(read.tokens),
                grouped(read.oov_tokens)
            )
        };
        format!(
            "{}\n{}{}",
            markdown::table(&head, &rows),
            tokens("new", &first.new),
            tokens("old", &first.old)
        )
    }
}
