//! `rhn sweep`: the runs of one file one after another, and all of them in one table.

use super::args::{DataArgs, DeviceArgs};
use super::output::note;
use super::{runs, train};
use crate::config::sweep::Planned;
use crate::config::{Recipe, Resolved, Sweep, kinds_first};
use crate::console::report;
use crate::data::DataDirectories;
use crate::error::Error;
use crate::model::parameter_count;
use crate::parallel;
use crate::parallel::world::{Solo, World};
use crate::readable::{counted, grouped};
use crate::run::Request;
use crate::signals::Signals;
use crate::storage::disk;
use crate::storage::{METRICS, MODEL};
use crate::study::{Comparison, Measure, RunHistory, markdown};
use crate::task::fit;
use crate::task::sizes::Sizes;
use crate::train::limits::Limits;
use anyhow::Context;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const AFTER_HELP: &str = "\
The file, with every key but recipe left out if not needed:
  recipe = \"ptb-rhn\"                        a built-in recipe, or a file that ends in .toml
  out = \"checkpoints/mine\"                  else checkpoints/ and the sweep's name
  seeds = [1, 2]                            each run once with each
  [set]                                     settings of every run
  train.epochs = 20
  [grid]                                    all combinations of these keys' values
  model.core.recurrence_depth = [2, 4]
  [[run]]                                   runs by name, each with every combination of the grid
  name = \"wide\"
  set.model.core.hidden_size = 512

Called again, it passes over finished runs and goes on with the others where they left off.
Ctrl-C saves and stops. The tables of `rhn compare` are printed, and kept as results.md and
results.json beside the runs. A run that diverged, whose numbers are no longer finite, or that
another process trains, does not keep the others from being trained.

