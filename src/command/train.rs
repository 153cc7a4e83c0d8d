//! `rhn train`: a recipe, a corpus, a directory; from the first step or where a run left off.

mod words;

use super::args::{DataArgs, DeviceArgs};
use super::output::note_if_worse_than_guessing;
use crate::bench::dry_run;
use crate::config::kinds_first;
use crate::config::train::OnNonFinite;
use crate::console::{print, report};
use crate::error::Result;
use crate::parallel::world::{Solo, World};
use crate::parallel::{self, refuse_ranks};
use crate::run::console::{Console, Shown};
use crate::run::{AnyRun, Ended, Prepared, Request, Run};
use crate::signals::Signals;
use crate::train::limits::{Limits, Stop};
use crate::train::step::Stepper;
use crate::train::task::Task;
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use words::{
    advice, closing, introduce, introduce_images, introduce_labelled, introduce_lists, introduce_sentences,
    introduce_training, reason,
};

const EXAMPLES: &str = "\
Examples:
  rhn train                                     Shakespeare, by characters: a few minutes
  rhn train text --corpus my-book.txt           the same on a text of your own
  rhn train ptb-rhn --data-dir ~/corpora        a paper's full run
  rhn train ptb-rhn --set model.core.hidden_size=256 --set train.epochs=5 --out checkpoints/small
  rhn train ptb-rhn --dry-run                   how much memory and time it will take
  rhn train ptb-rhn --resume                    go on after Ctrl-C, --time-limit or a power cut
  rhn train checkpoints/small --resume          the same of any run, with the settings that it has
  rhn train text --corpus my-book.txt --init-from checkpoints/shakespeare
                                                fine-tune: the checkpoint's weights, sizes and vocabulary";

/// Train a model
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A built-in recipe (`rhn recipe list`), a file that ends in .toml, or the directory of a run or checkpoint, whose
    /// own recipe is taken
    #[arg(
        value_name = "RECIPE",
        default_value = "shakespeare",
        value_parser = OsStringValueParser::new().try_map(name_in_a_recipe)
    )]
    recipe: String,
    /// Train on this text instead of the recipe's: a known name, a file, a directory with train, valid and test
    /// files, or - for standard input
    #[arg(long, value_name = "NAME|PATH|-", value_parser = OsStringValueParser::new().try_map(name_in_a_recipe))]
    corpus: Option<String>,
    /// The run's directory [default: the one named instead of a recipe, else checkpoints/RECIPE, or RECIPE-2 … beside a model that came without its training]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Override a key of the recipe, say train.epochs=3; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Go on with the run in the directory; it ends with the same weights as one never stopped
    #[arg(long, conflicts_with = "init_from")]
    resume: bool,
    /// Start from the weights, sizes and vocabulary of this checkpoint, a directory or hf://owner/name; a size that is
    /// set otherwise is refused
    #[arg(long, value_name = "CHECKPOINT")]
    init_from: Option<PathBuf>,
    /// With --init-from: add the characters or words of the training text that its vocabulary lacks; their weights begin
    /// as the mean of the others
    #[arg(long, requires = "init_from")]
    grow_vocab: bool,
    /// Stop, saved, once the run has made this many steps
    #[arg(long, value_name = "N")]
    max_steps: Option<u64>,
    /// Stop, saved, after this long, in a validation or the test too: 90s, 30m, 8h or 2d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time_limit: Option<Duration>,
    /// At a step whose loss or gradient is not finite: stop the run, or skip the step's update, count it and go on
    #[arg(long, value_name = "stop|skip", value_parser = parse_policy)]
    on_non_finite: Option<OnNonFinite>,
    /// Write the numbers for TensorBoard too, into the run's directory; a run that does goes on doing so
    #[arg(long)]
    tensorboard: bool,
    /// Make a few steps, then print the memory, the parameters and the time that the whole run will take
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    #[command(flatten)]
    data: DataArgs,
}

/// Trains, and gives the process's exit code. Fails if the recipe, the corpus or the directory cannot be
/// used, or a number is not finite.
pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    if args.dry_run {
        refuse_ranks("--dry-run")?;
        let request = args.request(Arc::new(Solo))?;
        write!(std::io::stdout(), "{}", dry_run(&request)?)?;
        return Ok(0);
    }
    let world = parallel::open()?;
    let code = launch(&args.request(world.clone())?, None)?;
    world.close()?;
    Ok(code)
}

/// What the run will take.
fn dry_run(request: &Request) -> Result<String> {
    fn of<T: Task>((task, stepper): (T, Stepper<T::Objective>), shown: Shown) -> Result<String> {
        dry_run::of_items(&task, stepper, [shown.units(), shown.units_of_data()])
    }
    match request.prepared()? {
        Prepared::Language(ready) => {
            let (language, stepper) = *ready;
            dry_run::of_text(&language, stepper)
        }
        Prepared::Images(ready) => of(*ready, Shown::Images),
        Prepared::Classify(ready) => of(*ready, Shown::Labels),
        Prepared::Rescoring(ready) => {
            let unit = ready.0.recipe().corpus.unit;
            of(*ready, Shown::Lists(unit))
        }
        Prepared::Vae(ready) => {
            let unit = ready.0.unit();
            of(*ready, Shown::Sentences(unit))
        }
    }
}

