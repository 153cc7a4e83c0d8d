//! `rhn judge`, `rhn data errors` and `rhn rescore` from outside: scores against those of `rhn score`, and by hand.

use crate::cli::{Run, rhn};
use crate::support::run::{assert_fails, stderr, stdout};
use serde_json::Value;
use std::process::{Command, Output};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/shakespeare");

/// Different symbols of the play's vocabulary, `<unk>` included.
const CHARACTERS: f64 = 18.0;

fn write(run: &Run, name: &str, text: &str) -> String {
    let path = run.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// The objects of the lines that a command printed.
#[track_caller]
fn objects(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {object}"))
}

/// ln p of each line by `rhn score`, each line by itself.
fn line_scores(run: &Run, text: &str, precision: &str) -> Vec<f64> {
    let file = write(run, "lines.txt", text);
    let args = [&file, "--reset", "line", "--per", "line", "--base", "e", "--json", "--precision", precision];
    let mut rows = objects(&run.rhn("score", &args));
    rows.pop(); // the total
    rows.iter().map(|row| -number(row, "surprisal")).collect()
}

#[track_caller]
fn assert_near(found: f64, wanted: f64, tolerance: f64) {
    assert!((found - wanted).abs() <= tolerance * wanted.abs(), "{found} is not {wanted}");
}

#[test]
fn a_sentences_score_is_what_rhn_score_gives_its_line() {
    let lines = ["to be , or", "be to , or", "the question", "that is the question to be", "or , not", "or"];
    for unit in ["char", "word", "byte", "bpe"] {
        let run = Run::new(unit, 1.0);
        let rows: Vec<String> = lines.chunks(2).map(|pair| pair.join("\t") + "\n").collect();
        let pairs = write(&run, "pairs.tsv", &rows.concat());
        for (precision, tolerance) in [("f32", 1e-5), ("f64", 1e-10)] {
            let wanted = line_scores(&run, &(lines.join("\n") + "\n"), precision);
            let found = objects(&run.rhn("judge", &[&pairs, "--json", "--precision", precision]));
            assert_eq!(found.len(), 4, "{found:?}"); // three pairs and the total
            for (row, wanted) in found.iter().zip(wanted.chunks(2)) {
                assert_near(number(row, "score_good"), wanted[0], tolerance);
                assert_near(number(row, "score_bad"), wanted[1], tolerance);
                let outcome = if wanted[0] > wanted[1] { "right" } else { "wrong" };
                assert_eq!(row["outcome"], outcome, "{unit}: {row}");
            }
        }
    }
}

#[test]
fn where_all_is_equally_likely_the_measures_are_those_of_lengths_and_counts() {
    let run = Run::new("char", 0.0);
    let pairs =
        write(&run, "pairs.tsv", "good\tbad\tphenomenon\ntoo\tto\tlong\nto\ttoo\tshort\nto\tot\tswap\n");
    let rows = |args: &[&str]| objects(&run.rhn("judge", &[&[pairs.as_str(), "--json"], args].concat()));
    let accuracies = |rows: &[Value]| -> Vec<f64> {
        rows.iter().filter(|row| row["event"] != "pair").map(|row| number(row, "accuracy")).collect()
    };
    // Groups by name: long, short, swap; then the total. The shorter sentence has the higher sum; means are equal.
    let by_sum = rows(&[]);
    assert_eq!(accuracies(&by_sum), [0.0, 1.0, 0.5, 0.5]);
    assert_near(number(&by_sum[0], "score_good"), -4.0 * CHARACTERS.ln(), 1e-6);
    assert_eq!((&by_sum[6]["ties"], &by_sum[6]["pairs"]), (&1.into(), &3.into()));
    assert_eq!(by_sum[6]["unequal_lengths"], 2);
    assert_eq!(accuracies(&rows(&["--by", "mean"])), [0.5; 4]);
    assert_eq!(accuracies(&rows(&["--by", "min"])), [0.5; 4]);
    // Counts and one more: o 3, t 2, line end 2, of 4 + 18.
    let unigrams = write(&run, "unigrams.txt", "oto\n");
    let by_slor = rows(&["--by", "slor", "--unigrams", &unigrams]);
    let [o, t, end] = [3.0f64, 2.0, 2.0].map(|count| (count / (4.0 + CHARACTERS)).ln());
    let uniform = -CHARACTERS.ln();
    assert_near(number(&by_slor[0], "score_good"), uniform - (t + 2.0 * o + end) / 4.0, 1e-5);
    assert_near(number(&by_slor[0], "score_bad"), uniform - (t + o + end) / 3.0, 1e-5);
    let by_norm = rows(&["--by", "norm", "--unigrams", &unigrams]);
    assert_near(number(&by_norm[0], "score_good"), -4.0 * uniform / (t + 2.0 * o + end), 1e-6);
    assert_near(number(&by_norm[0], "score_bad"), -3.0 * uniform / (t + o + end), 1e-6);
    let by_pen = rows(&["--by", "pen"]);
    assert_near(number(&by_pen[0], "score_good"), 4.0 * uniform / 1.5f64.powf(0.8), 1e-5);
    assert_near(number(&by_pen[0], "score_bad"), 3.0 * uniform / (8.0f64 / 6.0).powf(0.8), 1e-5);
}

#[test]
fn identical_sentences_are_ties_and_unknown_words_are_counted_and_cost_what_is_asked() {
    let run = Run::new("word", 1.0);
    let pairs = write(&run, "pairs.tsv", "to be\tto be\nto be\tto xylophone\nto aaa\tto bbb\n");
    let total = |args: &[&str]| objects(&run.rhn("judge", &[&[pairs.as_str(), "--json"], args].concat()));
    let rows = total(&[]);
    let all = rows.last().unwrap();
    assert_eq!((&rows[0]["outcome"], &rows[2]["outcome"]), (&"tie".into(), &"tie".into()));
    let counts =
        ["pairs", "ties", "identical", "words", "unknown_words"].map(|key| all[key].as_u64().unwrap());
    assert_eq!(counts, [3, 2, 1, 12, 3]);
    let dear = total(&["--unknown-penalty", "100"]);
    assert_near(number(&dear[1], "score_bad"), number(&rows[1], "score_bad") - 100.0, 1e-9);
    assert_eq!(dear[1]["score_good"], rows[1]["score_good"]);
}

#[test]
fn blimps_lines_and_directories_are_read_and_grouped() {
    let run = Run::new("char", 1.0);
    let line = |good: &str, bad: &str, uid: &str| {
        format!(
            "{{\"sentence_good\": \"{good}\", \"sentence_bad\": \"{bad}\", \"field\": \"syntax\", \
             \"linguistics_term\": \"order\", \"UID\": \"{uid}\", \"pairID\": \"0\"}}\n"
        )
    };
    write(&run, "blimp/b.jsonl", &line("to be", "be to", "second"));
    write(&run, "blimp/a.jsonl", &(line("or not", "not or", "first") + &line("be , or", "or , be", "first")));
    write(&run, "blimp/README", "no pairs");
    let directory = run.path("blimp").display().to_string();
    let rows = objects(&run.rhn("judge", &[&directory, "--json"]));
    let groups: Vec<(String, String, u64)> = rows
        .iter()
        .filter(|row| row["event"] == "group")
        .map(|row| {
            let [level, name] = ["level", "name"].map(|key| row[key].as_str().unwrap().to_owned());
            (level, name, row["pairs"].as_u64().unwrap())
        })
        .collect();
    let wanted =
        [("field", "syntax", 3), ("phenomenon", "order", 3), ("uid", "first", 2), ("uid", "second", 1)];
    assert_eq!(groups, wanted.map(|(level, name, pairs)| (level.into(), name.into(), pairs)));
    let table = stdout(&run.rhn("judge", &[&directory]));
    assert!(
        table.contains("| uid second ") && table.lines().last().unwrap().starts_with("| all "),
        "{table}"
    );
    let csv = stdout(&run.rhn("judge", &[&directory, "--csv"]));
    assert!(csv.starts_with("level,name,by,pairs,") && csv.contains("\nall,,lp,3,"), "{csv}");
}

#[test]
fn each_line_of_a_text_has_the_score_that_it_has_in_a_pair() {
    let run = Run::new("word", 1.0);
    let pairs = write(&run, "pairs.tsv", "to be or\tbe to xylophone\n");
    let lines = write(&run, "lines.txt", "to be or\n\n  be to xylophone\n");
    let unigrams = write(&run, "unigrams.txt", "to be\nor not\n");
    for by in ["lp", "mean", "pen", "norm", "slor", "min"] {
        let given = ["--by", by, "--unigrams", unigrams.as_str()];
        let given = if ["norm", "slor"].contains(&by) { &given[..] } else { &given[..2] };
        let pair = &objects(&run.rhn("judge", &[&[pairs.as_str(), "--json"], given].concat()))[0];
        let rows = objects(&run.rhn("judge", &[&[lines.as_str(), "--each", "--json"], given].concat()));
        let found = [&rows[0]["score"], &rows[1]["score"]];
        assert_eq!(found, [&pair["score_good"], &pair["score_bad"]], "{by}");
        assert_eq!(
            (&rows[1]["line"], &rows[1]["unknown_words"], &rows[1]["by"]),
            (&3.into(), &1.into(), &by.into())
        );
    }
    let table = stdout(&run.rhn("judge", &[&lines, "--each", "--by", "mean"]));
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows[0], ["mean", "tokens", "words", "unknown_words", "sentence"]);
    assert_eq!(rows[2][1..], ["4", "3", "1", "be to xylophone"]); // the line end is a token
    assert_fails(&run.rhn("judge", &[&pairs, "--each"]), 3, &["pairs.tsv: line 1: has a tab"]);
    let empty = write(&run, "empty.txt", "\n \n");
    assert_fails(&run.rhn("judge", &[&empty, "--each"]), 3, &["empty.txt: has no sentences"]);
}

