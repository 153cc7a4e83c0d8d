//! `rhn bench` from outside: every field is there and holds a number that can be; and the clock that it reads.

use crate::support::{run, shrunk};
use candle_core::{DType, Device};
use rhn::data::{DataDirectories, registry::Registry};
use rhn::task::language::Language;
use rhn::train::task::Task;
use rhn_kernels::profile::{self, Part};
use run::{Place, assert_fails, stderr, stdout};
use serde_json::Value;
use shrunk::shrunk;
use std::path::Path;
use std::process::Output;

const RATE: [&str; 4] = ["highest", "lowest", "repeats", "tokens_per_second"];
const TRAIN: [&str; 10] = [
    "distinct_tokens_per_step",
    "epoch_seconds",
    "epochs",
    "flops_per_step",
    "gflops",
    "parts",
    "run_seconds",
    "share_of_gemm_peak",
    "step_seconds",
    "tokens_per_step",
];

/// `rhn bench ARGS… --json --repeats 2` in `place`, where no corpus can be found.
fn bench(place: &Place, args: &str) -> Output {
    let mut command = place.command(&format!("bench {args} --json --repeats 2"));
    command.env("XDG_CACHE_HOME", place.path("cache")).env("HOME", place.path("home")).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_str(&stdout(output)).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn sorted<'a>(names: &[&[&'a str]]) -> Vec<&'a str> {
    let mut names = names.concat();
    names.sort_unstable();
    names
}

/// Every number below `value`, by its path.
fn numbers(path: &str, value: &Value, found: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => found.push((path.into(), number.as_f64().unwrap())),
        Value::Array(all) => all.iter().for_each(|value| numbers(path, value, found)),
        Value::Object(all) => {
            all.iter().for_each(|(key, value)| numbers(&format!("{path}.{key}"), value, found));
        }
        _ => {}
    }
}

#[test]
fn the_json_has_every_field_and_its_numbers_are_finite_and_positive() {
    let place = Place::new();
    let found = json(&bench(&place, "tiny.toml"));
    let fields = ["corpus", "device", "machine", "made_up", "parameters", "precision", "recipe", "sample"];
    assert_eq!(keys(&found), [&fields[..], &["stream", "threads", "train", "vocab_size"]].concat());
    let memory: &[&str] = if cfg!(target_os = "linux") { &["peak_memory_mib"] } else { &[] };
    let rate = sorted(&[&RATE, memory]);
    assert_eq!((keys(&found["stream"]), keys(&found["sample"])), (rate.clone(), rate));
    assert_eq!(keys(&found["train"]), sorted(&[&RATE, &TRAIN, memory]));
    assert_eq!(keys(&found["machine"]), ["gemm_peak_gflops", "memory_gb_per_second"]);
    let names = ["recipe", "corpus", "device", "precision"].map(|key| found[key].as_str().unwrap());
    assert_eq!(names, ["tiny", "corpus.txt", "cpu", "f32"]);
    let mut all = Vec::new();
    numbers("", &found, &mut all);
    for (path, number) in all {
        let may_be_zero = path.starts_with(".train.parts");
        assert!(number.is_finite() && (number > 0.0 || may_be_zero && number == 0.0), "{path} is {number}");
    }
    assert_eq!((&found["train"]["tokens_per_step"], &found["train"]["epochs"]), (&10.into(), &3.into()));
}

#[test]
fn the_parts_are_all_of_a_step() {
    let place = Place::new();
    for recipe in ["ptb-rhn", "ptb-char-cnn-small"] {
        let small = shrunk(recipe, 32, &[]).to_toml();
        place.write("small.toml", small);
        let found = json(&bench(&place, "small.toml --only train"));
        let parts = found["train"]["parts"].as_array().unwrap();
        let names: Vec<&str> = parts.iter().map(|part| part["part"].as_str().unwrap()).collect();
        assert_eq!((names[0], names[8], names.len()), ("masks", "rest", 9));
        let sum = |key: &str| parts.iter().map(|part| part[key].as_f64().unwrap()).sum::<f64>();
        assert!((sum("share") - 1.0).abs() < 1e-9, "{parts:?}");
        let empty: Vec<&Value> =
            parts.iter().filter(|part| part["seconds"].as_f64().unwrap() <= 0.0).collect();
        assert!(empty.is_empty(), "{recipe}: {empty:?}");
        assert!(found["machine"].is_null() && found["sample"].is_null());
    }
}

