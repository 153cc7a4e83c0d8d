//! What a shell and `man` get: completions that know recipes and runs, and manual pages.

use crate::support::run::{Place, stderr, stdout};
use std::path::Path;
use std::process::Command;

/// What the program answers to the script of `shell` for a command line whose last word is to be completed.
fn answers(place: &Place, shell: &str, line: &[&str]) -> Vec<String> {
    let mut command = place.command("");
    command.env("RHN_COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", (line.len() - 1).to_string());
    let output = command.env("_CLAP_IFS", "\n").arg("--").args(line).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{line:?}: {}", stderr(&output));
    stdout(&output).lines().map(String::from).collect()
}

/// A place with a run, a stopped run without a model, and a run elsewhere.
fn place() -> Place {
    let place = Place::new();
    place.write("checkpoints/done/metrics.jsonl", "");
    place.write("checkpoints/done/config.json", "");
    place.write("checkpoints/done/model.safetensors", "");
    place.write("checkpoints/sweep/a/metrics.jsonl", "");
    place.write("elsewhere/mine/metrics.jsonl", "");
    place.write("elsewhere/mine/config.json", "");
    place.write("elsewhere/mine/model.safetensors", "");
    place
}

#[test]
fn recipes_runs_and_checkpoints_are_completed_as_they_are_now() {
    let place = place();
    for shell in ["bash", "zsh", "fish"] {
        let found = |line: &[&str]| -> Vec<String> {
            let word = |line: &String| line.split(['\t', ':']).next().unwrap().to_string(); // help may follow
            let words = answers(&place, shell, line);
            words.iter().map(word).filter(|word| !word.starts_with('-')).collect() // flags may come too
        };
        let recipes = found(&["rhn", "train", "ptb-rhn-l"]);
        assert_eq!(recipes.len(), 9, "{shell}: {recipes:?}");
        assert_eq!(recipes[0], "ptb-rhn-l1");
        assert_eq!(found(&["rhn", "recipe", "show", "shakespeare-"]), ["shakespeare-vae"]);
        assert_eq!(found(&["rhn", "sample", ""]), ["checkpoints/done"], "{shell}");
        assert_eq!(found(&["rhn", "plot", ""]), ["checkpoints/done", "checkpoints/sweep/a"], "{shell}");
        assert_eq!(found(&["rhn", "plot", "checkpoints/done", "checkpoints/s"]), ["checkpoints/sweep/a"]);
        assert_eq!(found(&["rhn", "train", "text", "--init-from", "check"]), ["checkpoints/done"]);
        assert_eq!(found(&["rhn", "eval", "elsewhere/m"]), ["elsewhere/mine/"], "{shell}");
        let files = found(&["rhn", "train", "ti"]);
        assert_eq!(files, ["tiny.toml"], "{shell}");
        assert_eq!(found(&["rhn", "tra"]), ["train"], "{shell}");
        assert_eq!(found(&["rhn", "eval", "x", "--precision", "bf"]), ["bf16"], "{shell}");
        assert!(answers(&place, shell, &["rhn", "train", "--res"])[0].starts_with("--resume"), "{shell}");
    }
    place.write("checkpoints/new/metrics.jsonl", "");
    assert!(answers(&place, "bash", &["rhn", "watch", ""]).contains(&"checkpoints/new".to_string()));
}

#[test]
fn every_shell_has_a_script_that_asks_the_program() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&place.rhn(&format!("completions {shell}")));
        assert!(script.contains("RHN_COMPLETE") && script.contains("rhn"), "{shell}: {script}");
    }
    place.fails("completions nushell", 2, &["nushell"]);
}

/// By the script itself, where there is bash.
#[test]
fn bash_completes_by_the_script() {
    let place = place();
    place.write("script", stdout(&place.rhn("completions bash")));
    let program = Path::new(env!("CARGO_BIN_EXE_rhn")).parent().unwrap();
    let lines = "source ./script; COMP_WORDS=(rhn sample checkp); COMP_CWORD=2; COMP_TYPE=9; \
                 _clap_complete_rhn rhn checkp sample; echo \"${COMPREPLY[*]}\"";
    let mut bash = place.program("bash");
    bash.args(["--norc", "-c", lines]).env("PATH", format!("{}:/usr/bin:/bin", program.display()));
    match bash.output() {
        Err(_) => {} // no bash here
        Ok(output) => assert_eq!(stdout(&output), "checkpoints/done\n", "{}", stderr(&output)),
    }
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let place = Place::new();
    let output = place.rhn("man pages/man1");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let page = std::fs::read_to_string(place.path("pages/man1/rhn-train.1")).unwrap();
    assert!(page.starts_with(".ie \\n(.g") || page.starts_with(".TH rhn-train 1"), "{page}");
    assert!(page.contains("\\-\\-init\\-from"), "{page}");
    place.rhn("man pages/man1"); // once more
    let pages = std::fs::read_dir(place.path("pages/man1")).unwrap().count();
    assert!(stderr(&output).contains(&format!("{pages} pages")), "{}", stderr(&output));
    place.write("file", "");
    place.fails("man file/below", 1, &["file"]);
    // By what lays pages out, where that is there: it warns of what it does not understand.
    let mandoc = Command::new("mandoc")
        .args(["-T", "lint", "-W", "error"])
        .arg(place.path("pages/man1/rhn.1"))
        .output();
    if let Ok(output) = mandoc {
        assert!(output.status.success(), "{}", stdout(&output));
    }
}
