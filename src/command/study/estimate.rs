//! `rhn study estimate`: whether the layers of a stage refine one estimate.

use super::images::ImageSubject;
use super::subject::{Subject, SubjectArgs, report_directory};
use crate::command::output::{Meter, json_line, note};
use crate::command::runs;
use crate::error::{Error, Result};
use crate::model::{LanguageModel, Parameters};
use crate::predict::begun_from;
use crate::readable::grouped;
use crate::study::directory::{StudyDirectory, tsv_number};
use crate::study::estimate::{self, COLUMNS, Over, StageEstimate};
use crate::study::markdown;
use candle_core::Tensor;
use clap::ValueEnum;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

const AFTER_HELP: &str = "\
A stage is a row of layers of one width: the highway layers of a char CNN, or the sublayers of an
RHN's time step. State 0 is what enters it, state k is after layer k, the last one stands for what
the stage estimates, and d is a state less the last one. Over units and tokens:

  mean, sd     of d: near 0, and falling with k, if the layers refine one estimate
  abs          absolute mean of d, a unit at a time: signs do not cancel
  rel, step    norm of d over that of the last state; of a step over that of the state before
  T, T > .5    mean of the transform gate, share of it above one half; sd T: over tokens
  ideal T      the weight of H in the best unbiased mix with the layer's input, mean over units
  corr         correlation over units of that weight with the gate's mean

Examples:
  rhn study estimate checkpoints/shakespeare
  rhn study estimate checkpoints/shakespeare --against init    beside its untrained weights
  rhn study estimate checkpoints/ptb-char-cnn-small --over types";

/// How far each layer's state is from the stage's last one, and whether gates weigh as they should
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) subject: SubjectArgs,
    /// What averages over a char CNN's words are over; a time step's are over tokens [default: tokens]
    #[arg(long, value_enum)]
    over: Option<Over>,
    /// Measure also other weights of the same model
    #[arg(long, value_enum)]
    against: Option<Against>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Against {
    /// The untrained weights of the run's seed
    Init,
}

/// What `result.json` holds.
#[derive(Serialize)]
struct Found<'a> {
    study: &'static str,
    corpus: &'a str,
    split: &'a str,
    protocol: &'static str,
    tokens: u64,
    stages: &'a [StageEstimate],
}

/// Measures, prints and keeps. Fails if the checkpoint or its corpus is refused, or a state is not finite.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(subject) = args.subject.open_images()? {
        if args.over.is_some() {
            return Err(Error::config("--over is for words, and this checkpoint is one of images").into());
        }
        return run_images(args, &subject);
    }
    let over = args.over.unwrap_or_default();
    let subject = args.subject.open()?;
    let batches = subject.batches()?;
    let tensors = subject.tensors()?;
    let meter = Meter::new("reading");
    let measure = |tensors: &BTreeMap<String, Tensor>, weights: &str| -> Result<Vec<StageEstimate>> {
        let model = &subject.loaded.model;
        let model = LanguageModel::of_tensors(model.config(), tensors, model.precision(), model.device())?;
        let mut progress = |done, total| {
            meter.set(done, total);
            Ok(())
        };
        estimate::estimate(&model, weights, &subject.text.tokens, &batches, over, &mut progress)
    };
    let mut stages = measure(&tensors, "trained")?;
    if args.against.is_some() {
        note_begun(subject.loaded.directory());
        stages.extend(measure(&untrained(&subject, tensors.clone())?, "init")?);
    }
    drop(meter);
    let found = Found {
        study: "estimate",
        corpus: &subject.corpus,
        split: subject.split.as_str(),
        protocol: "batched",
        tokens: (batches.count * batches.predicted) as u64,
        stages: &stages,
    };
    let directory = args.subject.directory(&subject, "estimate")?;
    keep(&directory, &found)?;
    directory.write_figure("estimate", &estimate::figure(&stages), args.subject.png)?;
    if args.subject.json {
        json_line(&mut std::io::stdout().lock(), &found)?;
    } else {
        runs::print(&(subject.describe(found.tokens) + &table(&stages)))?;
    }
    report_directory(&directory);
    Ok(())
}

/// Says where the untrained weights are none from which the run began.
fn note_begun(run: &Path) {
    if begun_from(run).is_some() {
        note("the run began with the weights of another checkpoint: init is what its seed would have drawn");
    }
}

