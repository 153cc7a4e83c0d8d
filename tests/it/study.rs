//! `rhn plot`, `compare` and `sweep` from outside: pictures and tables of runs, and several runs in one go.

use crate::support::run;
use rhn::config::ModelConfig;
use rhn::config::Sweep;
use rhn::model::parameter_count;
use rhn::model::spelling::SpellingSize;
use run::{Place, signal, stderr, stdout, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What a run of words writes: a `start`, an epoch for each loss, a `result` if it is finished.
fn metrics(seed: u64, hidden: u64, losses: &[f64], test: Option<f64>) -> String {
    let recipe = json!({"corpus": {"name": "ptb", "unit": "word"}, "model": {"core": {"hidden_size": hidden}},
        "train": {"epochs": 3, "seed": seed}});
    let mut events =
        vec![json!({"event": "start", "corpus": "ptb", "corpus_sha256": "ab", "parameters": 1000 * hidden,
        "recipe": recipe, "version": "1"})];
    for (&loss, epoch) in losses.iter().zip(1..) {
        events.push(json!({"event": "epoch", "epoch": epoch, "step": 10 * epoch, "tokens": 700 * epoch,
            "train_nats_per_token": loss + 0.1, "valid_nats_per_token": loss, "valid_bits_per_char": loss / 4.0,
            "tokens_per_second": 1234.4, "seconds": 60 * epoch}));
    }
    events.extend(test.map(|test| json!({"event": "result", "nats_per_token": test, "seconds_total": 200})));
    events.iter().map(|event| format!("{event}\n")).collect()
}

fn place() -> Place {
    let place = Place::new();
    place.write("a-1/metrics.jsonl", metrics(1, 10, &[5.0, 100f64.ln(), 4.7], Some(90f64.ln())));
    place.write("a-2/metrics.jsonl", metrics(2, 10, &[5.0, 104f64.ln(), 4.7], Some(94f64.ln())));
    place.write("b/metrics.jsonl", metrics(1, 20, &[110f64.ln()], None));
    place
}

/// What a command that succeeds prints.
#[track_caller]
fn prints(place: &Place, args: &str) -> String {
    let output = place.rhn(args);
    assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
    stdout(&output)
}

#[test]
fn runs_are_compared_in_tables() {
    let wanted = "\
| run | parameters | epochs | best epoch | valid perplexity | test perplexity | tokens/s | time |
| --- | ---------: | -----: | ---------: | ---------------: | --------------: | -------: | ---: |
| a-1 |     10,000 |      3 |          2 |           100.00 |           90.00 |    1,234 | 3:20 |
| a-2 |     10,000 |      3 |          2 |           104.00 |           94.00 |    1,234 | 3:20 |
| b   |     20,000 | 1 of 3 |          1 |           110.00 |      unfinished |    1,234 | 1:00 |

| over seeds |        seeds |                valid perplexity |              test perplexity |
| ---------- | -----------: | ------------------------------: | ---------------------------: |
| a          |         1, 2 | 102.00 ± 2.83 (100.00 – 104.00) | 92.00 ± 2.83 (90.00 – 94.00) |
| b          | 1 unfinished |                               – |                            – |

| what differs | model.core.hidden_size | train.seed |
| ------------ | ---------------------: | ---------: |
| a-1          |                     10 |          1 |
| a-2          |                     10 |          2 |
| b            |                     20 |          1 |
";
    assert_eq!(prints(&place(), "compare a-1 a-2 b"), wanted);
}

/// Characters of shards are not counted: bytes have no bits per character there, and nats are shown in their place.
#[test]
fn runs_of_bytes_without_characters_are_compared_in_nats() {
    let place = place();
    let bytes = metrics(1, 10, &[0.7, 0.65], Some(0.5)).replace("\"word\"", "\"byte\"");
    place.write("counted/metrics.jsonl", &bytes);
    place.write("shards/metrics.jsonl", bytes.replace("valid_bits_per_char", "unread"));
    let heads = |args: &str, measure: &str| {
        let printed = prints(&place, args);
        assert!(printed.contains(&format!("| valid {measure} |")), "{args}: {printed}");
    };
    heads("compare shards", "nats per token");
    heads("compare shards a-1", "nats per token");
    heads("compare shards counted", "bits per character");
    assert!(prints(&place, "watch shards").contains("train 0.8000, valid 0.7000"));
    assert_eq!(prints(&place, "plot shards --out x.svg"), "x.svg\n");
}

/// A label of a sentence has no perplexity, a sentence VAE's is a bound, and its loss in training weighs the KL.
#[test]
fn losses_and_speeds_are_of_what_a_run_predicts() {
    let place = place();
    for (name, kind, protocol) in [("judge", "classify", "classify"), ("vae", "vae", "elbo")] {
        let of_kind = |line: &str| {
            let mut event: Value = serde_json::from_str(line).unwrap();
            match event["event"].as_str() {
                Some("start") => event["recipe"]["task"] = json!({"kind": kind}),
                Some("result") => event["protocol"] = protocol.into(),
                _ => {}
            }
            format!("{event}\n")
        };
        let events = metrics(1, 10, &[0.7, 0.65], Some(0.5));
        place.write(&format!("{name}/metrics.jsonl"), events.lines().map(of_kind).collect::<String>());
    }
    let parts = |args: &str, parts: &[&str]| {
        let printed = prints(&place, args);
        parts.iter().for_each(|part| assert!(printed.contains(part), "{args}: no {part:?} in {printed}"));
    };
    parts("compare judge", &["| valid nats per sentence |", "| sentences/s |", " 0.6500 |", " 0.5000 |"]);
    parts(
        "compare judge a-1",
        &["| valid nats |", " speed | time |", " 1,234 sentences/s |", " 1,234 tokens/s |"],
    );
    parts("compare judge --measure perplexity", &[" – | ", "judge: no perplexity, a label is no token"]);
    parts("compare judge a-1 --csv", &["judge,nats per sentence,", "a-1,nats per token,"]);
    parts("watch judge", &["losses in nats per sentence", "train 0.8000, valid 0.7000, 1,234 sentences/s"]);
    parts("runs .", &["| 0.6500 nats per sentence | 0.5000 nats per sentence |"]);
    parts(
        "compare vae a-1",
        &["| valid perplexity |", "\nvae: an upper bound, by the sentence VAE's −ELBO\n"],
    );
    assert!(!prints(&place, "compare vae").contains("bound")); // nothing that it could be taken for
    parts("watch vae", &["train 0.8000 nats of the weighed loss, valid 2.01, 1,234 tokens/s"]);
    place.fails("plot vae --split train --out x.svg", 2, &["nothing to draw", "weighs the KL"]);
    place.fails(
        "plot judge --y perplexity --out x.svg",
        2,
        &["nothing to draw", "labels have no perplexity"],
    );
    assert_eq!(prints(&place, "plot judge --out x.svg"), "x.svg\n");
    assert!(fs::read_to_string(place.path("x.svg")).unwrap().contains("nats per sentence, validation split"));
}

#[test]
fn a_comparison_in_json_has_plain_numbers() {
    let place = place();
    let found: Value =
        serde_json::from_str(&prints(&place, "compare a-1 b --json --label x --label y")).unwrap();
    let [first, second] = [&found["runs"][0], &found["runs"][1]];
    assert_eq!(
        (&first["name"], &first["parameters"], &first["finished"]),
        (&json!("x"), &json!(10_000), &json!(true))
    );
    assert!((first["test"].as_f64().unwrap() - 90.0).abs() < 1e-9);
    assert_eq!((&second["test"], &second["finished"]), (&Value::Null, &json!(false)));
    assert_eq!(found["differences"], json!({"model.core.hidden_size": [10, 20]}));
    place.fails("compare a-1 b --label x", 2, &["--label", "1 times for 2 runs"]);
    place.fails("compare nowhere", 4, &["nowhere", "metrics.jsonl: is missing"]);
}

#[test]
fn a_picture_in_svg_is_well_formed_and_names_its_curves() {
    let place = place();
    let args = "plot a-1 b --label <one>&\"two\" --label b --split both --reference 65.4=published";
    assert_eq!(prints(&place, args), "curve.svg\n");
    let svg = fs::read_to_string(place.path("curve.svg")).unwrap();
    let elements = check_well_formed(&svg);
    let count = |name: &str| elements.iter().filter(|element| *element == name).count();
    assert_eq!(count("title"), 4, "two runs, two splits: {svg}");
    for part in
        [">&lt;one&gt;&amp;&quot;two&quot;</text>", ">b</text>", ">100.00</text>", ">published 65.4</text>"]
    {
        assert!(svg.contains(part), "no {part:?} in {svg}");
    }
}

/// Every element is closed in its order, every attribute quoted; the elements' names.
fn check_well_formed(xml: &str) -> Vec<String> {
    let (mut open, mut names) = (Vec::new(), Vec::new());
    for tag in xml.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').unwrap_or_else(|| panic!("no end: <{tag}"));
        assert!(!text.contains('>') && tag.matches('"').count() % 2 == 0, "<{tag}>{text}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap().to_string();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "<{tag}>");
        } else {
            names.push(name.clone());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
    }
    assert!(open.is_empty() && xml.starts_with("<svg "), "{open:?}");
    names
}

#[test]
fn a_picture_in_png_decodes_and_has_its_curves_colours() {
    let place = place();
    prints(
        &place,
        "plot a-1 a-2 --out pictures/curve.png --width 400 --height 300 --scale 2 --x time --log-x",
    );
    let pixels = tiny_skia::Pixmap::decode_png(&fs::read(place.path("pictures/curve.png")).unwrap()).unwrap();
    assert_eq!((pixels.width(), pixels.height()), (800, 600));
    let count = |color: [u8; 3]| {
        let same =
            |pixel: &&tiny_skia::PremultipliedColorU8| [pixel.red(), pixel.green(), pixel.blue()] == color;
        pixels.pixels().iter().filter(same).count()
    };
    assert!(count([255; 3]) > 300_000, "mostly white");
    assert!(count([0, 114, 178]) > 500 && count([213, 94, 0]) > 500, "two curves");
}

#[test]
fn a_live_run_is_drawn_without_the_line_that_it_writes() {
    let place = place();
    let whole = fs::read_to_string(place.path("b/metrics.jsonl")).unwrap();
    place.write("b/metrics.jsonl", format!("{whole}{{\"event\":\"epo"));
    let output = place.rhn("plot b");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("note: b: the last line of metrics.jsonl is half written"),
        "{}",
        stderr(&output)
    );
    place.write(
        "b/metrics.jsonl",
        whole.replace("{\"event\":\"epoch\"", "\u{0}\u{0}").replace("\"epoch\"", "x"),
    );
    place.fails("plot a-1 b", 4, &["metrics.jsonl: line 2: is no event"]);
}