#[test]
fn an_s_is_put_at_the_end_of_english_words_alone() {
    let run = Run::new("char", 1.0);
    let russian = write(&run, "russian.txt", "все счастливые семьи похожи друг на друга\n");
    let output = errors(&[&russian, "--kind", "final-s"]);
    assert_ne!(output.status.code(), Some(0), "{}", stdout(&output));
    let english = write(&run, "english.txt", "happy families are all alike here\n");
    assert!(stdout(&errors(&[&english, "--kind", "final-s"])).contains("final-s"));
}

#[test]
fn tokens_are_counted_once_where_the_standard_input_has_them() {
    let run = Run::new("char", 1.0);
    let tune = write(&run, "tune.tsv", "0\tto be\n1\tbe to\n0\tor not\n1\tnot or\n");
    let text = "to be or not to be\n";
    let unigrams = write(&run, "text.txt", text);
    let judged = |from: &str, input: &str| {
        let settings =
            ["judge", &run.checkpoint(), &tune, "--by", "norm", "--tune", &tune, "--unigrams", from];
        objects(&rhn(&[&settings[..], &["--json"]].concat(), input))
    };
    assert_eq!(judged("-", text), judged(&unigrams, ""));
}

#[test]
fn bad_pairs_and_settings_are_refused_by_name() {
    let run = Run::new("char", 0.5);
    let good = write(&run, "good.tsv", "to\tot\n");
    let bad = write(&run, "bad.tsv", "to\tot\nalone\n");
    assert_fails(
        &run.rhn("judge", &[&good, &bad]),
        3,
        &["bad.tsv: line 2: has 1 column, wanted good<TAB>bad"],
    );
    assert_fails(&run.rhn("judge", &[&good, "--by", "slor"]), 2, &["--by slor needs --unigrams FILE"]);
    assert_fails(&run.rhn("judge", &[&good, "--by", "norm"]), 2, &["--by norm needs --unigrams FILE"]);
    assert_fails(
        &run.rhn("judge", &[&good, "--unigrams", &good]),
        2,
        &["--unigrams is for --by norm and slor"],
    );
    assert_fails(&run.rhn("judge", &[&good, "--unknown-penalty", "NaN"]), 2, &["--unknown-penalty is NaN"]);
    let nothing = run.path("run").display().to_string();
    assert_fails(&run.rhn("judge", &[&nothing]), 3, &["has no .tsv or .jsonl file"]);
    assert_fails(&run.rhn("judge", &["missing.tsv"]), 3, &["missing.tsv"]);
}

