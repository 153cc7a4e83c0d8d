//! `rhn compare`: runs in a table, means over seeds, and what differs between their recipes.

use super::output::json_line;
use super::runs::{self, RunArgs};
use crate::study::{Comparison, Measure};

const EXAMPLES: &str = "\
Runs that differ in train.seed alone are also taken together: mean and, in brackets, range of the finished ones.
Of the recipes' keys, only those that are not the same in all runs are shown.

Examples:
  rhn compare checkpoints/*/                                Markdown, to read or to paste
  rhn compare checkpoints/a checkpoints/b --json
  rhn compare checkpoints/*/ --csv > runs.csv
  rhn compare checkpoints/ptb-rhn hf://owner/name --measure nats";

/// Compare runs: sizes, results, speed, and what differs between their recipes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    runs: RunArgs,
    /// The unit of losses [default: bits-per-char for running text of characters and bytes,
    /// nats for labels of sentences and images, else perplexity]
    #[arg(long)]
    measure: Option<Measure>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// Print the runs as CSV (RFC 4180), numbers as they are
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// Compares and prints. Fails if a run cannot be read, or the standard output cannot be written.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let runs = args.runs.read()?;
    let comparison = Comparison::new(&runs, args.measure.unwrap_or_else(|| Measure::usual(&runs)));
    if args.json {
        json_line(&mut std::io::stdout().lock(), &comparison)?;
        return Ok(());
    }
    Ok(runs::print(&if args.csv { comparison.csv() } else { comparison.markdown() })?)
}
