//! `rhn study bias`: one highway net with several first biases of its transform gates.

use super::nets::{Net, NetArgs, Trained, activated, each_once};
use super::subject::report_directory;
use crate::checkpoint::Checkpoint;
use crate::command::output::json_line;
use crate::command::runs;
use crate::data::images::ImageCorpus;
use crate::error::{Error, Result};
use crate::model::LanguageModel;
use crate::readable::{duration, or_dash};
use crate::study::directory::{StudyDirectory, tsv_number};
use crate::study::gates::{GateMeans, for_each_trace, layer_means};
use crate::study::markdown;
use crate::study::plot::{Axis, Content, Figure, Line, LinePoint, Lines, Panel};
use rhn_kernels::precision::Precision;
use serde::Serialize;

/// Images that the gates' mean is over.
const READ: usize = 10_000;

/// The loss whose epoch is reported.
const REACHED: f64 = 0.1;

const AFTER_HELP: &str = "\
The bias says how much of its input a layer carries at first: a gate begins at sigmoid(bias), .27 at
−1, .12 at −2, .018 at −4. Each net is a run in the study's directory; the same command goes on.

Examples:
  rhn study bias --depth 50
  rhn study bias --depth 100 --values -1,-2,-4,-8 --epochs 40
  rhn sweep recipes/sweeps/ptb-rhn-bias.toml         the same of a recurrent highway network";

/// Train one highway net with several first biases of its gates
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The biases
    #[arg(
        long,
        value_name = "X,…",
        value_delimiter = ',',
        allow_hyphen_values = true,
        default_values_t = [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]
    )]
    values: Vec<f64>,
    /// Hidden layers of the net
    #[arg(long, value_name = "N", default_value_t = 50)]
    depth: usize,
    /// The function of all layers: tanh or relu [default: tanh]
    #[arg(long, value_name = "NAME", value_parser = ["tanh", "relu"])]
    activation: Option<String>,
    #[command(flatten)]
    pub(super) nets: NetArgs,
}

#[derive(Serialize)]
struct Row {
    transform_bias: f64,
    /// sigmoid of it.
    first_gate: f64,
    /// Over images, layers and units, after training.
    mean_gate: Option<f64>,
    /// The first epoch whose loss is below 0.1 nats.
    reached_epoch: Option<u64>,
    net: Trained,
}

#[derive(Serialize)]
struct Found<'a> {
    study: &'static str,
    depth: usize,
    rows: &'a [Row],
}

/// Trains, prints and keeps. Fails if the images cannot be had, or a run cannot be made.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if args.depth < 2 || args.values.iter().any(|value| !value.is_finite()) {
        return Err(Error::config("--depth must be at least 2 and --values numbers").into());
    }
    if args.nets.trials > 1 {
        return Err(Error::config("--trials draws biases at random: rhn study depth takes it").into());
    }
    args.nets.refuse(&[("model.core.layers", "--depth"), ("model.core.transform_bias", "--values")])?;
    if args.nets.gives("model.core.mixing")? {
        return Err(Error::config("--set model.core.mixing: the study is of highway nets' gates").into());
    }
    let net = |value: &f64| {
        let mut settings = vec![
            format!("model.core.layers={}", args.depth - 1),
            format!("model.core.transform_bias={value:?}"),
        ];
        settings.extend(args.activation.iter().flat_map(|activation| activated(activation)));
        let name = format!("bias{value}");
        Net { name, kind: "highway", depth: args.depth, usual: Vec::new(), settings, biases: &[] }
    };
    let values = each_once(&args.values);
    let nets: Vec<Net> = values.iter().map(net).collect();
    let study = args.nets.open(&format!("bias-{}", args.depth))?;
    let trained = study.train(&nets)?;
    let (device, precision) = args.nets.device.open()?;
    let row = |(value, net): (&f64, Trained)| {
        Ok(Row {
            transform_bias: *value,
            first_gate: 1.0 / (1.0 + (-value).exp()),
            mean_gate: if net.failed.is_none() {
                Some(mean_gate(&net, &study.corpus, precision, &device)?)
            } else {
                None
            },
            reached_epoch: net.curve.iter().find(|(_, nats)| *nats < REACHED).map(|(epoch, _)| *epoch),
            net,
        })
    };
    let rows: Vec<Row> = values.iter().zip(trained).map(row).collect::<Result<_>>()?;
    let directory = StudyDirectory::create(Some(&study.out), &study.out, "bias")?;
    let found = Found { study: "bias", depth: args.depth, rows: &rows };
    keep(&directory, &found)?;
    directory.write_figure("biases", &figure(&rows), args.nets.png)?;
    if args.nets.json {
        json_line(&mut std::io::stdout().lock(), &found)?;
    } else {
        runs::print(&table(&rows))?;
    }
    report_directory(&directory);
    Ok(())
}

