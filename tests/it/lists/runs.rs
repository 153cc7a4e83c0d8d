//! Runs of `[task] kind = "rescore"` from outside: what they learn, how they go on, what they refuse.

use crate::support::run::{Place, stderr, stdout};
use serde_json::Value;

/// `rhn ARGS…`, which succeeds.
#[track_caller]
fn done(place: &Place, args: &str) {
    let output = place.rhn(args);
    assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
}

/// Sentences of a grammar in which the noun fixes the verb, and hypotheses with the wrong verb, whose scores say nothing.
fn lists(place: &Place, folder: &str, split: &str, count: usize) {
    let verbs = [("cat", "purrs"), ("dog", "barks"), ("cow", "moos")];
    let mut tsv = String::new();
    let mut text = String::new();
    for number in 0..count {
        let (noun, verb) = verbs[(number * 7 + number / 3) % 3];
        let good = format!("the {noun} {verb} at noon");
        text += &format!("{split}-{number} {good}\n");
        for (at, (_, other)) in verbs.iter().enumerate() {
            let score = [-1.0, -1.5, -1.2][(at + number) % 3];
            tsv += &format!("{split}-{number}\t{score}\tthe {noun} {other} at noon\n");
        }
    }
    place.write(&format!("{folder}/{split}.tsv"), tsv);
    place.write(&format!("{folder}/{split}.text"), text);
}

/// A model that has seen the words, and not which belong together, and the lists.
fn prepared() -> Place {
    let place = Place::new();
    let nouns = ["cat", "dog", "cow"];
    let verbs = ["purrs", "barks", "moos"];
    let line = |number: usize| format!("the {} {} at noon\n", nouns[number % 3], verbs[number / 3 % 3]);
    place.write("text/train.txt", (0..90).map(line).collect::<String>());
    place.write("text/valid.txt", (0..18).map(line).collect::<String>());
    std::fs::create_dir_all(place.path("lists")).unwrap();
    for (split, count) in [("train", 48), ("valid", 12), ("test", 12)] {
        lists(&place, "lists", split, count);
    }
    done(
        &place,
        "train text --corpus text --set corpus.unit=word --set model.core.hidden_size=12 --set train.epochs=2 \
         --set model.core.recurrence_depth=2 --set train.batch_size=4 --set train.bptt_steps=6 --out lm",
    );
    place
}

const RESCORE: &str = "rescore --init-from lm --corpus lists --set train.learning_rate=0.02 --set train.lists.weight=1 \
                       --set train.dropout.output=0.1";

fn rates(place: &Place, out: &str) -> Vec<f64> {
    let of = |event: &Value| event["valid_expected_error_rate"].as_f64().unwrap();
    place.events(out, "epoch").iter().map(of).collect()
}

#[test]
fn the_hypotheses_with_few_errors_come_to_be_the_best_and_the_run_goes_on_to_the_bit() {
    let place = prepared();
    done(&place, &format!("train {RESCORE} --set train.epochs=8 --out whole"));
    let result = place.json("whole/result.json");
    let rate = |key: &str| result[key].as_f64().unwrap();
    assert_eq!(rate("word_error_rate_oracle"), 0.0);
    assert!(rate("word_error_rate_first") > 0.1, "{result}");
    assert_eq!(rate("word_error_rate"), 0.0, "{result}");
    let rates = rates(&place, "whole");
    assert!(rates[7] < 0.5 * rates[0], "{rates:?}");

    // The test by `rhn rescore` is the same.
    let found =
        stdout(&place.rhn("rescore whole lists/test.tsv --weight 1 --references lists/test.text --json"));
    let total: Value = serde_json::from_str(found.lines().last().unwrap()).unwrap();
    assert_eq!(total["word_error_rate"], 0.0);
    for study in ["study adapt lm whole", "study estimate whole"] {
        place.fails(study, 2, &["learned last from n-best lists, lists, which `rhn rescore` reads"]);
    }

    done(&place, &format!("train {RESCORE} --set train.epochs=8 --out parts --max-steps 9"));
    done(&place, "train parts --resume --max-steps 20");
    done(&place, "train parts --resume");
    assert_eq!(place.fingerprint("parts"), place.fingerprint("whole"));
    place.assert_is_read("whole");
}

#[test]
fn lists_of_another_text_do_not_stay_beside_new_ones() {
    let place = Place::new();
    let text = |words: &str| format!("{words}\n").repeat(40);
    place.write("long.txt", text("the cat sees the dog now"));
    place.write("short/train.txt", text("the cat sees the dog now"));
    place.write("short/valid.txt", text("too short"));
    place.write("short/test.txt", text("the dog sees the cat now"));
    done(&place, "data lists long.txt --out made");
    assert!(place.path("made/valid.tsv").is_file());
    let said = stderr(&place.rhn("data lists short --out made"));
    assert!(said.contains("valid.tsv was of another text, and is removed"), "{said}");
    assert!(!place.path("made/valid.tsv").exists() && !place.path("made/valid.text").exists());
    assert!(place.path("made/test.tsv").is_file());
}

