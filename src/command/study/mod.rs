//! `rhn study`: what happens inside a trained model, and what it loses without its parts. One file a study.

mod adapt;
mod bias;
mod depth;
mod estimate;
mod gates;
mod images;
mod lesion;
mod nets;
mod published;
mod search;
mod subject;

use super::args::DeviceArgs;

const AFTER_HELP: &str = "\
Each study prints a table, and all but adapt leave result.json, tab-separated tables and pictures in
studies/RUN/STUDY, or where --out says. docs/studies.md has the definitions,
the sources and how to read the figures.

Examples:
  rhn study estimate checkpoints/shakespeare         do its sublayers refine one estimate?
  rhn study lesion checkpoints/shakespeare --swap    what does it lose without one of them?
  rhn study gates checkpoints/shakespeare            when are its gates open?
  rhn study adapt checkpoints/a checkpoints/b        what did b, adapted from a, gain and lose?
  rhn study depth                                    plain and highway nets of 10 to 100 layers, on MNIST
  rhn study bias --depth 50                          how closed should gates begin?";

/// Study models: depth, gates and their first bias, the layers' estimates, lesions, adaptations
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
    Gates(gates::Args),
    Adapt(adapt::Args),
    Depth(depth::Args),
    Bias(bias::Args),
}

impl Args {
    /// Where and on how many threads the study computes; `None` if it does not.
    pub(super) fn device(&self) -> Option<&DeviceArgs> {
        match &self.study {
            Study::Estimate(args) => Some(&args.subject.device),
            Study::Lesion(args) => Some(&args.subject.device),
            Study::Gates(args) => Some(&args.subject.device),
            Study::Adapt(args) => Some(&args.device),
            Study::Depth(args) => Some(&args.nets.device),
            Study::Bias(args) => Some(&args.nets.device),
        }
    }
}

/// Runs the study that was asked for. Fails as it does.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.study {
        Study::Estimate(args) => estimate::run(args),
        Study::Lesion(args) => lesion::run(args),
        Study::Gates(args) => gates::run(args),
        Study::Adapt(args) => adapt::run(args),
        Study::Depth(args) => depth::run(args),
        Study::Bias(args) => bias::run(args),
    }
}