fn errors(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rhn")).args(["data", "errors"]).args(args).output().unwrap()
}

#[test]
fn made_up_errors_are_the_seeds_and_of_the_kinds_that_were_asked_for() {
    let made = |args: &[&str]| stdout(&errors(&[&["shakespeare", "--count", "80"], args].concat()));
    let all = made(&[]);
    assert_eq!((&all, all == made(&["--seed", "2"])), (&made(&["--seed", "1"]), false));
    let cells: Vec<Vec<&str>> = all.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!((cells.len(), &cells[0]), (81, &vec!["good", "bad", "phenomenon"]));
    assert!(cells.iter().all(|row| row.len() == 3 && row[0] != row[1]));
    for kind in ["swap", "delete", "double", "exchange", "final-s", "character"] {
        assert!(cells.iter().any(|row| row[2] == kind), "{kind}");
        let alone = made(&["--kind", kind, "--split", "valid"]);
        assert!(alone.lines().skip(1).all(|line| line.ends_with(&format!("\t{kind}"))), "{alone}");
    }
    let empty = tempfile::NamedTempFile::new().unwrap();
    assert_fails(&errors(&[&empty.path().display().to_string()]), 3, &["no line of at least 4 words"]);
}

#[test]
fn the_model_that_comes_with_the_program_ranks_swapped_words() {
    let pairs = tempfile::NamedTempFile::new().unwrap();
    let made = errors(&["shakespeare", "--kind", "swap", "--kind", "character", "--count", "200"]);
    std::fs::write(pairs.path(), stdout(&made)).unwrap();
    let args = ["judge", SHIPPED, &pairs.path().display().to_string(), "--json"];
    let judged = Command::new(env!("CARGO_BIN_EXE_rhn")).args(args).output().unwrap();
    let rows = objects(&judged);
    let accuracy = |name: &str| {
        let group = rows.iter().find(|row| row["event"] == "group" && row["name"] == name);
        number(group.unwrap(), "accuracy")
    };
    assert!(accuracy("swap") > 0.8, "{}", accuracy("swap"));
    assert!(accuracy("character") > 0.9, "{}", accuracy("character"));
}