#[test]
fn a_dry_run_counts_tokens_of_references() {
    prepared().dry_run(RESCORE, "tokens of references");
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let place = prepared();
    let refused = |args: &str, code: i32, parts: &[&str]| place.fails(&format!("train {args}"), code, parts);
    refused("rescore --corpus lists --out a", 2, &["--init-from CHECKPOINT"]);
    refused("rescore --init-from lm --corpus nowhere --out a", 3, &["nowhere", "is no directory"]);
    refused("rescore --init-from lm --corpus text --out a", 3, &["has no train lists", "train.tsv"]);
    refused(&format!("{RESCORE} --out a --set train.batch_size=49"), 3, &["48 lists", "49"]);
    refused(&format!("{RESCORE} --out a --set train.lists.weight=0"), 2, &["train.lists.weight is 0"]);
    refused(&format!("{RESCORE} --out a --set train.bptt_steps=5"), 2, &["train.bptt_steps", "running text"]);
    refused("text --corpus text --set train.lists.weight=1 --out a", 2, &["[task] kind = \"rescore\""]);
    std::fs::copy(place.path("lists/train.tsv"), place.path("lists/train.tsv.gz")).unwrap();
    refused(&format!("{RESCORE} --out a"), 3, &["train.tsv.gz", "beside", "train.tsv"]);
    std::fs::remove_file(place.path("lists/train.tsv.gz")).unwrap();
    place.write("lists/valid.text", "valid-0 the cat purrs at noon\n");
    refused(&format!("{RESCORE} --out a"), 3, &["valid.text", "no reference of \"valid-1\""]);
    std::fs::remove_file(place.path("lists/valid.text")).unwrap();
    refused(&format!("{RESCORE} --out a"), 3, &["valid.text", "is missing"]);
    assert!(!place.path("a").exists());
}

#[test]
fn made_up_lists_have_the_text_s_lines_as_references() {
    let place = Place::new();
    let text: String = (0..40).map(|number| format!("the {} cats sat on the old mat\n", number)).collect();
    place.write("book.txt", &text);
    let made = |out: &str, more: &str| {
        done(&place, &format!("data lists book.txt --out {out} --hypotheses 5 {more}"));
        std::fs::read_to_string(place.path(&format!("{out}/train.tsv"))).unwrap()
    };
    let lists = made("one", "");
    assert_eq!(lists, made("same", ""));
    assert!(lists != made("other", "--seed 2"));
    let references = std::fs::read_to_string(place.path("one/train.text")).unwrap();
    let first = references.lines().next().unwrap();
    assert_eq!(first, "train-000001 the 0 cats sat on the old mat");
    let of_first: Vec<&str> = lists.lines().filter(|line| line.starts_with("train-000001\t")).collect();
    assert_eq!(of_first.len(), 5);
    let scores: Vec<f64> =
        of_first.iter().map(|line| line.split('\t').nth(1).unwrap().parse().unwrap()).collect();
    assert!(scores.windows(2).all(|pair| pair[0] >= pair[1]), "{scores:?}");
    for count in ["1", "10001", "6148914691236517206"] {
        let said = format!("--hypotheses is {count}, wanted 2 to 10000");
        place.fails(&format!("data lists book.txt --out x --hypotheses {count}"), 2, &[&said]);
    }
    place.fails("data lists book.txt --out x --noise -1", 2, &["--noise is -1"]);
    place.fails("data lists book.txt --out x --noise 1e308", 2, &["--noise is 1", "wanted 0 to 1000000"]);
    place.fails("data lists book.txt --out x --count 0", 2, &["invalid value '0'", "--count"]);
}

#[test]
fn the_lists_of_a_run_are_found_beside_it() {
    let place = prepared();
    done(&place, &format!("train {RESCORE} --out runs/run --max-steps 3"));
    lists(&place, "far/lists", "train", 9); // no lists at all, and other ones, where the run is continued from
    for (split, count) in [("train", 24), ("valid", 6)] {
        lists(&place, "farther/lists", split, count);
    }
    for from in ["far", "farther"] {
        place.rhn_from(from, "train ../runs/run --resume --max-steps 6");
    }
    done(&place, "train runs/run --resume");
    assert_eq!(place.json("runs/run/result.json")["protocol"], "lists");
}
