//! The commands: from labelled files to a checkpoint, and what other commands say of it.

use crate::support::run::{Place, stderr, stdout};
use serde_json::Value;
use std::fmt::Write;
use std::fs;

/// Settings of a classifier that trains in a moment.
const RECIPE: &str = r#"
[task]
kind = "classify"

[corpus]
name = "errors"
unit = "word"
min_count = 2

[model.embedding]
kind = "word"
size = 8

[model.core]
kind = "lstm"
hidden_size = 8

[model.classifier]
pooling = "max"

[train]
epochs = 6
batch_size = 8
bptt_steps = 1
optimizer = "adam"
learning_rate = 0.02
max_grad_norm = 5.0
init_scale = 0.2
dropout = { word = 0.05, input = 0.1, hidden = 0.1, output = 0.2 }
"#;

/// Sentences of a small grammar; those with label 1 have a word twice in a row. Every third needs an edit.
fn made_up(count: usize, first: usize) -> String {
    let mut text = String::from("label\tsentence\n");
    let words = ["a", "cat", "sees", "the", "dog", "and", "runs", "home", "now"];
    for number in first..first + count {
        let length = 4 + number * 7 % 5;
        let word = |at: usize| words[(number * 5 + at * (1 + number % 4)) % words.len()];
        let mut sentence: Vec<&str> = (0..length).map(word).collect();
        let needs_edit = number % 3 == 0;
        if needs_edit {
            let at = number % length;
            sentence.insert(at, sentence[at]);
        }
        writeln!(text, "{}\t{}", u8::from(needs_edit), sentence.join(" ")).unwrap();
    }
    text
}

fn place() -> Place {
    let place = Place::new();
    place.write("classify.toml", RECIPE);
    place.write("errors/train.tsv", made_up(240, 0));
    place.write("errors/valid.tsv", made_up(60, 1000));
    place.write("errors/test.tsv", made_up(60, 2000) + "1\tthe the zebra\n");
    place
}

fn succeed(place: &Place, args: &str) -> [String; 2] {
    let output = place.rhn(args);
    assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
    [stdout(&output), stderr(&output)]
}

#[test]
fn a_classifier_learns_and_evaluates_to_its_result() {
    let place = place();
    let [out, err] = succeed(&place, "train classify.toml --out run");
    assert!(out.contains("F1 ") && out.contains("always yes") && out.contains("try: rhn eval run"), "{out}");
    assert!(err.contains("240 training sentences, 60 for validation, 61 for test"), "{err}");
    assert!(err.contains("test: 21 need an edit") && err.contains(" 1 of them unknown"), "{err}");
    let result = place.json("run/result.json");
    assert!(result["f1"].as_f64().unwrap() > 0.95, "{result}");
    assert_eq!((result["positives"].as_u64(), result["protocol"].as_str()), (Some(21), Some("classify")));
    assert!((result["always_yes_f1"].as_f64().unwrap() - 42.0 / 82.0).abs() < 1e-12);
    let found = place.json_of("eval run --json");
    for key in ["nats_per_token", "accuracy", "f1", "threshold", "average_precision", "oov_tokens"] {
        assert_eq!(found[key], result[key], "{key}");
    }
    let valid = place.json_of("eval run --split valid --json");
    assert_eq!(valid["nats_per_token"], result["valid_nats_per_token"]); // it chose the weights
    let kept = place.json("run/threshold.json");
    assert_eq!([&kept["threshold"], &kept["valid_f1"]], [&valid["threshold"], &valid["f1"]]);
    let best = place.events("run", "epoch").into_iter().rfind(|row| row["best"] == true).unwrap();
    assert_eq!(best["valid_f1"], valid["f1"]);
    let file = place.json_of("eval run --file errors/test.tsv --json");
    assert_eq!([&file["f1"], &file["split"]], [&found["f1"], &Value::from("all")]);
    let [table, _] = succeed(&place, "eval run");
    assert!(
        table.contains("always yes") && table.contains("Matthews") && table.contains("1 unknown"),
        "{table}"
    );
    place.assert_counted_before("recipe = \"classify.toml\"", "run");
    let [inspected, _] = succeed(&place, "inspect run");
    assert!(inspected.contains("valid nats 0.") && !inspected.contains("perplexity"), "{inspected}");
    assert!(
        inspected.contains("max over both directions") && inspected.contains("threshold.json"),
        "{inspected}"
    );
}

