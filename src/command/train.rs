//! `rhn train`: a recipe, a corpus, a directory; from the first step or where a run left off.

use super::args::{DataArgs, DeviceArgs, PrecisionChoice};
use super::output::{note, note_unseen};
use crate::checkpoint::{self, Checkpoint, Lock};
use crate::config::recipe::BUILT_IN;
use crate::config::train::OnNonFinite;
use crate::config::{Recipe, Resolved};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::readable::{duration, grouped, perplexity};
use crate::train::dry_run;
use crate::train::progress::{say, tell};
use crate::train::saved::Resumed;
use crate::train::session::Session;
use crate::train::signals::Signals;
use crate::train::step::Stepper;
use crate::train::stop::{Limits, Outcome, Stop};
use crate::train::trainer::Trainer;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  rhn train                                     Shakespeare, by characters: a few minutes
  rhn train text --corpus my-book.txt           the same on a text of your own
  rhn train ptb-rhn --data-dir ~/corpora        a paper's full run
  rhn train ptb-rhn --set model.core.hidden_size=256 --set train.epochs=5 --out checkpoints/small
  rhn train ptb-rhn --dry-run                   how much memory and time it will take
  rhn train ptb-rhn --resume                    go on after Ctrl-C, --time-limit or a power cut
  rhn train checkpoints/small --resume          the same of any run, with the settings that it has";

/// Train a model
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A built-in recipe (`rhn recipe list`), a file that ends in .toml, or the directory of a run, to go on with its own
    #[arg(value_name = "RECIPE", default_value = "shakespeare")]
    pub(super) recipe: String,
    /// Train on this text instead of the recipe's: a known name, a file, a directory with train, valid and test
    /// files, or - for standard input
    #[arg(long, value_name = "NAME|PATH|-")]
    pub(super) corpus: Option<String>,
    /// The run's directory [default: the one named instead of a recipe, else checkpoints/RECIPE, or RECIPE-2 … beside a model that came without its training]
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Override a key of the recipe, say train.epochs=3; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) settings: Vec<String>,
    /// Go on with the run in the directory; it ends with the same weights as one never stopped
    #[arg(long, conflicts_with = "init_from")]
    pub(super) resume: bool,
    /// Start from the weights and the vocabulary of this checkpoint, a directory or hf://owner/name
    #[arg(long, value_name = "CHECKPOINT")]
    pub(super) init_from: Option<String>,
    /// Compute with these numbers
    #[arg(long, default_value = "f32")]
    pub(super) precision: PrecisionChoice,
    /// Stop, saved, once the run has made this many steps
    #[arg(long, value_name = "N")]
    pub(super) max_steps: Option<u64>,
    /// Stop, saved, after this long: 90s, 30m, 8h or 2d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) time_limit: Option<Duration>,
    /// At a step whose loss or gradient is not finite: stop the run, or skip the step's update, count it and go on
    #[arg(long, value_name = "stop|skip", value_parser = parse_policy)]
    pub(super) on_non_finite: Option<OnNonFinite>,
    /// Make one step, then tell the memory, the parameters and the time that the whole run will take
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    #[command(flatten)]
    pub(super) data: DataArgs,
}

/// Trains, and gives the process's exit code.
///
/// # Errors
/// If the recipe, the corpus or the directory cannot be used, or a number is not finite.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    launch(args, None)
}

/// As [`run`], with `signals` that someone listens for already.
pub(super) fn launch(args: &Args, signals: Option<&Signals>) -> anyhow::Result<u8> {
    let device = args.device.open()?;
    let run = run_directory(&args.recipe);
    let saved = run.as_ref().map(|run| run.join(checkpoint::RECIPE).to_string_lossy().into_owned());
    let mut resolved = Resolved::new(saved.as_ref().unwrap_or(&args.recipe), &args.settings)?;
    if let Some(corpus) = &args.corpus {
        resolved.recipe.corpus.name = corpus.clone();
    }
    if let Some(policy) = args.on_non_finite {
        resolved.recipe.train.on_non_finite = policy;
    }
    let open = |name: &String| Checkpoint::open(&checkpoint::resolve(name)?);
    let init_from = args.init_from.as_ref().map(open).transpose()?;
    let parse = |from: &Checkpoint| Tokenizer::parse(&from.tokenizer_path, &from.tokenizer);
    let tokenizer = init_from.as_ref().map(parse).transpose()?;
    if args.dry_run {
        let session = prepare(args, resolved.recipe, tokenizer, &device)?;
        write!(std::io::stdout(), "{}", dry_run::report(&session)?)?;
        return Ok(0);
    }
    let out = args.out.clone().or(run);
    let out = out.unwrap_or_else(|| default_place(Path::new("checkpoints"), &resolved.name));
    let held = if out.exists() { Some(hold(&out, args.resume)?) } else { None };
    let resumed = resume(args, &out, &resolved.recipe)?;
    let tokenizer = resumed.as_ref().map(|resumed| resumed.tokenizer.clone()).or(tokenizer);
    let session = prepare(args, resolved.recipe, tokenizer, &device)?;
    resumed.as_ref().map_or(Ok(()), |resumed| resumed.check_session(&session))?;
    let stepper = session.stepper(init_from.as_ref())?;
    // Only now, when all is known to fit, a directory is made: a failed start leaves none behind.
    let _lock = held.map_or_else(|| hold(&out, false), Ok)?;
    Ok(train(args, &session, stepper, &out, resumed.as_ref(), signals)?)
}

