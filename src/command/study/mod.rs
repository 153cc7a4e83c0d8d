//! `rhn study`: what happens inside a trained model, and what it loses without its parts. One file a study.

mod estimate;
mod lesion;
mod subject;

use super::args::DeviceArgs;

const AFTER_HELP: &str = "\
Each study prints a table, and leaves result.json and tab-separated tables in studies/RUN/STUDY, or
where --out says. docs/studies.md has the definitions, the sources and how to read the figures.

Examples:
  rhn study estimate checkpoints/shakespeare         do its sublayers refine one estimate?
  rhn study lesion checkpoints/shakespeare --swap    what does it lose without one of them?";

/// Study a trained model: its layers' estimates, what it loses without a layer
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    study: Study,
}

#[derive(Debug, clap::Subcommand)]
enum Study {
    Estimate(estimate::Args),
    Lesion(lesion::Args),
}

impl Args {
    /// Where and on how many threads the study computes; `None` if it does not.
    pub(super) fn device(&self) -> Option<&DeviceArgs> {
        match &self.study {
            Study::Estimate(args) => Some(&args.subject.device),
            Study::Lesion(args) => Some(&args.subject.device),
        }
    }
}

/// Runs the study that was asked for. Fails as it does.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.study {
        Study::Estimate(args) => estimate::run(args),
        Study::Lesion(args) => lesion::run(args),
    }
}
