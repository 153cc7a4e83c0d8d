//! `rhn rescore` from outside: totals by hand from the scores of `rhn score`, formats against each other, tuning.

use crate::cli::Run;
use crate::support::run::{Place, assert_fails, stderr, stdout};
use serde_json::Value;
use std::f64::consts::LN_10;
use std::process::Output;

fn write(run: &Run, name: &str, text: &str) -> String {
    let path = run.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[track_caller]
fn objects(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {object}"))
}

const HYPOTHESES: [(&str, f64, &str); 4] = [
    ("u1", -10.0, "to be or not"),
    ("u1", -10.5, "to be"),
    ("u2", -7.0, "that is the question to"),
    ("u2", -7.25, "that is the question"),
];

/// ln p of each hypothesis by `rhn score`.
fn scores(run: &Run) -> Vec<f64> {
    let lines = HYPOTHESES.map(|(_, _, text)| text).join("\n") + "\n";
    let file = write(run, "lines.txt", &lines);
    let rows = objects(&run.rhn(
        "score",
        &[&file, "--reset", "line", "--per", "line", "--base", "e", "--json", "--precision", "f64"],
    ));
    rows[..4].iter().map(|row| -number(row, "surprisal")).collect()
}

fn tsv(run: &Run) -> String {
    let lines = HYPOTHESES.map(|(id, score, text)| format!("{id}\t{score}\t{text}\n"));
    write(run, "lists.tsv", &lines.concat())
}

#[test]
fn the_best_of_each_list_is_the_highest_weighted_sum() {
    let run = Run::new("word", 1.0);
    let lists = tsv(&run);
    let lp = scores(&run);
    for (weight, penalty) in [(0.0, 0.0), (0.3, 0.0), (2.0, -1.5), (0.0, 1.0), (0.1, 4.0)] {
        let total = |at: usize| {
            let (_, score, text) = HYPOTHESES[at];
            score + weight * lp[at] - penalty * text.split(' ').count() as f64
        };
        let [weight, penalty] = [weight, penalty].map(|value: f64| value.to_string());
        let flags = [&lists, "--weight", &weight, "--word-penalty", &penalty, "--precision", "f64", "--json"];
        let rows = objects(&run.rhn("rescore", &flags));
        assert_eq!((rows.len(), &rows[2]["event"]), (3, &"total".into()));
        for (row, first) in rows.iter().zip([0, 2]) {
            let best = if total(first + 1) > total(first) { first + 1 } else { first };
            assert_eq!((&row["id"], &row["text"]), (&HYPOTHESES[best].0.into(), &HYPOTHESES[best].2.into()));
            assert_eq!(row["rank"], best - first + 1);
            assert!((number(row, "total") - total(best)).abs() < 1e-9, "{row}");
            assert!((number(row, "lp") - lp[best]).abs() < 1e-9, "{row}");
        }
    }
}

#[test]
fn kaldis_and_srilms_lists_give_what_the_same_list_of_tabs_gives() {
    let run = Run::new("word", 1.0);
    let texts = |id: &'static str| HYPOTHESES.iter().filter(move |each| each.0 == id);
    let mut files = [String::new(), String::new(), String::new()];
    for id in ["u1", "u2"] {
        for ((_, score, text), rank) in texts(id).zip(1..) {
            files[0] += &format!("{id}-{rank} {text}\n");
            files[1] += &format!("{id}-{rank} {}\n", -10.0 * score);
            files[2] += &format!("{id}-{rank} 0\n");
        }
        let srilm = |(_, score, text): &(&str, f64, &str)| {
            format!("{} 0 {} <s> {text} </s>\n", score / LN_10, text.split(' ').count())
        };
        write(&run, &format!("srilm/{id}.nbest"), &texts(id).map(srilm).collect::<String>());
    }
    ["words_text", "acwt", "lmwt.withlm"].iter().zip(&files).for_each(|(name, text)| {
        write(&run, &format!("kaldi/{name}"), text);
    });
    let rows = |path: &str, flags: &[&str]| {
        let path = run.path(path).display().to_string();
        let fixed = [path.as_str(), "--weight", "0.7", "--precision", "f64", "--json"];
        objects(&run.rhn("rescore", &[&fixed[..], flags].concat()))
    };
    tsv(&run);
    let wanted = rows("lists.tsv", &[]);
    let kaldi = rows("kaldi", &["--format", "kaldi", "--acoustic-scale", "0.1"]);
    let named = rows("kaldi/words_text", &["--format", "kaldi", "--acoustic-scale", "0.1"]);
    let srilm = rows("srilm", &["--format", "srilm"]);
    for found in [kaldi, named, srilm] {
        for (found, wanted) in found.iter().zip(&wanted[..2]) {
            assert_eq!((&found["id"], &found["text"]), (&wanted["id"], &wanted["text"]));
            assert!((number(found, "total") - number(wanted, "total")).abs() < 1e-9, "{found}, {wanted}");
        }
    }
}

#[test]
fn tuning_finds_a_penalty_and_error_rates_are_those_of_the_references() {
    // The first of each list has a word or two too many, and is better by at most 0.5.
    let run = Run::new("word", 0.0);
    let lists = tsv(&run);
    let references = write(&run, "text", "u1 to be\nu2 that is the question\n");
    let flags = [&lists, "--weight", "0", "--tune", &lists, "--references", &references, "--json"];
    let output = run.rhn("rescore", &flags);
    let rows = objects(&output);
    let total = rows.last().unwrap();
    // 0.5 nats for two words, 0.25 for one: 0.25 a word are not enough for a strict win, 0.5 are.
    assert_eq!((number(total, "weight"), number(total, "word_penalty")), (0.0, 0.5));
    let errors = |which: &str| total["word_errors"][which]["errors"].as_u64().unwrap();
    assert_eq!((errors("first"), errors("rescored"), errors("oracle")), (3, 0, 0));
    assert_eq!((number(total, "word_error_rate"), &total["changed"]), (0.0, &2.into()));
    let notes = stderr(&output);
    assert!(notes.contains("50.00 % (3 of 6 words) of the first hypotheses"), "{notes}");
}

#[test]
fn lists_that_cannot_be_used_are_refused_by_name() {
    let run = Run::new("word", 0.5);
    let lists = tsv(&run);
    let fails = |args: &[&str], code: i32, part: &str| assert_fails(&run.rhn("rescore", args), code, &[part]);
    let half = write(&run, "half", "u1 to be\n");
    fails(&[&lists, "--references", &half], 2, "--references has no line of \"u2\"");
    let others = write(&run, "others", "u8 to be\nu9 to be\n");
    fails(&[&lists, "--references", &others], 2, "wanted one for each of the 2 lists, 2 have none");
    fails(&[&lists, "--weight", "1e308"], 2, "a total of \"u1\" is -inf");
    fails(&[&lists, "--weight", "1e308", "--word-penalty", "-1e308"], 2, "a total of \"u1\" is NaN");
    fails(&[&lists, "--weight", "inf"], 2, "--weight is inf");
    fails(&[&lists, &lists], 3, "has a list of \"u1\", and so has");
    fails(&[&lists, "--ac-cost", &half], 2, "for one NBEST with --format kaldi");
    fails(&[&lists, "--format", "kaldi"], 3, "acwt");
    fails(&[&lists, "--tune", &lists], 2, "--references");
    let bad = write(&run, "bad.tsv", "u1\t-3\ta\nu1\tx\tb\n");
    fails(&[&bad], 3, "bad.tsv: line 2: the score is \"x\", wanted a finite number");
}

#[test]
fn without_a_line_end_the_first_token_has_no_score_and_a_hypothesis_of_one_is_refused() {
    let place = Place::new();
    place.write("one-line.txt", "to be or not to be ".repeat(200));
    place.train("--corpus one-line.txt --out run");
    place.write("lists.tsv", "u1\t-1\tto be\nu1\t-1\tbe\n");
    let output = place.rhn("rescore run lists.tsv --json");
    assert!(
        stderr(&output).contains("no line end: the first token of each hypothesis"),
        "{}",
        stderr(&output)
    );
    assert_eq!(output.status.code(), Some(0));
    place.write("lists.tsv", "u1\t-1\tto be\nu1\t-1\tt\nu1\t-1\to☃☃t ☃\n");
    place.fails("rescore run lists.tsv", 2, &["the hypothesis \"t\" has no score"]);
    place.write("lists.tsv", "u1\t-1\tto☃☃ ☃\n");
    let output = place.rhn("rescore run lists.tsv");
    assert!(
        stderr(&output).contains("3 symbols of the lists are not in the vocabulary"),
        "{}",
        stderr(&output)
    );
}