impl Args {
    fn request(&self, world: Arc<dyn World>) -> Result<Request> {
        let (device, precision) = self.device.open()?;
        Ok(Request {
            recipe: self.recipe.clone(),
            settings: kinds_first(&self.settings),
            corpus: self.corpus.clone(),
            on_non_finite: self.on_non_finite,
            out: self.out.clone(),
            resume: self.resume,
            init_from: self.init_from.clone(),
            grow_vocab: self.grow_vocab,
            precision,
            device,
            directories: self.data.directories()?,
            limits: Limits { max_steps: self.max_steps, time: self.time_limit },
            tensorboard: self.tensorboard,
            world,
        })
    }
}

/// Trains a run and prints what it came to; the exit code. `signals` are those that the caller listens for already.
pub(super) fn launch(request: &Request, signals: Option<&Signals>) -> Result<u8> {
    let run = request.open()?;
    // Until here nothing is lost if the process is killed.
    let signals = signals.map_or_else(Signals::listen, |signals| Ok(signals.clone()))?;
    match run {
        AnyRun::Language(run) => {
            introduce(&run.task);
            let shown = Shown::Text(run.task.unit());
            train(*run, shown, signals)
        }
        AnyRun::Images(run) => {
            introduce_images(&run.task);
            train(*run, Shown::Images, signals)
        }
        AnyRun::Classify(run) => {
            introduce_labelled(&run.task);
            train(*run, Shown::Labels, signals)
        }
        AnyRun::Rescoring(run) => {
            introduce_lists(&run.task);
            let shown = Shown::Lists(run.task.recipe().corpus.unit);
            train(*run, shown, signals)
        }
        AnyRun::Vae(run) => {
            introduce_sentences(&run.task);
            let shown = Shown::Sentences(run.task.unit());
            train(*run, shown, signals)
        }
    }
}

fn train<T: Task>(run: Run<T>, shown: Shown, signals: Signals) -> Result<u8> {
    introduce_training(&run, shown);
    let out = run.out.clone();
    let uniform = matches!(shown, Shown::Text(_)).then(|| run.task.uniform_nats());
    let screen = Box::new(Console::new(shown));
    let ended = run.train(screen, signals)?;
    if let Ended::Before(_, finish) = ended {
        report(&format!("the run was finished before{}", advice(finish, &out)));
    }
    match ended {
        Ended::Before(outcome, _) | Ended::Finished(outcome) => {
            print(&closing(&outcome, &out, shown));
            note_if_worse_than_guessing(outcome.test.nats_per_token, uniform.unwrap_or(f64::INFINITY));
            Ok(0)
        }
        Ended::Untested(code) => {
            let out = out.display();
            let by = if code == 0 { "at the time limit" } else { "by a signal" };
            print(&format!("stopped {by} before the test was done; saved in {out}, --resume tests"));
            Ok(code)
        }
        Ended::Followed => Ok(0),
        Ended::Stopped(stop) => {
            print(&format!("stopped {}; saved in {}, --resume goes on", reason(stop), out.display()));
            Ok(if let Stop::Signal(code) = stop { code } else { 0 })
        }
    }
}

/// A recipe is a text, so it cannot hold any name of a file.
fn name_in_a_recipe(name: OsString) -> std::result::Result<String, String> {
    let refuse = |name: OsString| {
        let name = name.display();
        format!("{name} is not UTF-8, so no recipe can name it: rename it, or give a text by --corpus -")
    };
    name.into_string().map_err(refuse)
}

fn parse_policy(text: &str) -> std::result::Result<OnNonFinite, String> {
    match text {
        "stop" => Ok(OnNonFinite::Stop),
        "skip" => Ok(OnNonFinite::Skip),
        _ => Err("wanted stop or skip".into()),
    }
}

pub(super) fn parse_time(text: &str) -> std::result::Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "s" | "" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        unit => return Err(format!("unit {unit:?}: wanted s, m, h or d, as in 30m")),
    };
    let number: f64 =
        digits.parse().map_err(|_| format!("{text:?} is not a time such as 90s, 30m, 8h or 2d"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| format!("{text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::parse_time;

    #[test]
    fn times_have_a_unit_and_are_not_negative() {
        let seconds = ["90s", "1.5m", "2h", "1d", "7"].map(|text| parse_time(text).unwrap().as_secs());
        assert_eq!(seconds, [90, 90, 7200, 86_400, 7]);
        for wrong in ["", "m", "-1m", "3w", "nan", "inf"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
