//! `rhn study depth`: plain and highway nets of growing depth on the same images (Srivastava, Greff and Schmidhuber,
//! 2015, section 3).

use super::nets::{Net, NetArgs, Trained, activated, each_once};
use super::published;
use super::subject::report_directory;
use crate::command::output::json_line;
use crate::command::runs;
use crate::error::Error;
use crate::readable::{duration, grouped};
use crate::study::directory::{StudyDirectory, tsv_number};
use crate::study::markdown;
use crate::study::plot::{Bar, DepthCurve, KindBars, KindCurves, depth_bars, training_curves};
use clap::ValueEnum;
use serde::Serialize;

const AFTER_HELP: &str = "\
A net of depth D is a plain layer from the pixels, D − 1 plain or highway layers, and a softmax: 71
units where the layers are plain and 50 where they are highway layers, so that a layer has as many
weights. Losses are over all training images in a pass of their own; the published ones are the best
of 100 runs with settings drawn at random, read off the paper's figures.

Each net is a run in the study's directory: the same command goes on after Ctrl-C, and `rhn plot`,
`rhn eval` and the other studies take them.

Examples:
  rhn study depth                                    eight nets, 20 epochs each
  rhn study depth --quick                            three epochs: a look at it
  rhn study depth --depths 50,100 --epochs 400 --out studies/depth-400
  rhn study depth --depths 900 --kinds highway --transform-bias -4
  rhn study depth --trials 20 --out studies/search   random search, mean and spread of the best tenth";

/// First biases that are tried unless one is given: the first lets little through fifty layers, the second through a
/// hundred.
const BIASES: [f64; 2] = [-2.0, -4.0];

/// What the pictures' vertical axes show.
const LOSS: &str = "nats an image, training images";

/// Train plain and highway nets of growing depth on images
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Hidden layers of the nets
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "10,20,50,100")]
    depths: Vec<usize>,
    /// Kinds of nets
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', default_value = "plain,highway")]
    kinds: Vec<Kind>,
    /// The function of all layers [default: tanh; drawn with --trials]
    #[arg(long, value_enum)]
    activation: Option<ActivationChoice>,
    /// The transform gates' first bias [default: the better of −2 and −4, with the rate; drawn with --trials]
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    transform_bias: Option<f64>,
    #[command(flatten)]
    pub(super) nets: NetArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Plain,
    Highway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ActivationChoice {
    /// Hyperbolic tangent
    Tanh,
    /// max(0, x)
    Relu,
    /// One net with each
    Both,
}

impl ActivationChoice {
    fn each(self) -> &'static [&'static str] {
        match self {
            Self::Tanh => &["tanh"],
            Self::Relu => &["relu"],
            Self::Both => &["tanh", "relu"],
        }
    }
}

/// What `result.json` holds.
#[derive(Serialize)]
struct Found<'a> {
    study: &'static str,
    nets: &'a [Trained],
    summaries: &'a [Summary],
}

/// The trials of one net.
#[derive(Clone, Debug, Serialize)]
struct Summary {
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

/// Trains, prints and keeps. Fails if the images cannot be had, or a run cannot be made.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let nets = args.nets()?;
    let study = args.nets.open("depth")?;
    let trained = study.train(&nets)?;
    let summaries = summaries(&nets, &trained);
    let directory = StudyDirectory::create(Some(&study.out), &study.out, "depth")?;
    let found = Found { study: "depth", nets: &trained, summaries: &summaries };
    keep(&directory, &found)?;
    draw(&directory, &found, args.nets.png)?;
    if args.nets.json {
        json_line(&mut std::io::stdout().lock(), &found)?;
    } else {
        runs::print(&table(&trained, &summaries))?;
    }
    report_directory(&directory);
    Ok(())
}

impl Args {
    fn nets(&self) -> Result<Vec<Net>, Error> {
        if let Some(depth) = self.depths.iter().find(|depth| **depth < 2) {
            return Err(Error::config(format!(
                "--depths {depth}: wanted at least 2, a plain layer and one more"
            )));
        }
        self.nets.refuse(&[("model.core.layers", "--depths"), ("model.core.mixing", "--kinds")])?;
        let is_searched = self.transform_bias.is_none() && !self.nets.gives("model.core.transform_bias")?;
        let biases = if is_searched { &BIASES[..] } else { &[] };
        let activations: Vec<Option<&str>> = match self.activation {
            Some(choice) => choice.each().iter().copied().map(Some).collect(),
            None => vec![None],
        };
        let mut nets = Vec::new();
        for activation in activations {
            for kind in each_once(&self.kinds) {
                nets.extend(
                    each_once(&self.depths)
                        .into_iter()
                        .map(|depth| self.net(kind, depth, activation, biases)),
                );
            }
        }
        Ok(nets)
    }

    fn net(&self, kind: Kind, depth: usize, activation: Option<&str>, biases: &'static [f64]) -> Net {
        let mut usual = Vec::new();
        let mut settings = vec![format!("model.core.layers={}", depth - 1)];
        settings.extend(activation.into_iter().flat_map(activated));
        match kind {
            Kind::Plain => {
                usual.push("model.core.hidden_size=71".into());
                settings.push("model.core.mixing=plain".into());
            }
            Kind::Highway => {
                settings
                    .extend(self.transform_bias.map(|bias| format!("model.core.transform_bias={bias:?}")));
            }
        }
        let kind = if kind == Kind::Plain { "plain" } else { "highway" };
        let biases = if kind == "highway" { biases } else { &[] };
        let suffix = activation.filter(|_| self.activation == Some(ActivationChoice::Both));
        let suffix = suffix.map_or_else(String::new, |activation| format!("-{activation}"));
        Net { name: format!("{kind}-{depth}{suffix}"), kind, depth, usual, settings, biases }
    }
}

fn summaries(nets: &[Net], trained: &[Trained]) -> Vec<Summary> {
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

/// The mean, and with two values or more the standard deviation of a sample.
fn mean_and_sd(values: &[f64]) -> (Option<f64>, Option<f64>) {
    if values.is_empty() {
        return (None, None);
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (Some(mean), (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt()))
}

fn keep(directory: &StudyDirectory, found: &Found<'_>) -> Result<(), Error> {
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
fn draw(directory: &StudyDirectory, found: &Found<'_>, png: bool) -> Result<(), Error> {
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
fn table(trained: &[Trained], summaries: &[Summary]) -> String {
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

#[cfg(test)]
mod tests {
    use super::mean_and_sd;

    #[test]
    fn the_spread_is_that_of_a_sample() {
        assert_eq!(mean_and_sd(&[1.0, 3.0]), (Some(2.0), Some(2f64.sqrt())));
        assert_eq!(mean_and_sd(&[5.0]), (Some(5.0), None));
        assert_eq!(mean_and_sd(&[]), (None, None));
    }
}