#[test]
fn a_picture_that_cannot_be_drawn_is_refused() {
    let place = place();
    place.write("begun/metrics.jsonl", metrics(1, 10, &[], None));
    place.fails("plot begun", 2, &["begun: no epoch is done yet", "nothing to draw yet", "--y nats"]);
    place.fails("compare a-1 b ./a-1", 2, &["./a-1 is given twice"]);
    place.fails("plot a-1 --out curve.pdf", 2, &["curve.pdf", ".svg or .png"]);
    place.fails("plot a-1 --split train --y bits-per-char", 2, &["training split are not known"]);
    place.fails("plot", 2, &[]);
    prints(&place, "plot begun a-1"); // what there is
}

const SWEEP: &str = "
recipe = \"tiny.toml\"
out = \"runs\"
[set]
train.epochs = 25
[[run]]
name = \"small\"
set.train.epochs = 2
[[run]]
name = \"deep\"
set.model.core.recurrence_depth = 3
";

#[test]
fn a_sweep_that_was_interrupted_goes_on_to_the_same_runs() {
    let place = Place::new();
    place.write("two.toml", SWEEP);
    prints(&place, "sweep two.toml --out whole");
    let child = place.command("sweep two.toml").spawn().unwrap();
    wait_until("the second run has an epoch", || !place.events("runs/deep", "epoch").is_empty());
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stdout(&output).contains("unfinished") && stderr(&output).contains("the same command goes on"));
    let again = place.rhn("sweep two.toml");
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert!(stderr(&again).contains("run 1 of 2: small, finished before"), "{}", stderr(&again));
    for run in ["small", "deep"] {
        assert_eq!(place.fingerprint(&format!("runs/{run}")), place.fingerprint(&format!("whole/{run}")));
    }
    let table = fs::read_to_string(place.path("runs/results.md")).unwrap();
    assert!(stdout(&again).ends_with(&table) && table.contains("| model.core.recurrence_depth |"), "{table}");
    assert_eq!(place.json("runs/results.json")["runs"].as_array().unwrap().len(), 2);
}

