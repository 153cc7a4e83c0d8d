//! `rhn bench`: how fast this machine trains, evaluates and samples a recipe's model.

use super::args::{DataArgs, DeviceArgs};
use super::output::{json_line, note};
use crate::bench::report::{BenchReport, Machine, What};
use crate::bench::speed::Speed;
use crate::bench::subject::Subject;
use crate::bench::training::{Products, Training};
use crate::config::{Resolved, kinds_first};
use crate::console::Line;
use crate::readable::{counted, duration, grouped};
use crate::train::task::Task;
use clap::ValueEnum;
use std::io::Write;

const AFTER_HELP: &str = "\
Training is whole steps: masks, forward, backward, clipping, update. Stream evaluation and sampling
have batch 1. A rate is the median of several repeats, the lowest and the highest beside it; memory
is the process's peak until then. Where the corpus is not on this machine, a made-up text with as
large a vocabulary replaces it; nothing is fetched.

--json has recipe, corpus, made_up, vocab_size, parameters, device, gpu (where there is one),
precision, threads, and
  stream   tokens_per_second (the median), lowest, highest, repeats (each), peak_memory_mib,
           peak_device_memory_mib (on a GPU)
  sample   the same
  train    the same, and tokens_per_step, distinct_tokens_per_step, step_seconds, flops_per_step,
           gflops, share_of_gemm_peak, parts (part, seconds, share), epochs, epoch_seconds,
           run_seconds; without the three of products where these do not follow from the model's
           sizes (sampled words, teachers, an output that computes its words)
  machine  gemm_peak_gflops (by precision), memory_gb_per_second

Examples:
  rhn bench ptb-rhn                       a minute or so
  rhn bench enwik8-rhn --only train       a part of it
  rhn bench shakespeare --threads 1 --set model.core.hidden_size=512
  rhn bench ptb-rhn --json > speed.json   one object";

/// Measure the speed of training, evaluation and sampling on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A built-in recipe (`rhn recipe list`) or a file that ends in .toml
    #[arg(value_name = "RECIPE", default_value = "shakespeare")]
    recipe: String,
    /// Override a key of the recipe, say train.batch_size=64; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Measure these alone, separated by commas
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    only: Vec<What>,
    /// Repeat each measurement so often [default: 3 to 10 times, as time allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    repeats: Option<u16>,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Measures and prints. Fails if the recipe cannot be run, or the standard output cannot be written.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let (device, precision) = args.device.open()?;
    let resolved = Resolved::new(&args.recipe, &kinds_first(&args.settings))?;
    let directories = args.data.directories()?;
    let subject = Subject::prepare(resolved.recipe, &directories, precision, &device)?;
    if subject.made_up {
        let corpus = subject.language.data().corpus;
        let size = grouped(subject.language.model().vocab_size as u64);
        note(&format!(
            "{corpus} is not on this machine; a made-up text with a vocabulary of {size} replaces it"
        ));
    }
    let mut line = Line::new();
    let mut progress = |what: &str, done, all| line.measuring(what, done, all);
    let repeats = args.repeats.map(usize::from);
    let whats = if args.only.is_empty() { What::value_variants() } else { &args.only };
    let report = BenchReport::measure(&resolved.name, &subject, whats, repeats, &mut progress);
    line.clear();
    let report = report?;
    let mut out = std::io::stdout().lock();
    let printed = if args.json { json_line(&mut out, &report) } else { print(&mut out, &report) };
    Ok(printed?)
}

fn print(out: &mut impl Write, report: &BenchReport) -> std::io::Result<()> {
    writeln!(
        out,
        "{} on {}{}: {} parameters, vocabulary of {}; {} on {}, {}",
        report.recipe,
        report.corpus,
        if report.made_up { " (made up)" } else { "" },
        grouped(report.parameters),
        grouped(report.vocab_size as u64),
        report.precision,
        report.device,
        counted(report.threads as u64, "thread")
    )?;
    if let Some(gpu) = &report.gpu {
        writeln!(out, "{gpu}")?;
    }
    print_rates(out, report)?;
    if let Some(train) = &report.train {
        print_parts(out, train)?;
        print_run(out, train)?;
    }
    report.machine.as_ref().map_or(Ok(()), |machine| print_machine(out, machine))
}

fn print_rates(out: &mut impl Write, report: &BenchReport) -> std::io::Result<()> {
    let train = report.train.as_ref().map(|train| &train.rate);
    let others = [("stream evaluation", report.stream.as_ref()), ("sampling", report.sample.as_ref())];
    let all = [("training", train)].into_iter().chain(others);
    let rates: Vec<(&str, &Speed)> = all.filter_map(|(name, rate)| Some((name, rate?))).collect();
    if !rates.is_empty() {
        let head =
            ["tokens/s", "lowest", "highest", "repeats", "peak MiB"].map(|name| format!("  {name:>9}"));
        writeln!(out, "\n{:17}{}", "", head.concat())?;
    }
    let device_peak = rates.iter().filter_map(|(_, rate)| rate.peak_device_memory_mib).max();
    for (name, rate) in rates {
        let speeds = [rate.tokens_per_second, rate.lowest, rate.highest].map(|speed| speed.round() as u64);
        let others = [rate.repeats.len() as u64, rate.peak_memory_mib.unwrap_or(0)];
        let cells = [&speeds[..], &others].concat();
        let cells: String = cells.into_iter().map(|cell| format!("  {:>9}", grouped(cell))).collect();
        writeln!(out, "{name:17}{cells}")?;
    }
    if let Some(mib) = device_peak {
        writeln!(out, "of the GPU's memory at most {} MiB", grouped(mib))?;
    }
    writeln!(out)
}

fn print_parts(out: &mut impl Write, train: &Training) -> std::io::Result<()> {
    if train.parts.is_empty() {
        return Ok(());
    }
    let tokens = grouped(train.tokens_per_step);
    let distinct = train.distinct_tokens_per_step.round();
    writeln!(out, "a step of {tokens} tokens, {distinct} different ones")?;
    for part in &train.parts {
        let name = part.part.name();
        let milliseconds = part.seconds * 1e3;
        let percent = part.share * 100.0;
        writeln!(out, "  {name:20}  {milliseconds:>9.2} ms  {percent:>5.1} %")?;
    }
    writeln!(out)
}

fn print_run(out: &mut impl Write, train: &Training) -> std::io::Result<()> {
    if let Some(Products { flops_per_step, gflops, share_of_gemm_peak }) = train.products {
        let share = share_of_gemm_peak.map(|share| format!(", {:.1} % of the peak", share * 100.0));
        let per_step = flops_per_step / 1e9;
        let share = share.unwrap_or_default();
        writeln!(out, "products           {per_step:.1} GFLOP a step, {gflops:.1} GFLOP/s{share}")?;
    }
    writeln!(out, "an epoch           {}", duration(train.epoch_seconds))?;
    let run = duration(train.run_seconds);
    let epochs = counted(train.epochs, "epoch");
    writeln!(out, "the whole run      {run} for {epochs}, the test apart")
}

fn print_machine(out: &mut impl Write, machine: &Machine) -> std::io::Result<()> {
    for (precision, gflops) in &machine.gemm_peak_gflops {
        writeln!(out, "peak of products   {gflops:.0} GFLOP/s in {precision}")?;
    }
    writeln!(out, "memory             {:.1} GB/s", machine.memory_gb_per_second)
}
