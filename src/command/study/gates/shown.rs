//! What is found of the gates: a table and a picture of each matrix, and the table on the screen.

use super::Args;
use crate::command::output::json_line;
use crate::command::runs;
use crate::command::study::subject::report_directory;
use crate::readable::or_dash;
use crate::study::directory::{StudyDirectory, tsv_number};
use crate::study::gates::Matrix;
use crate::study::markdown;
use crate::study::plot::{ColorScale, layer_map};
use serde::Serialize;
use std::collections::BTreeMap;

/// What is found of a stage.
#[derive(Serialize)]
pub(super) struct Stage {
    pub(super) stage: String,
    pub(super) rows: u64,
    /// Over a layer's units: of the biases, the gates' mean, the sample's gates and outputs.
    pub(super) layers: Vec<LayerRow>,
    /// The share of the sample's gates above one half.
    pub(super) sample_open: Option<f64>,
    /// The share of biases that are below where they began.
    pub(super) biases_fallen: Option<f64>,
    #[serde(skip)]
    pub(super) matrices: Vec<(String, Matrix)>,
}

#[derive(Serialize)]
pub(super) struct LayerRow {
    pub(super) layer: usize,
    pub(super) bias: Option<f64>,
    pub(super) mean: Option<f64>,
    /// Of the carry gate, where it has weights of its own.
    pub(super) mean_carry: Option<f64>,
    pub(super) sample_gate: Option<f64>,
    pub(super) sample_output: Option<f64>,
    /// The mean absolute difference of each class's mean from that of all.
    pub(super) classes: BTreeMap<String, f64>,
}

#[derive(Serialize)]
pub(super) struct Found<'a> {
    pub(super) study: &'static str,
    pub(super) corpus: &'a str,
    pub(super) split: &'a str,
    pub(super) sample: usize,
    pub(super) stages: &'a [Stage],
}

/// Writes the tables and pictures of all stages and prints what they come to.
pub(super) fn finish(
    args: &Args,
    found: &Found<'_>,
    head: &str,
    directory: &StudyDirectory,
) -> anyhow::Result<()> {
    for (index, stage) in found.stages.iter().enumerate() {
        let prefix = if found.stages.len() > 1 { format!("stage-{}-", index + 1) } else { String::new() };
        for (name, matrix) in &stage.matrices {
            let units: Vec<String> = (1..=matrix[0].len()).map(|unit| unit.to_string()).collect();
            let columns: Vec<&str> =
                std::iter::once("layer").chain(units.iter().map(String::as_str)).collect();
            let row = |(layer, values): (usize, &Vec<f64>)| {
                let values = values.iter().map(|value| tsv_number(Some(*value)));
                std::iter::once((layer + 1).to_string()).chain(values).collect::<Vec<_>>()
            };
            let lines: Vec<_> = matrix.iter().enumerate().map(row).collect();
            directory.write_table(&format!("{prefix}{name}"), &columns, &lines)?;
            let figure = layer_map(
                &format!("{}: {}", stage.stage, about(name)),
                about(name),
                colors(name),
                matrix.clone(),
            );
            directory.write_figure(&format!("{prefix}{name}"), &figure, args.subject.png)?;
        }
    }
    directory.write_result(found)?;
    if args.subject.json {
        json_line(&mut std::io::stdout().lock(), found)?;
    } else {
        runs::print(&(head.to_string() + &table(args, found)))?;
    }
    report_directory(directory);
    Ok(())
}

/// What a matrix shows, for people.
fn about(name: &str) -> &'static str {
    match name {
        "biases" => "bias of the transform gate",
        "mean" => "mean of the transform gate",
        "mean-carry" => "mean of the carry gate",
        "sample-gates" => "transform gate on one sample",
        "sample-outputs" => "output on one sample",
        _ => "mean gate of a class, less that of all",
    }
}

/// The colours of a matrix: gates from 0, what has two signs around 0.
fn colors(name: &str) -> ColorScale {
    match name {
        "biases" => ColorScale::Sequential { low: None, high: None },
        "mean" | "mean-carry" | "sample-gates" => ColorScale::Sequential { low: Some(0.0), high: None },
        _ => ColorScale::Diverging { middle: 0.0, reach: None },
    }
}

/// A table for each stage: means over a layer's units.
fn table(args: &Args, found: &Found<'_>) -> String {
    let mut layers = found.stages.iter().flat_map(|stage| &stage.layers);
    let carry_column = layers.any(|layer| layer.mean_carry.is_some()).then_some("mean C");
    let names =
        ["layer", "bias", "mean T"].into_iter().chain(carry_column).chain(["sample's T", "sample's y"]);
    let mut head: Vec<String> = names.map(String::from).collect();
    head.extend(args.classes.iter().map(|class| format!("|{class} − all|")));
    let mut text = String::new();
    for stage in found.stages {
        let row = |layer: &LayerRow| {
            let carry = carry_column.map(|_| layer.mean_carry);
            let sample = [layer.sample_gate, layer.sample_output];
            let figures = [layer.bias, layer.mean].into_iter().chain(carry).chain(sample);
            let classes = args.classes.iter().map(|class| layer.classes.get(class).copied());
            let figures = figures.chain(classes).map(|value| or_dash(value, 4));
            std::iter::once(layer.layer.to_string()).chain(figures).collect::<Vec<_>>()
        };
        let rows: Vec<_> = stage.layers.iter().map(row).collect();
        text += &format!("\n{}, means over units\n\n{}", stage.stage, markdown::table(&head, &rows));
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        if let Some(open) = stage.sample_open {
            text += &format!("\n{} of the sample's gates are above one half\n", percent(open));
        }
        if let Some(fallen) = stage.biases_fallen {
            text += &format!("{} of the biases are below where they began\n", percent(fallen));
        }
    }
    text
}