/// Weights as they are drawn, on one split twice: what training reports is what validation does, whatever a label weighs.
#[test]
fn the_nats_of_training_are_those_of_the_labels_unweighed() {
    let place = place();
    place.write("errors/valid.tsv", made_up(240, 0));
    succeed(
        &place,
        "train classify.toml --out run --set train.epochs=1 --set train.learning_rate=1e-12 \
         --set train.positive_weight=3 --set train.dropout={word=0.0}",
    );
    let row = &place.events("run", "epoch")[0];
    let [train, valid] =
        ["train", "valid"].map(|split| row[format!("{split}_nats_per_token")].as_f64().unwrap());
    assert!((train - valid).abs() < 1e-5, "{train} and {valid}");
}

#[test]
fn a_text_is_judged_a_line_at_a_time() {
    let place = place();
    succeed(&place, "train classify.toml --out run");
    let made = made_up(2, 2000); // the second needs an edit
    let sentences: Vec<&str> = made.lines().skip(1).map(|line| &line[2..]).collect();
    let text = sentences.join("\n\n");
    let text = text.as_bytes();
    let output = place.rhn_reading("judge run -", text);
    let rows = stdout(&output);
    let decisions: Vec<&str> = rows.lines().skip(1).map(|row| row.split('\t').nth(1).unwrap()).collect();
    assert_eq!(decisions, ["0", "1"], "{rows}");
    let lines = stdout(&place.rhn_reading("judge run - --json --threshold 0", text));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines[1]["line"].as_u64(), lines[2]["need_edit"].as_u64()), (Some(3), Some(2)));
    place.fails("judge run classify.toml --by mean", 2, &["--by is for language models"]);
    place.fails("judge run classify.toml --threshold 2", 2, &["--threshold is 2, wanted a probability"]);
    place.write("latin.txt", b"caf\xe9\n");
    place.fails("judge run latin.txt", 3, &["latin.txt", "line 1"]);
}

#[test]
fn a_stopped_classifier_resumes_to_the_bit_on_any_number_of_threads() {
    let place = place();
    succeed(&place, "train classify.toml --out whole --threads 1 --set train.epochs=3");
    succeed(&place, "train classify.toml --out parts --threads 2 --set train.epochs=3 --max-steps 31");
    succeed(&place, "train parts --resume --threads 1 --max-steps 70");
    succeed(&place, "train parts --resume --threads 2");
    for ((name, whole), (_, parts)) in place.fingerprint("whole").iter().zip(place.fingerprint("parts")) {
        assert_eq!(whole, &parts, "{name}");
    }
    assert_eq!(place.json("whole/threshold.json"), place.json("parts/threshold.json"));
    place.assert_is_read("whole");
}

#[test]
fn a_classifier_begins_with_a_language_models_embedding_and_forward_core() {
    let place = place();
    succeed(&place, "train tiny.toml --out language --set train.epochs=1");
    // A file's own sizes would be refused where they differ: this one has none for what is taken.
    let of_kind =
        |kind: &str| format!("{kind}\nhidden_size = 8\nrecurrence_depth = 2\ntransform_bias = -2.0");
    let recipe = RECIPE.replace("kind = \"lstm\"\nhidden_size = 8", &of_kind("kind = \"rhn\""));
    place.write(
        "char.toml",
        recipe
            .replace("size = 8\n\n[model.core]", "\n[model.core]")
            .replace("unit = \"word\"", "unit = \"char\""),
    );
    let set = "--set train.learning_rate=1e-12 --max-steps 1";
    succeed(&place, &format!("train char.toml --init-from language --out run {set}"));
    let config = place.json("run/config.json");
    assert_eq!(
        (config["core"]["kind"].as_str(), config["classifier"]["pooling"].as_str()),
        (Some("rhn"), Some("max"))
    );
    let tensors = |run: &str| {
        let path = place.path(run).join("model.safetensors");
        candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap()
    };
    let [old, new] = ["language", "run"].map(tensors);
    for name in ["embedding.weight", "core.0.input.weight", "core.0.recurrent.weight"] {
        let [old, new] = [&old[name], &new[name]].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let far = old.iter().zip(&new).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(old.len() == new.len() && far < 1e-9, "{name} is off by {far}");
    }
    assert_eq!(old["core.0.bias"].dims(), new["backward.core.0.bias"].dims());
    succeed(&place, "train run --init-from run --out again --max-steps 1");
    place.fails(
        "train tiny.toml --init-from run --out no",
        4,
        &["classifies sentences and is no language model"],
    );
    place.fails("train shakespeare-vae --init-from language --out no", 4, &["is no sentence VAE"]);
}