Examples:
  rhn sweep recipes/sweeps/ptb-depth.toml --dry-run    what would be trained, with parameter counts
  rhn sweep recipes/sweeps/ptb-depth.toml --time-limit 8h
  rhn plot checkpoints/ptb-depth/*-seed-1              its learning curves";

/// Train several runs one after another, and compare them
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The sweep: recipe, settings, grid, runs and seeds
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,
    /// Where the runs' directories go [default: as the file says, else checkpoints/FILE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Override a key of every run's recipe, say train.epochs=3; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Stop, saved, after this long in all: 90s, 30m, 8h or 2d
    #[arg(long, value_name = "TIME", value_parser = train::parse_time)]
    time_limit: Option<Duration>,
    /// Write each run's numbers for TensorBoard too, into its directory
    #[arg(long)]
    tensorboard: bool,
    /// List the runs with their parameters and how far they are; train nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    #[command(flatten)]
    data: DataArgs,
}

/// Trains what is not finished, compares, and gives the process's exit code. Fails if the file or a run's
/// recipe cannot be used, or a run fails in a way that the next would share.
pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let sweep = Sweep::read(&args.file, &kinds_first(&args.settings))?;
    let out = args.out.as_ref().unwrap_or(&sweep.out);
    if args.dry_run {
        parallel::refuse_ranks("--dry-run")?;
        let table = dry_run(&sweep, out, &args.data.directories()?)?;
        runs::print(&table)?;
        return Ok(0);
    }
    let world = parallel::open()?;
    let own = train_all(args, &sweep, out, &*world);
    // The table is of all ranks' runs, and a rank that failed lets the others finish theirs.
    let codes = world.gather(vec![own.as_ref().map_or_else(Error::exit_code_of, |code| *code)])?;
    own?;
    let code = codes.into_iter().map(|code| code[0]).find(|code| *code != 0).unwrap_or(0);
    if world.rank() == 0 {
        collect(&sweep, out)?;
    }
    world.close()?;
    if !sweep.runs.iter().all(|planned| finished_run(&out.join(&planned.name)).is_some()) {
        report(&format!("not all runs are finished; the same command goes on, in {}", out.display()));
    }
    Ok(code)
}

/// One run after another, of several ranks every so many each; the exit code of the one that stopped the sweep, or of the
/// first that failed.
fn train_all(args: &Args, sweep: &Sweep, out: &Path, world: &dyn World) -> anyhow::Result<u8> {
    let signals = Signals::listen()?;
    let begun = Instant::now();
    let mut failed = 0;
    let own = |number: usize| (number - 1) % world.size() == world.rank();
    let to_begin = sweep
        .runs
        .iter()
        .zip(1..)
        .filter(|(planned, number)| own(*number) && !out.join(&planned.name).exists());
    check_models(to_begin.map(|(planned, _)| planned), &args.data.directories()?)?;
    for (planned, number) in sweep.runs.iter().zip(1..) {
        let directory = out.join(&planned.name);
        if !own(number) {
            continue;
        }
        let head = format!("run {number} of {}: {}", sweep.runs.len(), planned.name);
        if is_finished(planned, &directory) {
            report(&format!("{head}, finished before{}", remarks(args, &directory)?));
            continue;
        }
        let left = args.time_limit.map(|limit| limit.saturating_sub(begun.elapsed()));
        if let Some(code) = signals.received() {
            return Ok(code);
        }
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(failed);
        }
        report(&head);
        match launch(args, planned, &directory, left, &signals) {
            Ok(0) if finished_run(&directory).is_some() => {}
            Ok(0) => return Ok(failed), // by the time limit
            Ok(by_signal) => return Ok(by_signal),
            Err(error) => failed = passed_over(error, &planned.name, failed)?,
        }
    }
    Ok(failed)
}

/// What is to be known of a finished run that is passed over.
fn remarks(args: &Args, directory: &Path) -> anyhow::Result<String> {
    let mut remarks = String::new();
    let (_, asked) = args.device.open()?;
    let precision = finished_run(directory).map(|run| run.start.precision);
    if let Some(precision) = precision.filter(|one| !one.is_empty() && one != asked.as_str()) {
        remarks += &format!(" in {precision}, not {}", asked.as_str());
    }
    if !directory.join(MODEL).exists() {
        remarks += &format!("; its {MODEL} is gone");
    }
    Ok(remarks)
}

/// Refuses runs whose model cannot be made, before the first of several is trained.
fn check_models<'a>(
    to_begin: impl Iterator<Item = &'a Planned>,
    directories: &DataDirectories,
) -> anyhow::Result<()> {
    let to_begin: Vec<&Planned> = to_begin.collect();
    let mut sizes = Sizes::new(directories);
    let [_, _, ..] = to_begin[..] else { return Ok(()) }; // a single one says so itself
    for planned in to_begin {
        sizes.model(&planned.resolved).with_context(|| format!("run {}", planned.name))?;
    }
    Ok(())
}

/// The exit code to end with after an error that is the run's alone; any other ends the sweep.
fn passed_over(error: anyhow::Error, name: &str, failed: u8) -> anyhow::Result<u8> {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<Error>());
    match kind {
        Some(own @ (Error::NotFinite { .. } | Error::Diverged { .. } | Error::Busy { .. })) => {
            note(&format!("run {name}: {own}; going on with the next"));
            Ok(if failed == 0 { own.exit_code() } else { failed })
        }
        _ => Err(error.context(format!("run {name}"))),
    }
}

/// Trains one run, from where it was left if it has begun.
fn launch(
    args: &Args,
    planned: &Planned,
    directory: &Path,
    left: Option<Duration>,
    signals: &Signals,
) -> anyhow::Result<u8> {
    let (device, precision) = args.device.open()?;
    let request = Request {
        recipe: planned.recipe.clone(),
        settings: planned.settings.clone(),
        corpus: None,
        on_non_finite: None,
        out: Some(directory.to_path_buf()),
        resume: directory.exists(),
        init_from: None,
        grow_vocab: false,
        precision,
        device,
        directories: args.data.directories()?,
        limits: Limits { max_steps: None, time: left },
        tensorboard: args.tensorboard,
        world: Arc::new(Solo),
    };
    Ok(train::launch(&request, Some(signals))?)
}

/// Whether the run has its result, by the recipe that it would have now.
fn is_finished(planned: &Planned, directory: &Path) -> bool {
    let same = |run: RunHistory| {
        Recipe::deserialize(run.start.recipe).is_ok_and(|recipe| is_same(&planned.resolved, &recipe))
    };
    finished_run(directory).is_some_and(same)
}

/// Whether a run of `recipe` is the one that is planned; what it made fit a small text does not matter.
fn is_same(planned: &Resolved, recipe: &Recipe) -> bool {
    let mut planned = planned.clone();
    let fits = planned.recipe.train.min_epoch_steps > 0;
    let free: Vec<&str> = fit::KEYS.into_iter().filter(|key| fits && !planned.is_set(key)).collect();
    planned.take(&free, recipe).is_ok() && planned.recipe == *recipe
}

fn finished_run(directory: &Path) -> Option<RunHistory> {
    RunHistory::read(directory).ok().filter(|run| run.result.is_some())
}

/// Compares what there is of the runs; the tables are printed and kept.
fn collect(sweep: &Sweep, out: &Path) -> anyhow::Result<()> {
    let found = begun(sweep, out);
    if found.is_empty() {
        return Ok(());
    }
    let comparison = Comparison::new(&found, Measure::usual(&found));
    let table = comparison.markdown();
    let json = serde_json::to_vec(&comparison)?;
    disk::replace(&out.join("results.md"), table.as_bytes())?;
    disk::replace(&out.join("results.json"), &json)?;
    Ok(runs::print(&format!("\n{table}"))?)
}

/// The runs that have begun; what cannot be read is noted.
fn begun(sweep: &Sweep, out: &Path) -> Vec<RunHistory> {
    let mut found = Vec::new();
    for planned in &sweep.runs {
        let directory = out.join(&planned.name);
        match RunHistory::read(&directory) {
            Ok(run) => found.push(run),
            Err(error) if directory.join(METRICS).exists() => note(&format!("left out: {error}")),
            Err(_) => {} // not begun
        }
    }
    found
}

/// The runs with their parameters.
fn dry_run(sweep: &Sweep, out: &Path, directories: &DataDirectories) -> anyhow::Result<String> {
    let mut sizes = Sizes::new(directories);
    let mut rows = Vec::new();
    let shared = shared(&sweep.runs);
    for planned in &sweep.runs {
        let model = sizes.model(&planned.resolved);
        let parameters = parameter_count(&model.with_context(|| format!("run {}", planned.name))?)?;
        let state = state(planned, &out.join(&planned.name));
        rows.push(vec![planned.name.clone(), grouped(parameters), state, own(planned, &shared)]);
    }
    let table = markdown::table(&["run", "parameters", "state", "settings"].map(String::from), &rows);
    Ok(if shared.is_empty() { table } else { format!("{table}\nall: {}\n", shared.join(" ")) })
}

/// The settings that all of several runs have.
fn shared(runs: &[Planned]) -> Vec<String> {
    let [first, others @ ..] = runs else { return Vec::new() };
    let everywhere = |setting: &&String| others.iter().all(|run| run.settings.contains(setting));
    let shared = first.settings.iter().filter(everywhere).cloned();
    if others.is_empty() { Vec::new() } else { shared.collect() }
}

/// The settings of a run that not all have.
fn own(planned: &Planned, shared: &[String]) -> String {
    let own = planned.settings.iter().filter(|setting| !shared.contains(setting));
    own.cloned().collect::<Vec<_>>().join(" ")
}

fn state(planned: &Planned, directory: &Path) -> String {
    let epochs = planned.resolved.recipe.train.epochs;
    match RunHistory::read(directory) {
        Ok(_) if is_finished(planned, directory) => "finished".into(),
        Ok(run) => {
            let other = match Recipe::deserialize(&run.start.recipe) {
                Ok(recipe) if !is_same(&planned.resolved, &recipe) => {
                    ", by other settings: wants another --out"
                }
                _ => "",
            };
            format!("epoch {} of {epochs}{other}", run.epochs.last().map_or(0, |epoch| epoch.epoch))
        }
        Err(_) => format!("new, {}", counted(epochs, "epoch")),
    }
}
