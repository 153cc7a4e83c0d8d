//! The command line: one file a command, each with its `Args` and `run`.

mod args;
mod bench;
mod compare;
mod completions;
mod compress;
mod data;
mod decompress;
mod eval;
mod export;
mod inspect;
mod judge;
mod man;
mod neighbours;
mod output;
mod overview;
mod packed;
mod plot;
mod recipe;
mod rescore;
mod runs;
mod sample;
mod score;
#[cfg(feature = "serve")]
mod serve;
mod study;
mod sweep;
mod train;
mod watch;

pub use completions::answer_shell;

use crate::parallel;
use crate::signals::Signals;
use args::ThreadArgs;
use clap::{Parser, Subcommand};
use rhn_kernels::{memory, threads};

const AFTER_HELP: &str = "\
CHECKPOINT is a directory that `rhn train` wrote, or hf://owner/name[@revision].

Exit codes: 0 done, 1 reading, writing or computing failed, 2 usage or configuration, 3 data,
4 checkpoint refused, 5 not finite, 6 directory in use, 128 and a signal's number saved and stopped by it.

Examples:
  rhn train                                    learn Shakespeare, into checkpoints/shakespeare
  rhn sample checkpoints/shakespeare           and write like him
  rhn eval checkpoints/shakespeare --json      how well was it learned?
  rhn score checkpoints/shakespeare poem.txt   which words surprise it?";

/// Recurrent highway language models: train, evaluate, score and sample.
#[derive(Debug, Parser)]
#[command(name = "rhn", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What `rhn` says that was asked for nothing.
const GREETING: &str = "\
rhn trains, evaluates and samples recurrent highway language models.
  rhn train                                  learn Shakespeare in a few minutes, or: rhn train text --corpus FILE
  rhn sample checkpoints/shakespeare         write like a model
  rhn score checkpoints/shakespeare FILE     which words surprise it?
  rhn help                                   everything else
";

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    Eval(eval::Args),
    Sample(sample::Args),
    Score(score::Args),
    Judge(judge::Args),
    Rescore(rescore::Args),
    Neighbours(neighbours::Args),
    #[cfg(feature = "serve")]
    Serve(serve::Args),
    Compress(compress::Args),
    Decompress(decompress::Args),
    Export(export::Args),
    Data(data::Args),
    Recipe(recipe::Args),
    Inspect(inspect::Args),
    Bench(bench::Args),
    Plot(plot::Args),
    Compare(compare::Args),
    Runs(overview::Args),
    Watch(watch::Args),
    Sweep(sweep::Args),
    Study(study::Args),
    Run(packed::Args),
    Completions(completions::Args),
    Man(man::Args),
}

impl Cli {
    /// Runs the command that was asked for and gives the process's exit code.
    ///
    /// # Errors
    /// What the command failed with; an `Error` in its chain has the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        memory::keep_pages();
        Signals::ignore_file_size_limit()?;
        let Some(command) = self.command else {
            runs::print(GREETING)?;
            return Ok(0);
        };
        match command.threads() {
            None => command.run(),
            Some(args) => {
                threads::start(args.count().or_else(parallel::local_threads))?;
                threads::on_one(|| command.run())
            }
        }
    }
}

impl Command {
    /// On how many threads the command computes; `None` if it does not.
    fn threads(&self) -> Option<&ThreadArgs> {
        let device = match self {
            Self::Compress(args) => return Some(&args.threads),
            Self::Decompress(args) => return Some(&args.threads),
            Self::Train(args) => Some(&args.device),
            Self::Eval(args) => Some(&args.device),
            Self::Sample(args) => Some(&args.device),
            Self::Score(args) => Some(&args.device),
            Self::Judge(args) => Some(&args.device),
            Self::Rescore(args) => Some(&args.device),
            Self::Neighbours(args) => Some(&args.device),
            Self::Bench(args) => Some(&args.device),
            Self::Sweep(args) => Some(&args.device),
            Self::Study(args) => args.device(),
            Self::Export(_) | Self::Data(_) | Self::Recipe(_) | Self::Inspect(_) => None,
            Self::Plot(_) | Self::Compare(_) | Self::Runs(_) | Self::Watch(_) => None,
            Self::Run(_) | Self::Completions(_) | Self::Man(_) => None,
            #[cfg(feature = "serve")]
            Self::Serve(_) => None, // its threads compute beside the one that this runs on
        };
        device.map(|device| &device.threads)
    }

    fn run(&self) -> anyhow::Result<u8> {
        if !matches!(self, Self::Train(_) | Self::Sweep(_)) {
            parallel::refuse_ranks("this command")?;
        }
        match self {
            Self::Train(args) => return train::run(args),
            Self::Eval(args) => eval::run(args)?,
            Self::Sample(args) => sample::run(args)?,
            Self::Score(args) => score::run(args)?,
            Self::Judge(args) => judge::run(args)?,
            Self::Rescore(args) => rescore::run(args)?,
            Self::Neighbours(args) => neighbours::run(args)?,
            #[cfg(feature = "serve")]
            Self::Serve(args) => serve::run(args)?,
            Self::Compress(args) => compress::run(args)?,
            Self::Decompress(args) => decompress::run(args)?,
            Self::Export(args) => export::run(args)?,
            Self::Data(args) => data::run(args)?,
            Self::Recipe(args) => recipe::run(args)?,
            Self::Inspect(args) => inspect::run(args)?,
            Self::Bench(args) => bench::run(args)?,
            Self::Plot(args) => plot::run(args)?,
            Self::Compare(args) => compare::run(args)?,
            Self::Runs(args) => overview::run(args)?,
            Self::Watch(args) => watch::run(args)?,
            Self::Sweep(args) => return sweep::run(args),
            Self::Study(args) => study::run(args)?,
            Self::Run(args) => packed::run(args)?,
            Self::Completions(args) => completions::run(args)?,
            Self::Man(args) => man::run(args)?,
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
