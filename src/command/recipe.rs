//! `rhn recipe`: which runs are built in, and the whole configuration of one.

use super::runs::print;
use crate::config::recipe::{BUILT_IN, head};
use crate::config::{Resolved, kinds_first};
use clap::Subcommand;

/// List the built-in recipes, or show one with every value and where it comes from
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The built-in recipes, a line each
    List,
    /// The whole configuration as it would run: TOML that `rhn train` takes as a file
    Show {
        /// A built-in recipe's name, or a file that ends in .toml
        recipe: String,
        /// Override a key of the recipe, say train.epochs=3; may be repeated
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
}

/// Prints the list or the recipe to standard output. Fails if there is no such recipe, a setting is wrong, or
/// standard output cannot be written.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let text = match &args.action {
        Action::List => list(),
        Action::Show { recipe, settings } => show(recipe, settings)?,
    };
    Ok(print(&text)?)
}

fn list() -> String {
    let line = |(name, text): &(&str, &str)| format!("{name:20} {}\n", head(text).next().unwrap_or_default());
    BUILT_IN.iter().map(line).collect()
}

fn show(recipe: &str, settings: &[String]) -> anyhow::Result<String> {
    let resolved = Resolved::new(recipe, &kinds_first(settings))?;
    let comments = BUILT_IN.iter().find(|(name, _)| *name == recipe).map(|(_, text)| head(text));
    let comments: String = comments.into_iter().flatten().map(|line| format!("# {line}\n")).collect();
    Ok(comments + &resolved.describe())
}