/// A run of a night that cannot be trained is said in the evening, and none of the sweep has begun then.
#[test]
fn a_run_whose_model_cannot_be_made_is_found_before_the_first_is_trained() {
    let place = Place::new();
    let wrong = SWEEP.replace(
        "set.model.core.recurrence_depth = 3",
        "set.model.core.mogrifier = { rounds = 2, rank = 90 }",
    );
    place.write("two.toml", &wrong);
    place.fails("sweep two.toml", 2, &["run deep", "mogrifier"]);
    assert!(!place.path("runs").exists());
    place.write("two.toml", wrong.replace("rank = 90", "rank = 2"));
    prints(&place, "sweep two.toml --set train.epochs=1");
    place.assert_counted_before(&wrong.replace("rank = 90", "rank = 2"), "runs/deep");
    let other = stderr(&place.rhn("sweep two.toml --set train.epochs=1 --precision bf16"));
    assert!(other.contains("finished before in f32, not bf16"), "{other}");
    // A model that is removed to make room is not trained again; the sweep says so.
    fs::remove_file(place.path("runs/small/model.safetensors")).unwrap();
    let again = stderr(&place.rhn("sweep two.toml --set train.epochs=1"));
    assert!(again.contains("run 1 of 2: small, finished before; its model.safetensors is gone"), "{again}");
}