#[test]
fn products_that_do_not_follow_from_the_sizes_are_not_counted() {
    let place = Place::new();
    let sampled = "--set corpus.unit=word --set model.output={by_word=true} --set train.loss={kind=\"sampled\",samples=4}";
    let found = json(&bench(&place, &format!("tiny.toml --only train {sampled}")));
    let products = ["flops_per_step", "gflops", "share_of_gemm_peak"];
    assert!(products.iter().all(|key| found["train"][key].is_null()), "{found}");
    assert!(found["train"]["run_seconds"].as_f64().unwrap() > 0.0);
    let table = stdout(&place.rhn(&format!("bench tiny.toml --repeats 1 --only train {sampled}")));
    assert!(table.contains("the whole run") && !table.contains("GFLOP"), "{table}");
}

#[test]
fn a_step_of_varying_windows_has_its_own_tokens() {
    let place = Place::new();
    let found =
        json(&bench(&place, "tiny.toml --only train --set train.window=variable --set train.batch_size=4"));
    let [tokens, distinct] =
        ["tokens_per_step", "distinct_tokens_per_step"].map(|key| found["train"][key].as_f64().unwrap());
    assert!(distinct <= tokens, "{found}");
}

#[test]
fn without_the_corpus_a_made_up_text_of_its_size_is_measured_and_the_user_told() {
    let place = Place::new();
    place.write("small.toml", shrunk("ptb-char-rhn", 16, &["train.batch_size=4"]).to_toml());
    let output = bench(&place, "small.toml --only stream");
    let found = json(&output);
    assert_eq!((&found["made_up"], &found["vocab_size"]), (&true.into(), &50.into()));
    assert!(
        stderr(&output).contains("ptb-char is not on this machine; a made-up text with a vocabulary of 50")
    );
    assert!(!place.path("cache").exists(), "nothing is fetched");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let place = Place::new();
    assert_fails(&bench(&place, "ptb-rhm"), 2, &["Did you mean ptb-rhn?"]);
    assert_fails(&bench(&place, "ptb-rhn --set corpus.unit=char"), 2, &["rhn data fetch ptb"]);
    assert_fails(&bench(&place, "tiny.toml --set corpus.name=gone.txt"), 3, &["gone.txt"]);
    assert_eq!(place.rhn("bench tiny.toml --repeats 0").status.code(), Some(2));
}

#[test]
fn a_table_tells_rates_parts_and_time() {
    let place = Place::new();
    let found = stdout(&place.rhn("bench tiny.toml --repeats 1 --only train,sample"));
    for part in ["tiny on corpus.txt", "tokens/s", "training", "sampling", "recurrence, backward", "3 epochs"]
    {
        assert!(found.contains(part), "no {part:?} in {found}");
    }
    assert!(!found.contains("stream") && !found.contains("GB/s"), "{found}");
}

#[test]
fn listening_changes_no_bit_of_a_step() {
    let directories = DataDirectories::only(Path::new("."), Registry::built_in());
    let recipe = shrunk("shakespeare", 8, &["train.batch_size=2"]);
    let language = Language::prepare(recipe, &directories, None, DType::F32, &Device::Cpu).unwrap();
    let window = language.batch(0, 0).unwrap();
    let run = |listens: bool| {
        let mut stepper = language.stepper(None).unwrap();
        let mut step = |number| stepper.step(&window, number, 0.1).unwrap();
        match listens {
            false => [step(0), step(1)],
            true => {
                let (reports, spent) = profile::listen(|| [step(0), step(1)]);
                assert!(spent[Part::RecurrenceBackward as usize].as_nanos() > 0);
                reports
            }
        }
    };
    assert_eq!(run(false), run(true));
}