/// The run that is named in place of a recipe, unless a built-in recipe is called so too.
fn run_directory(name: &str) -> Option<PathBuf> {
    let is_built_in = BUILT_IN.iter().any(|(known, _)| *known == name);
    let directory = PathBuf::from(name);
    (!is_built_in && directory.join(checkpoint::RECIPE).is_file()).then_some(directory)
}

/// `NAME` in `checkpoints`, or `NAME-2`, … where a model lies that came without its training state, as the one that
/// comes with this program.
fn default_place(checkpoints: &Path, name: &str) -> PathBuf {
    let numbered = (2..).map(|number| checkpoints.join(format!("{name}-{number}")));
    let mut places = std::iter::once(checkpoints.join(name)).chain(numbered);
    let has = |place: &Path, file: &str| place.join(file).exists();
    let is_given = |place: &PathBuf| has(place, checkpoint::MODEL) && !has(place, checkpoint::STATES);
    places.find(|place| !is_given(place)).expect("there are numbers enough")
}

/// Locks the run's directory, which is made if need be, and finishes what a kill interrupted there.
/// Unless it is to be resumed, no run may be there.
fn hold(out: &Path, resume: bool) -> Result<Lock> {
    if out.exists() && !out.is_dir() {
        return Err(Error::config(format!("--out {}: is a file, wanted a directory", out.display())));
    }
    let lock = Lock::acquire(out)?;
    checkpoint::recover(out)?;
    if !resume {
        check_fresh(out)?;
    }
    Ok(lock)
}

/// The training state to go on with, if that is asked for and there is one.
fn resume(args: &Args, out: &Path, recipe: &Recipe) -> Result<Option<Resumed>> {
    if !args.resume {
        return Ok(None);
    }
    let resumed = Resumed::find(out, note)?;
    match &resumed {
        Some(resumed) => resumed.check_settings(recipe)?,
        None if out.join(checkpoint::MODEL).exists() => {
            let what = "has a model but no training state to go on with; --init-from begins another run with its weights";
            return Err(Error::checkpoint(out, what));
        }
        None => note(&format!("{}: no saved training state; beginning at the first step", out.display())),
    }
    Ok(resumed)
}

/// Refuses to train over a run that is there.
fn check_fresh(out: &Path) -> Result<()> {
    let holds = |name: &str| out.join(name).exists();
    let names = [checkpoint::MANIFEST, checkpoint::CONFIG, checkpoint::MODEL, checkpoint::STATES, ".pending"];
    match names.into_iter().find(|name| holds(name)) {
        Some(name) => Err(Error::config(format!(
            "{}: a run is there already ({name}); --resume goes on with it, --out begins another",
            out.display()
        ))),
        None => Ok(()),
    }
}

fn prepare(
    args: &Args,
    recipe: Recipe,
    tokenizer: Option<Tokenizer>,
    device: &candle_core::Device,
) -> Result<Session> {
    Session::prepare(recipe, &args.data.places()?, tokenizer, args.precision.on(device)?, device)
}

