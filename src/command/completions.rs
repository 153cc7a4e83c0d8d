//! `rhn completions`: what a shell needs to complete the command line.

use super::Cli;
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::Write;

const AFTER_HELP: &str = "\
Examples:
  rhn completions bash > ~/.local/share/bash-completion/completions/rhn
  rhn completions zsh  > \"${fpath[1]}/_rhn\"
  rhn completions fish > ~/.config/fish/completions/rhn.fish";

/// Print a script that completes this command line in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The shell to complete in
    shell: Shell,
}

/// Prints the script. Fails if the standard output cannot be written.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new(); // in memory first: the generator panics where it cannot write
    clap_complete::generate(args.shell, &mut Cli::command(), "rhn", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