#[test]
fn a_dry_run_counts_sentences() {
    let place = place();
    place.dry_run("classify.toml", "sentences");
    // Of a run that goes on, what it has: its vocabulary, which is another text's.
    place.write("few/train.tsv", made_up(30, 1) + "0\tone two three four five six seven\n");
    place.write("few/valid.tsv", made_up(30, 40));
    succeed(&place, "train classify.toml --corpus few --out first --max-steps 2 --set corpus.min_count=1");
    succeed(&place, "train classify.toml --init-from first --out run --max-steps 2");
    let parameters = &place.events("run", "start")[0]["parameters"];
    let output = place.rhn("train run --resume --dry-run");
    let told = stdout(&output).replace(',', "");
    let told = told.lines().next().and_then(|line| line.strip_prefix("parameters"));
    assert_eq!(told.map(str::trim), Some(parameters.to_string().as_str()), "{}", stderr(&output));
}

#[test]
fn what_is_for_language_models_is_refused_of_a_classifier() {
    let place = place();
    succeed(&place, "train classify.toml --out run --max-steps 3");
    assert!(!place.path("run/threshold.json").exists());
    let [_, note] = succeed(&place, "eval run --split valid");
    assert!(note.contains("no threshold.json") && note.contains("0.5"), "{note}");
    place.write("lists.tsv", "one\t-1.5\ta cat\n");
    for command in [
        "sample run",
        "score run corpus.txt",
        "compress run corpus.txt --out small.rhn",
        "rescore run lists.tsv",
        "study gates run",
        "export run --to onnx out",
    ] {
        place.fails(command, 4, &["classifies sentences and is no language model"]);
    }
    for flag in ["--mc 3", "--cache 5", "--per document"] {
        place.fails(&format!("eval run {flag}"), 2, &["is for language models"]);
    }
    place.fails("eval run --keep", 2, &["--keep is for language models and sentence VAEs"]);
    place.fails("eval run --corpus shakespeare", 3, &["wanted labelled sentences"]);
    place.fails("bench classify.toml", 2, &["rhn bench is for language models"]);
    place.fails("train classify.toml --corpus corpus.txt --out no", 3, &["corpus.txt: line 1: has 1 column"]);
    for (set, found) in [
        ("train.bptt_steps=5", "train.bptt_steps is for running text"),
        ("task.kind=language", "[model.classifier] needs [task] kind = \"classify\""),
        ("train.positive_weight=0", "positive_weight is 0"),
        ("model.output.tied=true", "leave [model.output] out"),
        ("model.classifier.attention_size=3", "is for pooling = \"attention\""),
        ("train.batch_size=500", "240 training sentences are too few"),
    ] {
        let output = place.rhn(&format!("train classify.toml --out no --set {set}"));
        assert!(stderr(&output).contains(found), "{set}: {}", stderr(&output));
    }
    assert!(!place.path("no").exists());
    place.fails(
        "train tiny.toml --out no --set train.positive_weight=2",
        2,
        &["is for [task] kind = \"classify\""],
    );
}

#[test]
fn a_language_models_score_decides_by_the_threshold_of_other_sentences() {
    let place = place();
    succeed(&place, "train tiny.toml --out language --set train.epochs=1");
    let args = "judge language errors/test.tsv --by mean --tune errors/valid.tsv";
    let found = place.json_of(&format!("{args} --json"));
    assert_eq!((found["sentences"].as_u64(), found["positives"].as_u64()), (Some(61), Some(21)));
    assert!((found["always_yes_f1"].as_f64().unwrap() - 42.0 / 82.0).abs() < 1e-12);
    assert!(found["tune_f1"].as_f64().unwrap() >= 0.5); // of always yes on 60 sentences of which 20 need an edit
    let [table, _] = succeed(&place, args);
    assert!(table.contains("always yes") && table.contains("−mean"), "{table}");
    place.fails(
        "judge language corpus.txt --tune errors/valid.tsv",
        3,
        &["corpus.txt: line 1: has 1 column"],
    );
    place.fails("judge language errors/test.tsv --threshold 0.5", 2, &["--tune FILE finds one"]);
    // Between sentences of one kind there is no threshold, and of none to be found no share can be.
    place.write("right.tsv", "0\tto be\n0\tor not\n");
    place.fails("judge language errors/test.tsv --tune right.tsv", 3, &["right.tsv", "all labels are 0"]);
    let [table, _] = succeed(&place, "judge language right.tsv --tune errors/valid.tsv");
    assert!(table.contains("recall           –") && table.contains("Matthews         –"), "{table}");
}