#[test]
fn seeds_are_trained_one_after_another_and_taken_together() {
    let place = Place::new();
    place.write("seeds.toml", "recipe = \"tiny.toml\"\nseeds = [1, 2]\nset.train.epochs = 1");
    let table = prints(&place, "sweep seeds.toml");
    let means = table.lines().find(|line| line.contains("1, 2")).unwrap_or_else(|| panic!("{table}"));
    assert!(means.contains(" (") && means.contains(" – "), "mean and range: {means}");
    assert_ne!(place.fingerprint("checkpoints/seeds/seed-1"), place.fingerprint("checkpoints/seeds/seed-2"));
}

#[test]
fn a_run_that_diverges_does_not_keep_the_others_from_being_trained() {
    let place = Place::new();
    let text = "recipe = \"tiny.toml\"\nset.train.epochs = 2\n[[run]]\nname = \"bad\"\n\
        set.train = { optimizer = \"sgd\", learning_rate = 1e38, max_grad_norm = 0.0 }\n[[run]]\nname = \"good\"\n";
    place.write("two.toml", text);
    let output = place.rhn("sweep two.toml");
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("note: run bad: step ")
            && place.path("checkpoints/two/good/result.json").exists()
    );
}

#[test]
fn a_dry_run_lists_the_runs_and_writes_nothing() {
    let place = Place::new();
    place.write("two.toml", SWEEP);
    let table = prints(&place, "sweep two.toml --dry-run");
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows.len() == 6 && rows[5] == "all: train.epochs=25", "{table}");
    // a sublayer more is 2 (8² + 8) = 144 parameters
    let count = |row: &str| row.split('|').nth(2).unwrap().trim().replace(',', "").parse::<u64>().unwrap();
    assert_eq!(count(rows[3]) - count(rows[2]), 144);
    assert!(
        rows[2].contains("new, 2 epochs") && rows[3].ends_with(" model.core.recurrence_depth=3 |"),
        "{table}"
    );
    assert!(!place.path("runs").exists());
    place.write("wrong.toml", SWEEP.replace("train.epochs", "train.epoch"));
    place.fails("sweep wrong.toml", 2, &["wrong.toml: run \"small\"", "Did you mean epochs?"]);
    place.fails("sweep missing.toml", 2, &["missing.toml"]);
}

