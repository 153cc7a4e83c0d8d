//! The disk fails or the process dies at the n-th change of the disk: nothing that was saved is lost, the message
//! names the file, nothing stays aside, and a resumed run ends as one that was left alone.

use super::{SHORT, assert_same, assert_tidy, orphans};
use crate::support::run::{Place, stderr};
use rhn::checkpoint::Checkpoint;
use rhn::storage::MANIFEST;
use std::process::Output;

/// Kinds of faults, and the exit code of a run that meets one.
const KINDS: [(&str, Option<i32>); 3] = [("die", None), ("eio", Some(1)), ("enospc", Some(1))];

/// The run with a fault at change `turn` of the disk.
fn faulty(place: &Place, out: &str, kind: &str, turn: usize) -> Output {
    let command = format!("train tiny.toml --out {out} {SHORT} --resume");
    place.command(&command).env("RHN_FAULT", format!("{kind}@{turn}")).output().unwrap()
}

/// What was done instead of which change of which file; nothing if the run ended before.
fn struck(output: &Output) -> Option<(String, String)> {
    let text = stderr(output);
    let line = text.lines().find(|line| line.starts_with("fault "))?;
    let (action, path) = line.split_once(" instead of ")?.1.split_once(' ')?;
    Some((action.to_string(), path.to_string()))
}

/// Runs into the fault, looks at what is left, and goes on to the end. Whether there was a fault.
fn survives(place: &Place, (kind, code): (&str, Option<i32>), turn: usize) -> bool {
    let out = format!("{kind}-{turn}");
    let output = faulty(place, &out, kind, turn);
    let Some((action, path)) = struck(&output) else {
        assert_eq!(output.status.code(), Some(0), "{out}: {}", stderr(&output));
        return false;
    };
    let message = stderr(&output);
    assert_eq!(output.status.code(), code, "{out}, {action} {path}: {message}");
    if code.is_some() && !(kind == "enospc" && ["cut", "rename", "remove"].contains(&action.as_str())) {
        let error = message.lines().find(|line| line.starts_with("error: "));
        assert!(error.is_some_and(|error| error.contains(&path)), "{out}, {action} {path}: {message}");
    }
    if code.is_some() && action != "remove" {
        let mut left = orphans(&place.path(&out));
        left.retain(|path| !path.ends_with(".pending")); // counts already: its move was broken off
        assert!(left.is_empty(), "{out}, {action} {path}: {left:?}");
    }
    assert_readable(place, &out);
    goes_on(place, &out);
    true
}

/// If a model was published, it can be read.
#[track_caller]
fn assert_readable(place: &Place, out: &str) {
    let directory = place.path(out);
    if directory.join(MANIFEST).exists() || directory.join(".pending").exists() {
        assert!(Checkpoint::open(&directory).unwrap().verified, "{out}");
    }
}

#[track_caller]
fn goes_on(place: &Place, out: &str) {
    place.train(&format!("--out {out} {SHORT} --resume"));
    assert_same(place, "whole", out);
    assert_tidy(place, out);
    std::fs::remove_dir_all(place.path(out)).unwrap();
}

/// Every `stride`-th change from `first` on until the run meets no fault; how many there were.
fn survive_all(kind: (&str, Option<i32>), first: usize, stride: usize) -> usize {
    let place = Place::new();
    place.train(&format!("--out whole {SHORT}"));
    (first..).step_by(stride).take_while(|&turn| survives(&place, kind, turn)).count()
}

#[test]
fn a_run_survives_faults_of_every_kind_at_places_all_over_it() {
    for (first, kind) in (1..).zip(KINDS) {
        let met = survive_all(kind, 5 * first, 23);
        assert!(met >= 5, "only {met} places of {kind:?}");
    }
}

#[test]
#[ignore = "long: every change of the disk, each kind of fault"]
fn a_run_survives_a_fault_at_every_single_change() {
    for kind in KINDS {
        println!("{kind:?}: {} places", survive_all(kind, 1, 1));
    }
}

#[test]
fn a_run_that_dies_while_it_recovers_from_a_death_goes_on_all_the_same() {
    let place = Place::new();
    place.train(&format!("--out whole {SHORT}"));
    for (first, second) in [(40, 3), (75, 9), (110, 1), (130, 6)] {
        let out = format!("twice-{first}");
        assert!(struck(&faulty(&place, &out, "die", first)).is_some());
        assert!(struck(&faulty(&place, &out, "die", second)).is_some());
        assert_readable(&place, &out);
        goes_on(&place, &out);
    }
}

#[test]
#[cfg(unix)]
fn a_limit_on_the_size_of_files_is_an_error_that_names_the_file() {
    let place = Place::new();
    for (blocks, file) in [(0, "lock"), (1, "metrics.jsonl"), (40, ".safetensors")] {
        let out = format!("limit-{blocks}");
        let rhn = env!("CARGO_BIN_EXE_rhn");
        let script = format!(
            "ulimit -f {blocks}; exec {rhn} train tiny.toml --out {out} {SHORT} \
            --set model.core.hidden_size=64"
        );
        let output = place.program("sh").args(["-c", &script]).output().unwrap();
        crate::support::run::assert_fails(&output, 1, &[file, "too large"]);
        assert!(orphans(&place.path(&out)).is_empty());
    }
}

#[test]
fn what_stands_where_a_run_wants_to_write_is_named() {
    let place = Place::new();
    for name in ["metrics.jsonl", "lock", "state/.tmp-step-0000000001/model.safetensors"] {
        let out = format!("blocked-{}", name.len());
        std::fs::create_dir_all(place.path(&out).join(name)).unwrap();
        let output = place.rhn(&format!("train tiny.toml --out {out} {SHORT} --resume"));
        match name {
            "metrics.jsonl" | "lock" => crate::support::run::assert_fails(&output, 1, &[name]),
            _ => assert_eq!(output.status.code(), Some(0), "{}", stderr(&output)), // an orphan: swept away
        }
    }
    place.write("blocked/state", "a file");
    place.fails(&format!("train tiny.toml --out blocked {SHORT} --resume"), 1, &["blocked/state"]);
}
