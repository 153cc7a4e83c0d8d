//! What an argument may be: recipes by name, runs and checkpoints below `checkpoints`, else a path.

use crate::config::recipe::{BUILT_IN, head};
use crate::storage::{CONFIG, METRICS, MODEL};
use crate::study::overview::places;
use clap::{Arg, Command};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter};
use std::ffi::OsStr;
use std::path::Path;

/// Where `rhn train` puts runs.
const CHECKPOINTS: &str = "checkpoints";

/// The command and those below it, with candidates for each argument that names a recipe, a run or a checkpoint.
pub(super) fn add(command: Command) -> Command {
    command.mut_args(with_candidates).mut_subcommands(add)
}

fn with_candidates(arg: Arg) -> Arg {
    match (arg.get_id().as_str(), arg.is_positional()) {
        ("recipe", _) => arg.add(ArgValueCompleter::new(recipes)),
        ("checkpoint", _) | ("init_from", _) => arg.add(ArgValueCompleter::new(checkpoints)),
        ("run" | "runs", true) => arg.add(ArgValueCompleter::new(runs)),
        _ => arg,
    }
}

/// Names of built-in recipes, then runs, whose own recipe is taken; else files that end in .toml.
fn recipes(current: &OsStr) -> Vec<CompletionCandidate> {
    let built_in = |(name, text): &(&str, &str)| {
        CompletionCandidate::new(*name).help(head(text).next().map(|line| line.to_string().into()))
    };
    let begins =
        |(name, _): &&(&str, &str)| current.to_str().is_some_and(|current| name.starts_with(current));
    let mut found: Vec<_> = BUILT_IN.iter().filter(begins).map(built_in).collect();
    found.extend(below_checkpoints(current, is_run));
    if !found.is_empty() {
        return found;
    }
    let is_wanted = |path: &Path| is_run(path) || path.extension().is_some_and(|ending| ending == "toml");
    PathCompleter::any().filter(is_wanted).complete(current)
}

fn runs(current: &OsStr) -> Vec<CompletionCandidate> {
    directories(current, is_run)
}

fn checkpoints(current: &OsStr) -> Vec<CompletionCandidate> {
    directories(current, is_checkpoint)
}

/// Those below `checkpoints` that begin so; where none does, any directory on the way to one.
fn directories(current: &OsStr, is_wanted: fn(&Path) -> bool) -> Vec<CompletionCandidate> {
    let found = below_checkpoints(current, is_wanted);
    match found.is_empty() {
        true => PathCompleter::any().filter(is_wanted).complete(current),
        false => found,
    }
}

fn below_checkpoints(current: &OsStr, is_wanted: fn(&Path) -> bool) -> Vec<CompletionCandidate> {
    let found = places(Path::new(CHECKPOINTS)).into_iter().filter(|place| is_wanted(place));
    let begins = |place: &OsStr| place.as_encoded_bytes().starts_with(current.as_encoded_bytes());
    found
        .map(|place| place.into_os_string())
        .filter(|place| begins(place))
        .map(CompletionCandidate::new)
        .collect()
}

fn is_run(path: &Path) -> bool {
    path.join(METRICS).is_file()
}

fn is_checkpoint(path: &Path) -> bool {
    path.join(CONFIG).is_file() && path.join(MODEL).is_file()
}

#[cfg(test)]
mod tests {
    use super::super::command;
    use clap::Command;
    use clap_complete::engine::ArgValueCompleter;

    /// Arguments with candidates of our own: command and argument.
    fn completed(command: &Command, name: &str, found: &mut Vec<String>) {
        for arg in command.get_arguments().filter(|arg| arg.get::<ArgValueCompleter>().is_some()) {
            found.push(format!("{name}{}", arg.get_id()));
        }
        for inner in command.get_subcommands() {
            completed(inner, &format!("{name}{} ", inner.get_name()), found);
        }
    }

    #[test]
    fn every_argument_that_names_a_recipe_a_run_or_a_checkpoint_is_completed() {
        let mut found = Vec::new();
        completed(&command(), "", &mut found);
        for wanted in [
            "train recipe",
            "train init_from",
            "bench recipe",
            "recipe show recipe",
            "eval checkpoint",
            "sample checkpoint",
            "score checkpoint",
            #[cfg(feature = "serve")]
            "serve checkpoint",
            "compress checkpoint",
            "decompress checkpoint",
            "export checkpoint",
            "inspect checkpoint",
            "plot runs",
            "compare runs",
            "watch run",
            "run pack run",
            "study gates checkpoint",
        ] {
            assert!(found.iter().any(|name| name == wanted), "{wanted} is not among {found:?}");
        }
        assert!(!found.iter().any(|name| name == "serve runs"), "--runs names a directory of runs");
    }
}
