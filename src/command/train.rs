//! `rhn train`: a recipe, a corpus, a directory; from the first step or where a run left off.

use super::args::{DataArgs, DeviceArgs};
use super::output::{note, note_unseen};
use crate::bench::dry_run;
use crate::config::train::{OnNonFinite, WindowKind};
use crate::console::{print, report};
use crate::data::items::Items;
use crate::error::Result;
use crate::events::Outcome;
use crate::parallel::world::{Solo, World};
use crate::parallel::{self, refuse_ranks};
use crate::readable::{duration, grouped, or_dash, perplexity, shell_quoted};
use crate::run::console::{Console, Shown};
use crate::run::{AnyRun, Ended, Finish, Request, Run};
use crate::signals::Signals;
use crate::task::classify::ClassifyTask;
use crate::task::images::ImageTask;
use crate::task::language::Language;
use crate::task::rescore::Rescoring;
use crate::task::split::SplitSize;
use crate::task::teachers::Teacher;
use crate::task::vae::VaeTask;
use crate::train::limits::{Limits, Stop};
use crate::train::task::Task;
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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
    /// Stop, saved, after this long: 90s, 30m, 8h or 2d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time_limit: Option<Duration>,
    /// At a step whose loss or gradient is not finite: stop the run, or skip the step's update, count it and go on
    #[arg(long, value_name = "stop|skip", value_parser = parse_policy)]
    on_non_finite: Option<OnNonFinite>,
    /// Write the numbers for TensorBoard too, into the run's directory; a run that does goes on doing so
    #[arg(long)]
    tensorboard: bool,
    /// Make one step, then print the memory, the parameters and the time that the whole run will take
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
        write!(std::io::stdout(), "{}", dry_run::report(&request.language()?)?)?;
        return Ok(0);
    }
    let world = parallel::open()?;
    let code = launch(&args.request(world.clone())?, None)?;
    world.close()?;
    Ok(code)
}