fn train(
    args: &Args,
    session: &Session,
    stepper: Stepper,
    out: &Path,
    resumed: Option<&Resumed>,
    signals: Option<&Signals>,
) -> Result<u8> {
    // Until here nothing is lost if the process is killed.
    let signals = signals.map_or_else(Signals::listen, |signals| Ok(signals.clone()))?;
    introduce(session, stepper.parameters.count(), out, resumed);
    let limits = Limits { max_steps: args.max_steps, time: args.time_limit };
    let mut trainer = Trainer::new(session, stepper, out, resumed, signals, limits)?;
    if let Some(result) = trainer.finished() {
        tell("the run was finished before; more train.epochs or train.patience let it go on");
        say(&closing(&result, out));
        return Ok(0);
    }
    match trainer.run()? {
        Outcome::Finished => match trainer.result() {
            Ok(result) => {
                say(&closing(&result, out));
                Ok(0)
            }
            Err(Error::Stopped { code }) => {
                say(&format!(
                    "stopped by a signal before the test was done; saved in {}, --resume tests",
                    out.display()
                ));
                Ok(code)
            }
            Err(error) => Err(error),
        },
        Outcome::Stopped(stop) => {
            say(&format!("stopped {}; saved in {}, --resume goes on", reason(stop), out.display()));
            Ok(if let Stop::Signal(code) = stop { code } else { 0 })
        }
    }
}

fn introduce(session: &Session, parameters: u64, out: &Path, resumed: Option<&Resumed>) {
    let tokens = |text: &crate::data::Encoded| grouped(text.tokens.len() as u64);
    tell(&format!(
        "{}: {} training tokens, {} for validation, {} for test, {} types",
        session.corpus,
        tokens(&session.train),
        tokens(&session.valid),
        session.test.as_ref().map_or("none".into(), tokens),
        grouped(session.model.vocab_size as u64)
    ));
    if session.test.is_none() {
        note("the corpus has no test split; the result will be of the validation split alone");
    }
    let replaced = session.tokenizer.unknown_id().is_some();
    note_unseen(session.valid.unseen, "the validation split", replaced);
    note_unseen(session.test.as_ref().map_or(0, |test| test.unseen), "the test split", replaced);
    let windows = session.lanes.window_count() as u64;
    tell(&format!(
        "{} parameters, {} steps an epoch of {} × {} tokens, into {}",
        grouped(parameters),
        grouped(windows),
        session.recipe.train.batch_size,
        session.recipe.train.bptt_steps,
        out.display()
    ));
    if let Some(resumed) = resumed {
        tell(&format!("going on after step {}", grouped(resumed.position.step)));
    }
}

fn reason(stop: Stop) -> &'static str {
    match stop {
        Stop::Signal(_) => "by a signal",
        Stop::MaxSteps => "by --max-steps",
        Stop::TimeLimit => "by --time-limit",
    }
}

/// The last line: the number that papers publish, and what to do next.
fn closing(result: &serde_json::Value, out: &Path) -> String {
    let number = |key: &str| result[key].as_f64().unwrap_or(f64::NAN);
    let test = match result["nats_per_token"].as_f64() {
        None => String::new(),
        Some(nats) => format!(
            "test: {nats:.4} nats a token, perplexity {}, {:.3} bits a character, {:.3} bits a byte (stream)\n",
            perplexity(nats, 2),
            number("bits_per_char"),
            number("bits_per_byte")
        ),
    };
    format!(
        "{test}best epoch {} of the validation split, {} in all; the model is in {}\ntry: rhn sample {}",
        result["best_epoch"],
        duration(number("seconds_total")),
        out.display(),
        out.display()
    )
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
    use super::{default_place, parse_time};
    use crate::checkpoint::{MODEL, STATES};
    use std::fs;

    #[test]
    fn a_model_that_was_given_keeps_its_place_and_a_run_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = || default_place(folder.path(), "bard").file_name().unwrap().to_owned();
        assert_eq!(place(), "bard");
        fs::create_dir(folder.path().join("bard")).unwrap();
        fs::write(folder.path().join("bard").join(MODEL), "").unwrap();
        assert_eq!(place(), "bard-2");
        fs::create_dir_all(folder.path().join("bard-2").join(STATES)).unwrap();
        fs::write(folder.path().join("bard-2").join(MODEL), "").unwrap();
        assert_eq!(place(), "bard-2"); // --resume goes on with it
        fs::create_dir(folder.path().join("bard").join(STATES)).unwrap();
        assert_eq!(place(), "bard");
    }

    #[test]
    fn times_have_a_unit_and_are_not_negative() {
        let seconds = ["90s", "1.5m", "2h", "1d", "7"].map(|text| parse_time(text).unwrap().as_secs());
        assert_eq!(seconds, [90, 90, 7200, 86_400, 7]);
        for wrong in ["", "m", "-1m", "3w", "nan", "inf"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