/// The same of a net that classifies images, over the images of the split.
fn run_images(args: &Args, subject: &ImageSubject) -> anyhow::Result<()> {
    let meter = Meter::new("reading");
    let mut progress = |done, total| {
        meter.set(done, total);
        Ok(())
    };
    let mut stages = estimate::of_images(&subject.model, "trained", &subject.images, &mut progress)?;
    if args.against.is_some() {
        note_begun(subject.run());
        let untrained = subject.untrained()?;
        stages.extend(estimate::of_images(&untrained, "init", &subject.images, &mut progress)?);
    }
    drop(meter);
    let [corpus, split] = subject.names();
    let tokens = subject.images.len() as u64;
    let found = Found { study: "estimate", corpus, split, protocol: "images", tokens, stages: &stages };
    let directory = subject.directory("estimate")?;
    keep(&directory, &found)?;
    directory.write_figure("estimate", &estimate::figure(&stages), args.subject.png)?;
    if args.subject.json {
        json_line(&mut std::io::stdout().lock(), &found)?;
    } else {
        runs::print(&(subject.describe() + &table(&stages)))?;
    }
    report_directory(&directory);
    Ok(())
}

/// The weights from which the run began, by its recipe; `tensors` have the tables that training leaves alone.
fn untrained(subject: &Subject, tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let train = &subject.recipe.train;
    let model = &subject.loaded.model;
    let dtype = model.precision().dtype();
    let drawn =
        Parameters::draw(model.config(), tensors, train.seed, train.initial(), dtype, model.device())?;
    Ok(drawn.tensors())
}

fn keep(directory: &StudyDirectory, found: &Found<'_>) -> Result<()> {
    let mut rows = Vec::new();
    for stage in found.stages {
        for layer in &stage.layers {
            let mut row =
                vec![stage.stage.clone(), stage.weights.clone(), stage.over.clone(), layer.k.to_string()];
            row.extend(layer.figures().map(tsv_number));
            rows.push(row);
        }
    }
    directory.write_table("layers", &COLUMNS, &rows)?;
    directory.write_result(found)
}

/// A table for each stage.
fn table(stages: &[StageEstimate]) -> String {
    let head = ["k", "mean", "sd", "abs", "rel", "step", "T", "T > .5", "sd T", "ideal T", "corr"];
    let head = head.map(String::from);
    let mut text = String::new();
    for stage in stages {
        let row = |layer: &crate::study::estimate::LayerEstimate| {
            let figures = layer.figures().map(significant);
            std::iter::once(layer.k.to_string()).chain(figures).collect::<Vec<_>>()
        };
        let rows: Vec<_> = stage.layers.iter().map(row).collect();
        let weights = if stage.weights == "init" { "untrained weights" } else { "trained weights" };
        let count = grouped(stage.rows);
        let units = grouped(stage.units as u64);
        let rows_are = match (stage.over.as_str(), stage.rows as f64 == stage.weight) {
            ("tokens", true) => format!("{count} tokens"),
            ("images", _) => format!("{count} images"),
            ("tokens", false) => {
                format!("{} tokens of {count} distinct words", grouped(stage.weight as u64))
            }
            _ => format!("{count} distinct words"),
        };
        text += &format!("\n{}: {weights}, {rows_are}, {units} units\n\n", stage.stage);
        text += &markdown::table(&head, &rows);
        for note in &stage.notes {
            text += &format!("– {note}\n");
        }
    }
    text
}

/// Three significant digits; a dash where there is no number.
fn significant(value: Option<f64>) -> String {
    let Some(value) = value.filter(|value| value.is_finite()) else { return "–".into() };
    if value == 0.0 {
        return "0".into();
    }
    let magnitude = value.abs().log10().floor() as i32;
    match magnitude {
        -4..=2 => format!("{value:.*}", usize::try_from(2 - magnitude).unwrap_or(0).min(4)),
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::significant;

    #[test]
    fn figures_have_three_digits_and_what_is_none_is_a_dash() {
        let shown = [0.0, -1.23456, 12.345, 0.012345, 1.5e-9, 12345.0].map(|value| significant(Some(value)));
        assert_eq!(shown, ["0", "-1.23", "12.3", "0.0123", "1.50e-9", "1.23e4"]);
        assert_eq!([None, Some(f64::NAN)].map(significant), ["–", "–"]);
    }
}
