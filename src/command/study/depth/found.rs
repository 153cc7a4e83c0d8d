//! What the nets of the study came to: a summary of each net's trials, tables and pictures.

use super::super::nets::{Net, Trained};
use super::super::published;
use crate::error::Error;
use crate::readable::{duration, grouped};
use crate::study::directory::{StudyDirectory, tsv_number};
use crate::study::markdown;
use crate::study::plot::{Bar, DepthCurve, KindBars, KindCurves, depth_bars, training_curves};
use crate::study::seeds::mean_and_sd;
use serde::Serialize;

/// What the pictures' vertical axes show.
const LOSS: &str = "nats an image, training images";

/// What `result.json` holds.
#[derive(Serialize)]
pub(super) struct Found<'a> {
    pub(super) study: &'static str,
    pub(super) nets: &'a [Trained],
    pub(super) summaries: &'a [Summary],
}

/// The trials of one net.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    net: String,
    kind: &'static str,
    depth: usize,
    trials: usize,
    failed: usize,
    /// Over the best tenth of the trials, one at least: losses after the last epoch.
    best_tenth: usize,
    mean: Option<f64>,
    sd: Option<f64>,
    published_epoch: Option<u64>,
    published_nats: Option<f64>,
}

/// Of each net its trials together.
pub(super) fn summaries(nets: &[Net], trained: &[Trained]) -> Vec<Summary> {
    let of_net = |net: &Net| {
        let trials: Vec<&Trained> = trained.iter().filter(|trial| trial.net == net.name).collect();
        let mut losses: Vec<f64> = trials.iter().filter_map(|trial| trial.last_train_nats).collect();
        losses.sort_by(f64::total_cmp);
        let best_tenth = trials.len().div_ceil(10).min(losses.len());
        let (mean, sd) = mean_and_sd(&losses[..best_tenth]);
        let epochs = trials.iter().map(|trial| trial.epochs).max().unwrap_or(0);
        let published = published::loss(net.kind, net.depth, epochs);
        Summary {
            net: net.name.clone(),
            kind: net.kind,
            depth: net.depth,
            trials: trials.len(),
            failed: trials.iter().filter(|trial| trial.failed.is_some()).count(),
            best_tenth,
            mean,
            sd,
            published_epoch: published.map(|(epoch, _)| epoch),
            published_nats: published.map(|(_, nats)| nats),
        }
    };
    nets.iter().map(of_net).collect()
}

/// Writes the nets and their curves as tables, and the result.
pub(super) fn keep(directory: &StudyDirectory, found: &Found<'_>) -> Result<(), Error> {
    const HEAD: [&str; 16] = [
        "net",
        "kind",
        "depth",
        "trial",
        "units",
        "weights",
        "learning_rate",
        "momentum",
        "decay",
        "activation",
        "transform_bias",
        "best_train_nats",
        "last_train_nats",
        "train_accuracy",
        "test_accuracy",
        "failed",
    ];
    let row = |net: &Trained| {
        let names = [net.net.clone(), net.kind.into(), net.depth.to_string(), net.trial.to_string()];
        let sizes = [net.units.to_string(), net.weights.to_string()];
        let rates = [net.learning_rate, net.momentum, net.decay].map(|value| tsv_number(Some(value)));
        let figures = [
            net.transform_bias,
            net.best_train_nats,
            net.last_train_nats,
            net.train_accuracy,
            net.test_accuracy,
        ];
        let mut row: Vec<String> = names.into_iter().chain(sizes).chain(rates).collect();
        row.push(net.activation.clone());
        row.extend(figures.map(tsv_number));
        row.push(net.failed.clone().unwrap_or_default());
        row
    };
    directory.write_table("nets", &HEAD, &found.nets.iter().map(row).collect::<Vec<_>>())?;
    let point = |net: &Trained, (epoch, nats): &(u64, f64)| {
        vec![net.net.clone(), net.trial.to_string(), epoch.to_string(), tsv_number(Some(*nats))]
    };
    let points: Vec<_> =
        found.nets.iter().flat_map(|net| net.curve.iter().map(move |at| point(net, at))).collect();
    directory.write_table("curves", &["net", "trial", "epoch", "train_nats"], &points)?;
    directory.write_result(found)
}

