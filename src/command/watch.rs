//! `rhn watch`: a run's rows as they come.

use super::runs;
use crate::events::Epoch;
use crate::readable::{counted, duration, grouped, or_dash, shell_quoted};
use crate::storage::STATES;
use crate::study::overview::State;
use crate::study::run::Follower;
use crate::study::{Measure, RunHistory};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
What is there is printed at once, and each row as it comes; it ends when the run does, or with Ctrl-C. It only reads:
the run does not know of it.

Examples:
  rhn watch checkpoints/ptb-rhn
  rhn watch checkpoints/ptb-rhn --measure nats --every 10s";

/// Follow a run: its epochs as they end
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The directory of a run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The unit of losses [default: bits-per-char for running text of characters and bytes,
    /// nats for labels of sentences and images, else perplexity]
    #[arg(long)]
    measure: Option<Measure>,
    /// How often to look: 2s, 1m
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = super::train::parse_time)]
    every: Duration,
}

/// What was printed so far.
#[derive(Default)]
struct Printed {
    begun: bool,
    row: Option<u64>,
    step: u64,
}

/// Prints until the run is finished or stopped. Fails if it cannot be read.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut printed = Printed::default();
    let mut follower = Follower::new(&args.run)?;
    loop {
        let (history, anew) = follower.look()?;
        let measure = args.measure.unwrap_or_else(|| Measure::usual([history]));
        if anew {
            printed.go_back(history);
        }
        printed.news(history, measure)?;
        match State::of(history) {
            State::Running => std::thread::sleep(args.every.max(Duration::from_millis(100))),
            State::Finished => return Ok(runs::print(&finish(history, measure))?),
            _ => {
                let path = shell_quoted(&args.run.display().to_string());
                let how = match args.run.join(STATES).exists() {
                    true => format!("stopped; rhn train {path} --resume goes on\n"),
                    false => "stopped before it had saved anything\n".into(),
                };
                return Ok(runs::print(&how)?);
            }
        }
    }
}

impl Printed {
    /// A resumed run does again what came after its last save: those rows are printed again.
    fn go_back(&mut self, run: &RunHistory) {
        let last = run.rows().last().map(|row| row.step);
        self.row = self.row.min(last);
        self.step = self.step.min(run.last_step.as_ref().map_or(0, |step| step.step).max(last.unwrap_or(0)));
    }

    /// Prints the rows that are new, and within an epoch the latest step if there was no row.
    fn news(&mut self, run: &RunHistory, measure: Measure) -> crate::error::Result<()> {
        if !self.begun {
            self.begun = true;
            runs::print(&head(run, measure))?;
        }
        let rows = run.rows();
        let new: Vec<&Epoch> =
            rows.into_iter().filter(|row| self.row.is_none_or(|last| row.step > last)).collect();
        for row in &new {
            runs::print(&line(run, row, measure))?;
            self.row = Some(row.step);
            self.step = self.step.max(row.step);
        }
        if !new.is_empty() || State::of(run) != State::Running {
            return Ok(());
        }
        match run.last_step.as_ref().filter(|step| step.step > self.step) {
            None => Ok(()),
            Some(step) => {
                self.step = step.step;
                let loss = or_dash(step.train_nats_per_token, 3);
                let item = run.item().name();
                runs::print(&format!("  step {}: {loss} nats a {item} in training\n", grouped(step.step)))
            }
        }
    }
}

fn head(run: &RunHistory, measure: Measure) -> String {
    let of = run.epochs_asked().map_or_else(String::new, |asked| format!(", {}", counted(asked, "epoch")));
    let steps = match run.start.steps_per_epoch {
        0 => String::new(),
        steps => format!(" of {}", counted(steps, "step")),
    };
    let parameters = grouped(run.start.parameters);
    format!(
        "{}: {}, {parameters} parameters{of}{steps}; losses in {}\n",
        run.name,
        run.start.corpus,
        measure.name(Some(run.item()))
    )
}

fn line(run: &RunHistory, row: &Epoch, measure: Measure) -> String {
    let shown = |loss: Option<f64>| loss.map_or_else(|| "–".into(), |loss| measure.show(loss));
    let weighed = row.train_nats_per_token.filter(|_| run.is_of_bound());
    let train = match (measure, weighed) {
        (Measure::Perplexity | Measure::Nats, Some(nats)) => format!("{nats:.4} nats of the weighed loss"),
        _ => shown(measure.train(run, row)),
    };
    let valid = shown(measure.valid(run, row));
    let speed = row.tokens_per_second.map_or_else(|| "–".into(), |speed| grouped(speed.round() as u64));
    let time = row.seconds.map_or_else(|| "–".into(), duration);
    let best = if row.best { "  best" } else { "" };
    let step = grouped(row.step);
    format!(
        "epoch {}, step {step}: train {train}, valid {valid}, {speed} {}s/s, {time}{best}\n",
        row.epoch,
        run.item().name()
    )
}

fn finish(run: &RunHistory, measure: Measure) -> String {
    let result = run.result.as_ref();
    let test = measure.test(run);
    let time = run.seconds().map_or_else(|| "–".into(), duration);
    let best =
        result.and_then(|result| result.best_epoch).map_or_else(|| "–".into(), |epoch| epoch.to_string());
    let is_tested = result.is_some_and(|result| result.test.nats_per_token.is_some());
    let test = match test {
        Some(test) => format!("test {}", measure.show(test)),
        None if is_tested => "test –".into(),
        None => "no test".into(),
    };
    format!("finished after {time}: {test}, by the weights of epoch {best}\n")
}
