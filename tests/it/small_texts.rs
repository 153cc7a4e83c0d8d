//! The recipe `text` on texts of any size.

use crate::support::run;
use run::{PLAY, Place, stderr};
use serde_json::Value;

/// The recipe at a size that a test can afford.
const TEXT: &str =
    "train text --set model.core.hidden_size=8 --set model.core.recurrence_depth=2 --set train.epochs=1";

#[track_caller]
fn train(place: &Place, args: &str) -> String {
    let output = place.rhn(&format!("{TEXT} {args}"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stderr(&output)
}

fn start(place: &Place, out: &str) -> Value {
    place.events(out, "start").pop().unwrap()
}

#[test]
fn a_small_text_gets_a_smaller_batch_and_window_and_one_note_says_so() {
    let place = Place::new();
    place.write("small.txt", PLAY.repeat(220)); // 9,680 bytes
    let message = train(&place, "--corpus small.txt --out run");
    let notes: Vec<&str> = message.lines().filter(|line| line.starts_with("note: ")).collect();
    let wanted = "note: small.txt is small, 8,712 tokens to train on: train.batch_size was 32, is 4, \
        train.bptt_steps was 64, is 32; --set keeps others";
    assert_eq!(notes, [wanted]);
    let start = start(&place, "run");
    assert!(start["steps_per_epoch"].as_u64().unwrap() >= 64, "{start}");
    let train_keys = &start["recipe"]["train"];
    assert_eq!((&train_keys["batch_size"], &train_keys["bptt_steps"]), (&4.into(), &32.into()));
}

#[test]
fn a_fitted_run_resumes_exactly_by_the_same_command() {
    let place = Place::new();
    let args = "--corpus corpus.txt";
    train(&place, &format!("{args} --out whole"));
    train(&place, &format!("{args} --out pieces --max-steps 7"));
    let message = train(&place, &format!("{args} --out pieces --resume"));
    assert!(message.contains("going on after step 7"), "{message}");
    assert_eq!(place.fingerprint("whole"), place.fingerprint("pieces"));
    let resume = format!("{TEXT} {args} --out pieces --resume --set train.batch_size=3");
    place.fails(&resume, 2, &["train.batch_size was ", ", is 3"]);
}

#[test]
fn a_text_of_one_line_trains_by_every_unit_that_leaves_it_a_few_tokens() {
    let place = Place::new();
    place.write("line.txt", "the old mill holds a lamp .\n");
    train(&place, "--corpus line.txt --out chars");
    train(&place, "--corpus line.txt --out bytes --set corpus.unit=byte");
    train(&place, "--corpus line.txt --out words --set corpus.unit=word");
    place.write("few.txt", "abcabcab");
    let message = train(&place, "--corpus few.txt --out few");
    assert!(message.contains("corpus.split was [90.0, 5.0, 5.0], is [60.0, 20.0, 20.0]"), "{message}");
    train(&place, "--corpus few.txt --out few --resume");
    place.write("one.txt", "a");
    place.fails(&format!("{TEXT} --corpus one.txt --out none"), 3, &["one.txt", "too few"]);
}

#[test]
fn a_fitted_run_of_a_sweep_is_known_to_be_finished() {
    let place = Place::new();
    let sweep = "recipe = \"text\"\nseeds = [1]\nset.corpus.name = \"corpus.txt\"\nset.train.epochs = 1\n\
        set.model.core.hidden_size = 8\nset.model.core.recurrence_depth = 2\n";
    place.write("small.toml", sweep);
    let output = place.rhn("sweep small.toml");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let again = stderr(&place.rhn("sweep small.toml"));
    assert!(again.contains("run 1 of 1: seed-1, finished before"), "{again}");
}

#[test]
fn what_is_set_is_kept_with_the_error_that_says_what_is_needed() {
    let place = Place::new();
    let message = train(&place, "--corpus corpus.txt --out rows --set train.batch_size=2 --max-steps 1");
    assert!(!message.contains("batch_size") && message.contains("train.bptt_steps was 64, is "), "{message}");
    assert_eq!(start(&place, "rows")["recipe"]["train"]["batch_size"], 2);
    let both = "--set train.batch_size=32 --set train.bptt_steps=64";
    place.fails(
        &format!("{TEXT} --corpus corpus.txt --out none {both}"),
        3,
        &["corpus.txt", "tokens are too few", "make batch_size or bptt_steps smaller"],
    );
    // A recipe of the user's own that extends this one: what it says itself was set, too.
    place.write("mine.toml", "extends = \"text\"\n[train]\nbatch_size = 32\nbptt_steps = 64\n");
    place.fails("train mine.toml --corpus corpus.txt --out none", 3, &["tokens are too few"]);
}

#[test]
fn a_text_that_is_large_enough_and_other_recipes_are_left_alone() {
    let place = Place::new();
    place.write("large.txt", PLAY.repeat(3400)); // 150 kB
    let message = train(&place, "--corpus large.txt --out large --max-steps 1");
    assert!(!message.contains("is small"), "{message}");
    place.fails("train shakespeare --corpus corpus.txt --out none", 3, &["tokens are too few"]);
}