/// The best trials' curves, a panel for each kind, and the losses by depth; whiskers are the spread of several trials.
pub(super) fn draw(directory: &StudyDirectory, found: &Found<'_>, png: bool) -> Result<(), Error> {
    let kinds: Vec<&str> = ["plain", "highway"]
        .into_iter()
        .filter(|kind| found.summaries.iter().any(|summary| summary.kind == *kind))
        .collect();
    let of_kind = |kind: &str| -> Vec<&Summary> {
        found.summaries.iter().filter(|summary| summary.kind == kind).collect()
    };
    let curves = |kind: &&str| KindCurves {
        kind: (*kind).into(),
        curves: of_kind(kind)
            .into_iter()
            .filter_map(|summary| {
                let best = best(found.nets, summary)?;
                let points = best.curve.iter().map(|(epoch, nats)| (*epoch as f64, *nats)).collect();
                Some(DepthCurve { depth: summary.depth, points })
            })
            .collect(),
    };
    let curves: Vec<KindCurves> = kinds.iter().map(curves).collect();
    directory.write_figure("curves", &training_curves("Training loss by depth", LOSS, &curves), png)?;
    let mut depths: Vec<usize> = found.summaries.iter().map(|summary| summary.depth).collect();
    depths.sort_unstable();
    depths.dedup();
    let bars = |kind: &&str| KindBars {
        kind: (*kind).into(),
        bars: depths
            .iter()
            .map(|depth| {
                let summary = of_kind(kind).into_iter().find(|summary| summary.depth == *depth)?;
                let value = summary.mean?;
                let end = |sign: f64| summary.sd.map(|sd| value + sign * sd);
                Some(Bar { value, low: end(-1.0), high: end(1.0) })
            })
            .collect(),
    };
    let bars = kinds.iter().map(bars).collect();
    directory.write_figure(
        "depths",
        &depth_bars("Training loss after the last epoch", LOSS, &depths, bars),
        png,
    )
}

/// The trial of a net with the least loss.
fn best<'a>(nets: &'a [Trained], summary: &Summary) -> Option<&'a Trained> {
    let of_net = nets.iter().filter(|net| net.net == summary.net);
    of_net.min_by(|a, b| least(a).total_cmp(&least(b)))
}

/// The best trial of each net, beside what was published.
pub(super) fn table(trained: &[Trained], summaries: &[Summary]) -> String {
    let several = summaries.iter().any(|summary| summary.trials > 1);
    let mut head = vec![
        "kind",
        "depth",
        "units",
        "weights",
        "rate",
        "bias",
        "train nats, last",
        "best",
        "published",
        "train %",
        "test %",
        "time",
    ];
    if several {
        head.extend(["mean of the best tenth", "sd", "failed"]);
    }
    let head: Vec<String> = head.into_iter().map(String::from).collect();
    let mut rows = Vec::new();
    for summary in summaries {
        let Some(net) = best(trained, summary) else { continue };
        let percent =
            |share: Option<f64>| share.map_or_else(|| "–".into(), |share| format!("{:.2}", 100.0 * share));
        let published = match (summary.published_epoch, summary.published_nats) {
            (Some(epoch), Some(loss)) => format!("{} (epoch {epoch})", nats(Some(loss))),
            _ => "–".into(),
        };
        let mut row = vec![
            net.kind.into(),
            net.depth.to_string(),
            net.units.to_string(),
            grouped(net.weights),
            format!("{:.3}", net.learning_rate),
            net.transform_bias.map_or_else(|| "–".into(), |bias| bias.to_string()),
            net.failed.as_ref().map_or_else(|| nats(net.last_train_nats), |_| "left its course".into()),
            nats(net.best_train_nats),
            published,
            percent(net.train_accuracy),
            percent(net.test_accuracy),
            net.seconds.map_or_else(|| "–".into(), duration),
        ];
        if several {
            row.extend([
                nats(summary.mean),
                nats(summary.sd),
                format!("{} of {}", summary.failed, summary.trials),
            ]);
        }
        rows.push(row);
    }
    markdown::table(&head, &rows) + &ratios(summaries)
}

/// The loss by which a net's trials are compared; a trial without one is the last.
fn least(net: &Trained) -> f64 {
    net.last_train_nats.unwrap_or(f64::INFINITY)
}

/// How many times lower the highway nets' losses are.
fn ratios(summaries: &[Summary]) -> String {
    let mut lines = String::new();
    for highway in summaries.iter().filter(|summary| summary.kind == "highway") {
        let twin = highway.net.replacen("highway", "plain", 1);
        let plain = summaries.iter().find(|other| other.net == twin);
        if let Some((plain, own)) = plain.and_then(|plain| plain.mean.zip(highway.mean)) {
            lines +=
                &format!("depth {}: plain {:.2} times the highway net's loss\n", highway.depth, plain / own);
        }
    }
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

fn nats(value: Option<f64>) -> String {
    value.map_or_else(
        || "–".into(),
        |nats| if nats < 0.1 { format!("{nats:.2e}") } else { format!("{nats:.3}") },
    )
}