/// The mean of all transform gates of a trained net over the first training images.
fn mean_gate(
    net: &Trained,
    corpus: &ImageCorpus,
    precision: Precision,
    device: &candle_core::Device,
) -> Result<f64> {
    let checkpoint = Checkpoint::open(&net.directory)?;
    let tensors = checkpoint.parameters(precision.dtype(), device)?.tensors();
    let model = LanguageModel::of_tensors(&checkpoint.config, &tensors, precision, device)?;
    let mut means = GateMeans::of_classes([]);
    for_each_trace(&model, &corpus.train.first(READ), &mut |_, _| Ok(()), |trace| {
        let none = vec![0; trace.entering.dim(0)?];
        means.add(trace, &none)
    })?;
    let layers = layer_means(&means.mean());
    Ok(layers.iter().sum::<f64>() / layers.len() as f64)
}

fn keep(directory: &StudyDirectory, found: &Found<'_>) -> Result<()> {
    let row = |row: &Row| {
        let figures = [
            Some(row.transform_bias),
            Some(row.first_gate),
            row.mean_gate,
            row.reached_epoch.map(|epoch| epoch as f64),
            row.net.last_train_nats,
            row.net.best_train_nats,
            row.net.test_accuracy,
            Some(row.net.learning_rate),
        ];
        figures.map(tsv_number).to_vec()
    };
    let head = [
        "transform_bias",
        "first_gate",
        "mean_gate",
        "epoch_below_0.1_nats",
        "last_train_nats",
        "best_train_nats",
        "test_accuracy",
        "learning_rate",
    ];
    directory.write_table("biases", &head, &found.rows.iter().map(row).collect::<Vec<_>>())?;
    directory.write_result(found)
}

/// The loss of each epoch, a line for each bias.
fn figure(rows: &[Row]) -> Figure {
    let line = |(color, row): (usize, &Row)| Line {
        label: format!("bias {}", row.transform_bias),
        color,
        dashed: false,
        points: row
            .net
            .curve
            .iter()
            .map(|(epoch, nats)| LinePoint { x: *epoch as f64, y: *nats, band: None })
            .collect(),
    };
    let lines = Lines {
        x: Axis { name: "epoch".into(), log: false, whole: true, from_zero: true },
        y: Axis { name: "nats an image, training images".into(), log: true, whole: false, from_zero: false },
        lines: rows.iter().enumerate().map(line).collect(),
        references: Vec::new(),
    };
    let panel = Panel { title: String::new(), content: Content::Lines(lines) };
    Figure {
        title: "First bias of the transform gates".into(),
        panels: vec![panel],
        columns: 1,
        equal_axes: false,
    }
}

fn table(rows: &[Row]) -> String {
    let head =
        ["bias", "T at first", "T trained", "epoch < 0.1 nats", "train nats, last", "test %", "rate", "time"];
    let head = head.map(String::from);
    let row = |row: &Row| {
        let loss =
            row.net.last_train_nats.map_or_else(|| "left its course".into(), |nats| format!("{nats:.3e}"));
        vec![
            row.transform_bias.to_string(),
            format!("{:.4}", row.first_gate),
            or_dash(row.mean_gate, 4),
            row.reached_epoch.map_or_else(|| "–".into(), |epoch| epoch.to_string()),
            loss,
            or_dash(row.net.test_accuracy.map(|share| 100.0 * share), 2),
            row.net.learning_rate.to_string(),
            row.net.seconds.map_or_else(|| "–".into(), duration),
        ]
    };
    markdown::table(&head, &rows.iter().map(row).collect::<Vec<_>>())
}
