//! `rhn runs`: what lies in a directory.

use super::output::json_line;
use super::runs;
use crate::error::Error;
use crate::study::overview::{overview, table};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where `rhn train` puts runs.
const USUAL: &str = "checkpoints";

const EXAMPLES: &str = "\
A run is running while a process holds its directory, finished once it has its result, and stopped otherwise:
`rhn train RUN --resume` goes on with it. Losses are perplexity for words and byte pairs, nats
for labels of sentences and images, else bits per character.

Examples:
  rhn runs                       what is in checkpoints
  rhn runs sweeps/depth --json   a line for each";

/// List the runs in a directory: running, stopped or finished, best so far, disk used
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Where to look, also in directories below it
    #[arg(value_name = "DIR", default_value = USUAL)]
    directory: PathBuf,
    /// Print a line of JSON for each
    #[arg(long)]
    json: bool,
}

/// Looks and prints. Fails if the directory cannot be read.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let found = match args.directory.exists() {
        true => overview(&args.directory)?,
        false if args.directory == Path::new(USUAL) => Vec::new(), // nothing was trained here yet
        false => return Err(missing(&args.directory).into()),
    };
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

fn missing(directory: &Path) -> Error {
    let what = "no such directory; rhn train begins a run in checkpoints, or in that of --out";
    Error::io(directory)(std::io::Error::new(ErrorKind::NotFound, what))
}
