//! `rhn runs`: what lies in a directory.

use super::output::json_line;
use super::runs;
use crate::study::overview::{overview, table};
use std::path::PathBuf;

const EXAMPLES: &str = "\
A run is running while a process holds its directory, finished once it has its result, and stopped otherwise:
`rhn train RUN --resume` goes on with it. Losses are perplexity for words and byte pairs, else bits per character.

Examples:
  rhn runs                       what is in checkpoints
  rhn runs sweeps/depth --json   a line for each";

/// List the runs in a directory: running, stopped or finished, best so far, disk used
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Where to look, also in directories below it
    #[arg(value_name = "DIR", default_value = "checkpoints")]
    directory: PathBuf,
    /// Print a line of JSON for each
    #[arg(long)]
    json: bool,
}

/// Looks and prints. Fails if the directory cannot be read.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let found = overview(&args.directory)?;
    if args.json {
        let mut out = std::io::stdout().lock();
        found.iter().try_for_each(|found| json_line(&mut out, found))?;
    } else if found.is_empty() {
        runs::print(&format!("no runs in {}; rhn train begins one\n", args.directory.display()))?;
    } else {
        runs::print(&table(&found))?;
    }
    Ok(())
}