impl Args {
    fn request(&self, world: Arc<dyn World>) -> Result<Request> {
        let (device, precision) = self.device.open()?;
        Ok(Request {
            recipe: self.recipe.clone(),
            settings: self.settings.clone(),
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
    let screen = Box::new(Console::new(shown));
    let ended = run.train(screen, signals)?;
    if let Ended::Before(_, finish) = ended {
        report(&format!("the run was finished before{}", advice(finish, &out)));
    }
    match ended {
        Ended::Before(outcome, _) | Ended::Finished(outcome) => {
            print(&closing(&outcome, &out, shown));
            Ok(0)
        }
        Ended::Untested(code) => {
            let out = out.display();
            print(&format!("stopped by a signal before the test was done; saved in {out}, --resume tests"));
            Ok(code)
        }
        Ended::Followed => Ok(0),
        Ended::Stopped(stop) => {
            print(&format!("stopped {}; saved in {}, --resume goes on", reason(stop), out.display()));
            Ok(if let Stop::Signal(code) = stop { code } else { 0 })
        }
    }
}

fn introduce(language: &Language) {
    let (train, valid, test) = language.sizes();
    let tokens = |size: SplitSize| grouped(size.tokens);
    report(&format!(
        "{}: {} training tokens, {} for validation, {} for test, vocabulary of {}",
        language.data().corpus,
        tokens(train),
        tokens(valid),
        test.map_or("none".into(), tokens),
        grouped(language.model().vocab_size as u64)
    ));
    if test.is_none() {
        note("the corpus has no test split; the result will be of the validation split alone");
    }
    for Teacher { name, sha256, model, .. } in language.teachers() {
        let core = &model.config().spec.core;
        report(&format!("teacher {name}: {core}, weights with SHA-256 {}…", &sha256[..12]));
    }
    let replaced = language.tokenizer().unknown_id().is_some();
    note_unseen(train.unseen, "the training split", replaced);
    note_unseen(valid.unseen, "the validation split", replaced);
    note_unseen(test.map_or(0, |test| test.unseen), "the test split", replaced);
}

fn introduce_images(task: &ImageTask) {
    let [train, valid, test] = task.data().tokens.map(grouped);
    let valid =
        if task.corpus().valid.is_some() { valid } else { "none (the loss of training chooses)".into() };
    let classes = task.corpus().classes;
    let name = task.data().corpus;
    report(&format!(
        "{name}: {train} training images, {valid} for validation, {test} for test, {classes} classes"
    ));
}

fn introduce_labelled(task: &ClassifyTask) {
    let [train, valid, test] = task.data().tokens.map(grouped);
    report(&format!(
        "{}: {train} training sentences, {valid} for validation, {test} for test, vocabulary of {}",
        task.data().corpus,
        grouped(task.model().vocab_size as u64)
    ));
    for (name, split) in ["training", "validation", "test"].into_iter().zip(task.splits()) {
        let Some(split) = split else { continue };
        let [words, unknown] = split.words();
        report(&format!(
            "{name}: {} need an edit, {} words, {} of them unknown ({:.1} %)",
            grouped(split.positives()),
            grouped(words),
            grouped(unknown),
            100.0 * unknown as f64 / (words as f64).max(1.0)
        ));
    }
    if task.left_out() > 0 {
        note(&format!("{} elements without any text before the edit are left out", grouped(task.left_out())));
    }
}

fn introduce_lists(task: &Rescoring) {
    let (sizes, unseen) = task.sizes();
    let [train, valid, test] = sizes.map(|size| grouped(size as u64));
    let name = task.data().corpus;
    report(&format!("{name}: {train} n-best lists to train on, {valid} for validation, {test} for test"));
    if unseen > 0 {
        let unseen = grouped(unseen as u64);
        note(&format!("{unseen} words of the lists to train on have symbols that the vocabulary lacks"));
    }
}

fn introduce_sentences(task: &VaeTask) {
    let (train, valid, test) = task.sentences();
    let count = |items: &Items| grouped(items.len() as u64);
    report(&format!(
        "{}: {} training sentences of {} words, {} for validation, {} for test, vocabulary of {}",
        task.data().corpus,
        count(train),
        grouped(train.words()),
        count(valid),
        test.map_or("none".into(), count),
        grouped(task.model().vocab_size as u64)
    ));
    let dropped = [Some(train), Some(valid), test].map(|items| items.map_or(0, |items| items.dropped));
    if let Some(longest) =
        task.recipe().corpus.longest_sentence.filter(|_| dropped.iter().any(|&left| left > 0))
    {
        let [train, valid, test] = dropped.map(grouped);
        note(&format!(
            "sentences of more than {longest} words are left out: {train} of training, {valid} of validation, {test} of test"
        ));
    }
    let replaced = task.tokenizer().unknown_id().is_some();
    let [train, valid] = task.unseen();
    note_unseen(train, "the training split", replaced);
    note_unseen(valid, "the validation split", replaced);
}

fn introduce_training<T: Task>(run: &Run<T>, shown: Shown) {
    let config = &run.task.recipe().train;
    let step = match (shown, config.bptt_steps, config.window) {
        (Shown::Images, ..) => format!("{} images", config.batch_size),
        (Shown::Lists(_), ..) => format!("{} lists", config.batch_size),
        (Shown::Labels | Shown::Sentences(_), ..) => format!("{} sentences", config.batch_size),
        (Shown::Text(_), steps, WindowKind::Fixed) => format!("{} × {steps} tokens", config.batch_size),
        (Shown::Text(_), steps, WindowKind::Variable) => {
            format!("{} × about {steps} tokens", config.batch_size)
        }
    };
    let epoch = run.resumed.as_ref().map_or(0, |resumed| resumed.position.epoch);
    let [all, updated] = run.parameters();
    let of_them = match config.update.is_all() {
        true => String::new(),
        false => format!(" ({} of them updated: {})", grouped(updated), config.update.name()),
    };
    report(&format!(
        "{} parameters{of_them}, {} steps an epoch of {step}, into {}",
        grouped(all),
        grouped(run.task.batch_count(epoch) as u64),
        run.out.display()
    ));
    if let Some(resumed) = &run.resumed {
        report(&format!("going on after step {}", grouped(resumed.position.step)));
    }
}

/// What lets a finished run, or its model, go on.
fn advice(finish: Finish, out: &Path) -> String {
    let Finish { epochs: [done, asked], patience, is_bound, no_longer_falls } = finish;
    let out = shell_quoted(&out.display().to_string());
    let init = format!("rhn train {out} --init-from {out} --out DIR begins another with its weights");
    match patience {
        _ if no_longer_falls => {
            format!(
                ": after epoch {done} of {asked} the loss of the mean of the weights no longer fell; {init}"
            )
        }
        Some(patience) if done < asked => format!(
            ": train.patience = {patience} ended it after epoch {done} of {asked}; a larger one, or 0, lets it go on"
        ),
        _ if is_bound => format!(", and its rate is at the cosine's end; {init}"),
        Some(_) => "; more train.epochs with more train.patience let it go on".into(),
        None => "; more train.epochs let it go on".into(),
    }
}

fn reason(stop: Stop) -> &'static str {
    match stop {
        Stop::Signal(_) => "by a signal",
        Stop::MaxSteps => "by --max-steps",
        Stop::TimeLimit => "by --time-limit",
        Stop::OtherRank => "by another rank",
    }
}

/// The last line: the number that papers publish, and what to do next.
fn closing(outcome: &Outcome, out: &Path, shown: Shown) -> String {
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
    let test = match outcome.test.nats_per_token {
        None => String::new(),
        Some(nats) if outcome.test.decisions.is_some() => {
            let found = outcome.test.decisions.unwrap_or_default();
            let [precision, recall, f1, always] =
                [found.precision, found.recall, found.f1, found.always_yes_f1].map(|share| 100.0 * share);
            format!(
                "test: {nats:.4} nats a sentence, precision {precision:.2} %, recall {recall:.2} %, F1 {f1:.2} % (always yes \
                 {always:.2} %)\n"
            )
        }
        Some(nats) if outcome.test.expected_error_rate.is_some() => {
            let percent = |rate: Option<f64>| 100.0 * number(rate);
            format!(
                "test: word errors {:.2} % ({:.2} % of the first hypotheses, {:.2} % of the oracle), {nats:.4} nats a token of \
                 the references\n",
                percent(outcome.test.word_error_rate),
                percent(outcome.test.word_error_rate_first),
                percent(outcome.test.word_error_rate_oracle)
            )
        }
        Some(nats) if outcome.test.latent.is_some() => {
            let latent = outcome.test.latent.clone().unwrap_or_default();
            format!("test: {}, perplexity {}\n", latent.bound(), perplexity(nats, 2))
        }
        Some(nats) if outcome.test.accuracy.is_some() => {
            let accuracy = 100.0 * number(outcome.test.accuracy);
            format!("test: {nats:.4} nats an image, accuracy {accuracy:.2} %\n")
        }
        Some(nats) => format!(
            "test: {nats:.4} nats a token, perplexity {}, {} bits a character, {} bits a byte (stream)\n",
            perplexity(nats, 2),
            or_dash(outcome.test.bits_per_char, 3),
            or_dash(outcome.test.bits_per_byte, 3)
        ),
    };
    let what = if matches!(shown, Shown::Text(_)) { "sample" } else { "eval" };
    let by = if matches!(shown, Shown::Images) { "" } else { " of the validation split" };
    format!(
        "{test}best epoch {}{by}, {} in all; the model is in {}\ntry: rhn {what} {}",
        outcome.best_epoch.map_or("null".into(), |epoch| epoch.to_string()),
        duration(number(outcome.seconds_total)),
        out.display(),
        shell_quoted(&out.display().to_string())
    )
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
