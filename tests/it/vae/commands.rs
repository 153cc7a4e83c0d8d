//! What `rhn sample` writes from vectors, and which commands take which kind of checkpoint.

use super::runs::LEARNED;
use crate::support::run::{Place, stderr, stdout};
use serde_json::Value;
use std::process::Output;

/// `rhn sample run`, with arguments that have spaces.
fn sample(args: &[&str]) -> Output {
    let mut command = LEARNED.command("sample run");
    command.args(args).output().unwrap()
}

#[track_caller]
fn lines(args: &[&str]) -> Vec<String> {
    let output = sample(args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output).lines().map(String::from).collect()
}

#[test]
fn a_sentence_is_given_back_and_its_neighbours_are_drawn() {
    let sentence = "carla sings a song near the sea";
    assert_eq!(lines(&["--reconstruct", sentence]), [sentence]);
    let around = lines(&["--reconstruct", sentence, "--samples", "4"]);
    assert_eq!((around.len(), around[0].as_str()), (4, sentence));
    assert_eq!(around, lines(&["--reconstruct", sentence, "--samples", "4"]));
}

#[test]
fn a_line_between_two_sentences_has_both_at_its_ends() {
    let (from, to) = ("anna reads the old book", "dora runs");
    let rows = lines(&["--from", from, "--to", to, "--steps", "7"]);
    assert_eq!((rows.len(), rows[0].as_str(), rows[6].as_str()), (7, from, to));
    let json = lines(&["--from", from, "--to", to, "--steps", "3", "--json"]);
    let positions = json.iter().map(|row| serde_json::from_str::<Value>(row).unwrap()["position"].as_f64());
    assert_eq!(positions.collect::<Vec<_>>(), [Some(0.0), Some(0.5), Some(1.0)]);
}

#[test]
fn the_prior_gives_different_sentences_the_same_for_a_seed() {
    let first = lines(&["--samples", "30", "--tokens", "10"]);
    assert_eq!(first, lines(&["--samples", "30", "--tokens", "10"]));
    assert_ne!(first, lines(&["--samples", "30", "--tokens", "10", "--seed", "2"]));
    let mut distinct = first.clone();
    distinct.sort();
    distinct.dedup();
    assert!(distinct.len() >= 5, "{distinct:?}");
    assert!(first.iter().all(|line| line.split(' ').count() <= 10 && !line.contains("<unk>")), "{first:?}");
    let drawn = lines(&["--samples", "3", "--temperature", "1", "--tokens", "10"]);
    assert_eq!(drawn.len(), 3);
    assert_eq!(lines(&["--samples", "2", "--beam", "5", "--tokens", "10"]).len(), 2);
}

#[test]
fn a_gap_is_filled_with_a_word_that_fits() {
    assert_eq!(lines(&["--impute", "carla sings a ___ near the sea"]), ["carla sings a song near the sea"]);
    assert!(lines(&["--impute", "xenia sings a ___ near the sea"])[0].starts_with("xenia sings a "));
    for drawing in [["--samples", "3"], ["--temperature", "1"], ["--top-k", "5"]] {
        let output = sample(&[&["--impute", "carla sings a ___"], &drawing[..]].concat());
        assert!(stderr(&output).contains("--impute searches"), "{}", stderr(&output));
    }
    let output = sample(&["--impute", "carla sings\na ___"]);
    assert!(stderr(&output).contains("is not one sentence"), "{}", stderr(&output));
    let output = sample(&["--impute", "carla sings"]);
    assert!(stderr(&output).contains("has no gap"), "{}", stderr(&output));
}

#[test]
fn flags_and_commands_of_one_kind_of_checkpoint_are_refused_by_the_other() {
    LEARNED.fails("sample run --prompt anna", 2, &["--prompt is for language models", "sentence VAE"]);
    for (args, what) in [
        ("--from anna --to carla --samples 3", "--steps says how many"),
        ("--beam 3 --top-k 3", "--beam searches for the likeliest"),
        ("--beam 3 --repetition-penalty 1.5", "--beam searches for the likeliest"),
        ("--samples 0", "--samples"),
    ] {
        LEARNED.fails(&format!("sample run {args}"), 2, &[what]);
    }
    LEARNED.fails("eval run --cache 100", 2, &["--cache is for language models"]);
    LEARNED.fails("eval run --file - --file -", 2, &["standard input", "asked for twice"]);
    LEARNED.fails("eval run --samples 0", 2, &["--samples 0 draws no vector"]);
    for command in [
        "score run vae.toml",
        "compress run vae.toml --out x",
        "export run --to transformers x",
        "export run --to onnx x",
        "study estimate run",
        "judge run pairs.tsv",
        "rescore run lists.tsv",
        "study lesion run",
    ] {
        LEARNED.fails(command, 4, &["is a sentence VAE", "`rhn eval`"]);
    }
    #[cfg(feature = "serve")]
    LEARNED.fails("serve run --port 0", 4, &["is a sentence VAE"]);
    LEARNED.fails("bench ptb-vae --only train", 2, &["is a sentence VAE"]);
    let shown = LEARNED.rhn("inspect run");
    assert!(stdout(&shown).contains("latent vector of size 6"), "{}", stderr(&shown));
    let place = Place::new();
    place.train("--corpus corpus.txt --out text --max-steps 2");
    place.fails("sample text --from a --to b", 2, &["--from is for a sentence VAE", "language model"]);
    place.fails("sample text --beam 3", 2, &["--beam is for a sentence VAE"]);
    place.fails("eval text --samples 3", 2, &["--samples is for a sentence VAE"]);
}