fn shipped(name: &str) -> Sweep {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/sweeps");
    Sweep::read(&folder.join(name), &[]).unwrap()
}

#[test]
fn the_depth_series_has_four_million_parameters_at_every_depth() {
    let sweep = shipped("ptb-depth.toml");
    assert_eq!(sweep.runs.len(), 10, "five depths, two seeds");
    for run in sweep.runs {
        let count = parameter_count(&ModelConfig::new(run.resolved.recipe.model, 10_000)).unwrap();
        assert!((count as f64 / 4e6 - 1.0).abs() < 0.01, "{}: {count}", run.name);
    }
}

#[test]
fn gates_are_shared_at_equal_parameters() {
    let sweep = shipped("ptb-rhn-shared-gates.toml");
    let counted = sweep.runs.into_iter().map(|run| {
        let count = parameter_count(&ModelConfig::new(run.resolved.recipe.model, 10_000)).unwrap();
        (run.name, count)
    });
    // As the sweep's comments say: V·H + V, then the input's products and the sublayers'.
    let wanted = [("own", 4_006_802), ("shared", 4_002_700), ("shared-both", 4_006_200)];
    for (name, count) in counted {
        assert!(
            wanted.iter().any(|&(run, wanted)| name.starts_with(run) && count == wanted),
            "{name}: {count}"
        );
    }
}

#[test]
fn cores_above_the_same_characters_are_compared_at_equal_parameters() {
    for run in shipped("ptb-char-cnn-cores.toml").runs {
        let mut model = ModelConfig::new(run.resolved.recipe.model, 10_000);
        model.set_spelling(SpellingSize { alphabet_size: 51, word_length: 21 });
        let wanted = if run.name.starts_with("rhn") { 5_263_811 } else { 5_254_755 };
        assert_eq!(parameter_count(&model).unwrap(), wanted, "{}", run.name);
    }
}

#[test]
fn the_highway_ablation_differs_in_its_highway_layers_alone() {
    let leaves: Vec<_> =
        shipped("ptb-char-cnn-highway.toml").runs.iter().map(|run| run.resolved.recipe.leaves()).collect();
    assert_eq!(leaves.len(), 3);
    let differs = |key: &&String| leaves.iter().any(|other| other[*key] != leaves[0][*key]);
    assert_eq!(leaves[0].keys().filter(differs).collect::<Vec<_>>(), ["model.embedding.highway_layers"]);
}

#[test]
fn the_variants_of_highway_layers_differ_in_nothing_else() {
    let runs = shipped("ptb-char-cnn-variants.toml").runs;
    let names: Vec<_> = runs.iter().map(|run| run.name.as_str()).collect();
    let wanted = [
        "coupled-2",
        "full-2",
        "c-only-2",
        "t-only-2",
        "residual-4",
        "residual-linear-2",
        "plain-1",
        "plain-4",
    ];
    assert_eq!(names, wanted);
    let leaves: Vec<_> = runs.iter().map(|run| run.resolved.recipe.leaves()).collect();
    let keys: BTreeSet<_> = leaves.iter().flat_map(|leaves| leaves.keys()).collect();
    let differs = |key: &&&String| leaves.iter().any(|other| other.get(**key) != leaves[0].get(**key));
    let found: Vec<_> = keys.iter().filter(differs).collect();
    assert_eq!(found, [&"model.embedding.highway", &"model.embedding.highway_layers"]);
}

#[test]
fn every_shipped_sweep_is_read() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/sweeps")).unwrap() {
        assert!(!shipped(entry.unwrap().file_name().to_str().unwrap()).runs.is_empty());
    }
}
