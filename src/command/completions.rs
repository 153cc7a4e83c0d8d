//! `rhn completions`: what a shell needs to complete the command line.
//!
//! The script that a shell loads asks the program at each press of the tab key, by an environment variable; so recipes and
//! runs are those that are there then.

mod candidates;

use super::Cli;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_complete::env::{CompleteEnv, Shells};
use std::io::Write;

const AFTER_HELP: &str = "\
Recipes, and runs and checkpoints below ./checkpoints, are completed as they are when the tab key is pressed: the script asks
`rhn`, which must be on the PATH. Make the script anew after an update.

Examples:
  rhn completions bash > ~/.local/share/bash-completion/completions/rhn
  rhn completions zsh  > \"${fpath[1]}/_rhn\"
  rhn completions fish > ~/.config/fish/completions/rhn.fish";

/// By this variable, which names the shell, a script asks what a command line could go on with.
const VARIABLE: &str = "RHN_COMPLETE";

/// Print a script that completes this command line in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The shell to complete in
    shell: Shell,
}

/// Prints the script. Fails if the standard output cannot be written.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let shells = Shells::builtins();
    let shell =
        shells.completer(&args.shell.to_string()).expect("every shell that can be named has a script");
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "rhn", "rhn", "rhn", &mut script)?;
    Ok(std::io::stdout().write_all(&script)?)
}

/// Answers a shell's script that asks what a command line could go on with, and ends the process; does nothing in a process
/// that no such script has started.
pub fn answer_shell() {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// The command line, with what each argument may be.
fn command() -> clap::Command {
    candidates::add(Cli::command())
}
