//! `rhn man`: manual pages, made from the commands' help.

use super::Cli;
use super::output::note;
use crate::error::{Error, Result};
use crate::storage::disk;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  rhn man ~/.local/share/man/man1
  man rhn-train";

/// Write manual pages: rhn.1, rhn-train.1 and so on
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The directory to write them to; pages that are there are replaced
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Writes the pages. Fails if the directory cannot be written.
pub(super) fn run(args: &Args) -> Result<()> {
    disk::make_directory(&args.directory)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let count = write(&command, &args.directory)?;
    note(&format!("{count} pages in {}", args.directory.display()));
    Ok(())
}

/// Writes the command's page and those of the commands below it; how many they are.
fn write(command: &Command, directory: &Path) -> Result<usize> {
    let man = Man::new(command.clone()).manual("rhn").source(source());
    let path = directory.join(man.get_filename());
    let page = page(&man, command).map_err(Error::io(&path))?;
    disk::replace(&path, &page)?;
    let shown = command.get_subcommands().filter(|inner| !inner.is_hide_set());
    shown.map(|inner| write(inner, directory)).try_fold(1, |count, inner| Ok(count + inner?))
}

fn source() -> String {
    format!("rhn {}", env!("CARGO_PKG_VERSION"))
}

/// The page; what follows a command's help, examples for the most part, keeps its lines as they are.
fn page(man: &Man, command: &Command) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.get_subcommands().any(|inner| !inner.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(after) = command.get_after_long_help().or(command.get_after_help()) {
        let mut notes = Roff::new();
        notes.control("SH", ["NOTES"]).control("nf", []);
        for line in after.to_string().lines() {
            notes.text([roman(line)]);
        }
        notes.control("fi", []).to_writer(&mut page)?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::command::Cli;
    use clap::CommandFactory;

    #[test]
    fn every_command_has_a_page_with_its_flags_and_its_examples_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        let count = write(&command, folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), count);
        let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        for inner in command.get_subcommands() {
            let text = page(&format!("rhn-{}.1", inner.get_name()));
            assert!(text.contains(".TH rhn-") && text.contains("SYNOPSIS"), "{text}");
        }
        let train = page("rhn-train.1");
        assert!(train.contains("\\-\\-resume") && train.contains(".nf\n"), "{train}");
        assert!(
            train.contains("\n  rhn train ptb\\-rhn \\-\\-dry\\-run                   how much"),
            "{train}"
        );
        assert!(page("rhn.1").contains("rhn\\-train(1)"));
        assert!(page("rhn-study-depth.1").contains("rhn study depth"));
    }
}