#[test]
fn made_up_errors_can_be_labelled_lines() {
    let place = place();
    let [lines, _] = succeed(&place, "data errors shakespeare --labels 0.4 --seed 3");
    let labels: Vec<&str> = lines.lines().skip(1).map(|line| line.split('\t').next().unwrap()).collect();
    let share = labels.iter().filter(|label| **label == "1").count() as f64 / labels.len() as f64;
    assert!(labels.len() > 1000 && (share - 0.4).abs() < 0.05, "{share}"); // four standard deviations are 0.06
    let [pairs, _] = succeed(&place, "data errors shakespeare --seed 3");
    for (line, pair) in lines.lines().zip(pairs.lines()).skip(1) {
        let [line, pair]: [Vec<&str>; 2] = [line, pair].map(|cells| cells.split('\t').collect());
        assert_eq!(line[1], if line[0] == "1" { pair[1] } else { pair[0] });
    }
    place.fails(
        "data errors corpus.txt --split valid",
        2,
        &["--split is for a corpus known by name", "corpus.txt"],
    );
    place.fails("data errors shakespeare --labels 1.5", 2, &["--labels is 1.5"]);
    place.fails("data errors shakespeare --count 0", 2, &["invalid value '0'", "--count"]);
}

#[test]
fn a_word_that_the_vocabulary_lacks_is_read_by_its_bytes() {
    let place = place();
    let cnn = "kind = \"char-cnn\"\ncharacters = \"bytes\"\nchar_size = 4\nfilter_widths = [1, 2, 3]\n\
               filter_counts = [4, 4, 4]\nhighway_layers = 1";
    let recipe = RECIPE.replace("kind = \"word\"\nsize = 8", cnn).replace("epochs = 6", "epochs = 1");
    place.write("bytes.toml", recipe.replace("pooling = \"max\"", "pooling = \"attention\""));
    let [_, err] = succeed(&place, "train bytes.toml --out run");
    assert!(err.contains(" 1 of them unknown"), "{err}");
    let result = place.json("run/result.json");
    assert_eq!(place.json_of("eval run --json")["nats_per_token"], result["nats_per_token"]);
    let output = place.rhn_reading("judge run - --json", b"a zebra\na Zebra\na <unk>\na zebra sees\n");
    let rows: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let probability = |row: usize| rows[row]["probability"].as_f64().unwrap();
    assert!(probability(0) != probability(1) && probability(0) != probability(2), "{rows:?}");
    assert_eq!(rows[4]["unknown_words"].as_u64(), Some(3));
}

#[test]
fn the_file_of_a_run_is_known_by_its_text_and_another_one_is_read_whole() {
    let place = place();
    place.write("one.tsv", made_up(200, 1));
    succeed(&place, "train classify.toml --corpus one.tsv --out run --set train.epochs=1");
    let own = place.json_of("eval run --json");
    assert_eq!((own["split"].as_str(), own["tokens"].as_u64()), (Some("test"), Some(10)));
    for name in ["one.tsv", "./one.tsv"] {
        let found = place.json_of(&format!("eval run --corpus {name} --json"));
        assert_eq!((&found["split"], &found["tokens"]), (&own["split"], &own["tokens"]), "{name}");
    }
    let read = |bytes: &[u8]| -> Value {
        let output = place.rhn_reading("eval run --corpus - --json", bytes);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)))
    };
    let text = fs::read(place.path("one.tsv")).unwrap();
    assert_eq!(read(&text)["nats_per_token"], own["nats_per_token"]);
    let other = read(&fs::read(place.path("errors/test.tsv")).unwrap());
    assert_eq!((other["split"].as_str(), other["tokens"].as_u64()), (Some("all"), Some(61)));
}

#[test]
fn the_corpus_of_a_run_is_found_beside_it_and_another_one_is_refused() {
    let place = place();
    succeed(&place, "train classify.toml --out runs/run --max-steps 40");
    fs::create_dir(place.path("far")).unwrap();
    place.rhn_from("far", "train ../runs/run --resume");
    let found = place.rhn_from("far", "eval ../runs/run --json");
    assert!(!found.stdout.is_empty());
    let test = fs::read_to_string(place.path("errors/test.tsv")).unwrap();
    let fewer: String = test.split_inclusive('\n').take(40).collect();
    place.write("errors/test.tsv", fewer);
    place.fails("eval runs/run", 3, &["errors", "another text than the run's", "--corpus"]);
    assert_eq!(place.json_of("eval runs/run --corpus errors --json")["split"], "test"); // by its name it is taken as it is
}
