//! `rhn plot`: learning curves of runs, live or finished, as a picture.

use super::output::note;
use super::runs::{self, RunArgs};
use crate::error::{Error, Result};
use crate::storage::aside::Aside;
use crate::study::curve::{Along, CurveSplit, points};
use crate::study::plot::{Axis, Plot, Reference, Series, draw, to_png, to_svg};
use crate::study::{Item, Measure, RunHistory};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
A curve is named at its right end; the number beside the name, and the large dot, are its best epoch's.
Whole lines of metrics.jsonl are all that is read, so a run can be plotted while it trains.

Examples:
  rhn plot checkpoints/shakespeare                          curve.svg, in the current directory
  rhn plot checkpoints/depth/*/ --out depth.png --title \"Depth at equal size\"
  rhn plot a b --label \"one layer\" --label \"two\" --y nats --x time --log-x
  rhn plot checkpoints/ptb-rhn --split both --reference \"67.9=published\"";

/// Draw learning curves of one or more runs, as SVG or PNG
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    runs: RunArgs,
    /// The picture; its ending says which kind
    #[arg(long, value_name = "FILE.svg|FILE.png", default_value = "curve.svg")]
    out: PathBuf,
    #[command(flatten)]
    picture: PictureArgs,
    /// A PNG has this many pixels for each one of --width and --height
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=4))]
    scale: u32,
}

/// What is drawn, and how large.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PictureArgs {
    /// The unit of the loss [default: bits-per-char for running text of characters and bytes,
    /// nats for labels of sentences and images, else perplexity]
    #[arg(long, value_name = "MEASURE")]
    pub(super) y: Option<Measure>,
    /// What the curves go along
    #[arg(long, value_name = "ALONG", default_value = "epoch")]
    pub(super) x: Along,
    /// Which text
    #[arg(long, default_value = "valid")]
    pub(super) split: CurveSplit,
    /// A logarithmic vertical axis, or with =false a linear one [default: logarithmic for perplexity]
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) log_y: Option<bool>,
    /// A logarithmic horizontal axis
    #[arg(long)]
    pub(super) log_x: bool,
    /// A line above the picture
    #[arg(long, value_name = "TEXT")]
    pub(super) title: Option<String>,
    /// Draw a level to compare with, say 65.4="published, test"; may be repeated
    #[arg(long = "reference", value_name = "VALUE[=LABEL]", value_parser = parse_reference)]
    pub(super) references: Vec<Reference>,
    /// The picture's width in pixels
    #[arg(long, value_name = "N", default_value_t = 900, value_parser = clap::value_parser!(u32).range(320..=8000))]
    pub(super) width: u32,
    /// The picture's height in pixels
    #[arg(long, value_name = "N", default_value_t = 540, value_parser = clap::value_parser!(u32).range(240..=8000))]
    pub(super) height: u32,
}

/// Draws, writes the picture and prints its path. Fails if a run cannot be read, none has a point, or the
/// picture cannot be written.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let png = is_png(&args.out)?;
    let runs = args.runs.read()?;
    let mut missing = Vec::new();
    let plot = plot(&args.picture, &runs, &mut missing);
    missing.iter().for_each(|missing| note(missing)); // they say why there may be nothing to draw
    let picture = draw(&plot?);
    let bytes = if png { to_png(&picture, args.scale)? } else { to_svg(&picture).into_bytes() };
    Aside::write_as_named(&args.out, &bytes)?;
    Ok(runs::print(&format!("{}\n", args.out.display()))?)
}

fn is_png(out: &Path) -> Result<bool> {
    match out.extension().and_then(|ending| ending.to_str()).map(str::to_lowercase).as_deref() {
        Some("svg") => Ok(false),
        Some("png") => Ok(true),
        _ => Err(Error::config(format!("--out {}: wanted a name that ends in .svg or .png", out.display()))),
    }
}

/// The picture; what is missing in it is added to `missing`. Fails if no run has a point, or one that its axes cannot show.
pub(super) fn plot(args: &PictureArgs, runs: &[RunHistory], missing: &mut Vec<String>) -> Result<Plot> {
    let measure = args.y.unwrap_or_else(|| Measure::usual(runs));
    let log_y = args.log_y.unwrap_or(measure == Measure::Perplexity);
    let mut series = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        series.extend(curves(args, run, number, measure, missing));
    }
    let positive = |&(x, y): &(f64, f64)| (!args.log_x || x > 0.0) && (!log_y || y > 0.0);
    if series.iter().flat_map(|series| &series.points).any(|point| !positive(point)) {
        let what = "a logarithmic axis cannot show 0; leave out --log-x, or give --log-y=false";
        return Err(Error::config(what));
    }
    series.retain(|series| !series.points.is_empty());
    if series.is_empty() {
        let what = "there is nothing to draw yet: a curve begins with a run's first epoch, and --y nats is what every run has";
        return Err(Error::config(what));
    }
    let (unit, seconds) = time_unit(&series);
    if args.x == Along::Time {
        series.iter_mut().flat_map(|series| &mut series.points).for_each(|point| point.0 /= seconds);
    }
    let x_name = match args.x {
        Along::Epoch => "epoch".into(),
        Along::Step => "steps".into(),
        Along::Tokens => {
            Item::shared(runs).map_or("tokens, sentences, images".into(), |item| format!("{}s", item.name()))
        }
        Along::Time => format!("time ({unit})"),
    };
    Ok(Plot {
        title: args.title.clone(),
        x: Axis { name: x_name, log: args.log_x, whole: args.x != Along::Time, from_zero: true },
        y: Axis {
            name: y_name(measure, Item::shared(runs), args.split),
            log: log_y,
            whole: false,
            from_zero: false,
        },
        series,
        references: args.references.clone(),
        width: args.width,
        height: args.height,
    })
}

/// A run's curves, one a split. What has no point is added to `missing`.
fn curves(
    args: &PictureArgs,
    run: &RunHistory,
    number: usize,
    measure: Measure,
    missing: &mut Vec<String>,
) -> Vec<Series> {
    let curve = |split: &CurveSplit| {
        let points = points(run, *split, args.x, measure);
        if points.is_empty() {
            missing.push(format!("{}: {}", run.name, why_empty(run, *split, measure)));
        }
        let least = points.iter().enumerate().min_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let best = least.map(|(index, point)| (index, measure.show(point.1)));
        let second = args.split == CurveSplit::Both && *split == CurveSplit::Train;
        Series { label: run.name.clone(), color: number, second, best: best.filter(|_| !second), points }
    };
    args.split.each().iter().map(curve).collect()
}

fn why_empty(run: &RunHistory, split: CurveSplit, measure: Measure) -> &'static str {
    match (run.epochs.is_empty(), split, measure) {
        (true, _, _) => "no epoch is done yet; left out",
        (false, CurveSplit::Train, Measure::BitsPerChar) => {
            "bits per character of the training split are not known for this unit; left out"
        }
        (false, _, Measure::Perplexity) if run.item() != Item::Token => "labels have no perplexity; left out",
        (false, CurveSplit::Train, Measure::Perplexity) if run.is_of_bound() => {
            "what a VAE is trained on weighs the KL and has no perplexity; left out"
        }
        (false, _, Measure::BitsPerChar) if !run.is_of_running_text() => {
            "runs that are not of running text have no bits per character; left out"
        }
        (false, _, Measure::BitsPerChar) => {
            "no epoch has bits per character: the loss is not finite, letters hide behind <unk>, or the text is one of shards, which \
             is not measured; left out"
        }
        _ => "no epoch has a finite figure; left out",
    }
}

fn y_name(measure: Measure, item: Option<Item>, split: CurveSplit) -> String {
    let name = measure.name(item);
    match split {
        CurveSplit::Valid => format!("{name}, validation split"),
        CurveSplit::Train => format!("{name}, training split with dropout"),
        CurveSplit::Both => format!("{name}; solid: validation split, dashed: training split with dropout"),
    }
}

/// A time axis's unit and its seconds: the largest that gives the longest curve a few of it.
fn time_unit(series: &[Series]) -> (&'static str, f64) {
    let longest = series.iter().flat_map(|series| &series.points).map(|point| point.0).fold(0.0, f64::max);
    let units = [("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0)];
    units.into_iter().find(|(_, seconds)| longest >= 3.0 * seconds).unwrap_or(units[3])
}

fn parse_reference(text: &str) -> std::result::Result<Reference, String> {
    let (number, label) = text.split_once('=').unwrap_or((text, ""));
    let value = number.trim().parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
    let value = value.ok_or_else(|| format!("{number:?}: wanted a number above 0, say 65.4=published"))?;
    Ok(Reference { value, label: format!("{} {}", label.trim(), number.trim()).trim().to_string() })
}

#[cfg(test)]
mod tests {
    use super::{is_png, parse_reference};
    use std::path::Path;

    #[test]
    fn the_ending_says_which_kind_of_picture() {
        assert!(!is_png(Path::new("a/b.SVG")).unwrap());
        assert!(is_png(Path::new("b.png")).unwrap());
        for wrong in ["curve", "curve.pdf", "svg"] {
            assert_eq!(is_png(Path::new(wrong)).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn a_reference_is_a_level_and_what_it_is() {
        let parsed = parse_reference("65.4=published, test").unwrap();
        assert_eq!((parsed.value, parsed.label.as_str()), (65.4, "published, test 65.4"));
        assert_eq!(parse_reference("65.4").unwrap().label, "65.4");
        assert!(["", "x", "nan", "-1", "=label"].iter().all(|text| parse_reference(text).is_err()));
    }
}
