//! Evaluation that adapts: against PyTorch (`tests/reference/adaptive/`), and from outside.

use crate::support::run;
use candle_core::{DType, Device, Tensor};
use rhn::config::ModelConfig;
use rhn::data::Tokens;
use rhn::eval::adapt::{
    Adaptation, AdaptedReader, CacheSettings, DynamicModel, DynamicSettings, Predictor, statistics,
};
use rhn::model::{LanguageModel, Parameters};
use rhn::predict::{Reader, WindowReader};
use run::{PLAY, Place, assert_fails, signal, stderr, stdout, wait_until, without_clock};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What PyTorch computed for one small model.
struct Golden {
    config: ModelConfig,
    settings: Value,
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/adaptive");
        let bytes = std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().as_ref().unwrap();
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        Self {
            config: serde_json::from_str(&metadata["config"]).unwrap(),
            settings: serde_json::from_str(&metadata["settings"]).unwrap(),
            tensors: tensors.into_iter().collect(),
        }
    }

    fn parameters(&self, dtype: DType) -> Parameters {
        Parameters::load(&self.config, &self.named("param."), dtype, &Device::Cpu).unwrap()
    }

    /// The arrays whose names begin with `prefix`, under the rest of their names.
    fn named(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let named = |(name, tensor): (&String, &Tensor)| {
            Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()))
        };
        self.tensors.iter().filter_map(named).collect()
    }

    fn tokens(&self, name: &str) -> Vec<u32> {
        self.tensors[name].to_vec1().unwrap()
    }

    fn number(&self, name: &str) -> f64 {
        self.settings[name].as_f64().unwrap()
    }

    fn dynamic(&self) -> DynamicSettings {
        DynamicSettings {
            rate: self.number("dynamic_rate"),
            decay: self.number("dynamic_decay"),
            epsilon: self.number("dynamic_epsilon"),
            segment: self.number("segment") as usize,
            ..DynamicSettings::default()
        }
    }

    /// What is on in the protocol of this name.
    fn adaptation(&self, protocol: &str) -> Adaptation {
        let has = |part: &str| protocol.contains(part);
        let cache = CacheSettings {
            window: self.number("cache") as usize,
            theta: self.number("cache_theta"),
            lambda: self.number("cache_lambda"),
        };
        Adaptation {
            temperature: has("temperature").then(|| self.number("temperature")),
            dynamic: has("dynamic").then(|| self.dynamic()),
            cache: has("cache").then_some(cache),
            tuned_tokens: None,
        }
    }
}

/// The nats of each token of a text but the first.
fn nats(predictor: &mut dyn Predictor, tokens: &[u32], adaptation: &Adaptation) -> Vec<f64> {
    let window = predictor.window();
    let mut reader = AdaptedReader::new(predictor, adaptation, tokens.len()).unwrap();
    let column = |ids: &[u32]| Tensor::from_slice(ids, (ids.len(), 1), &Device::Cpu).unwrap();
    let inputs = tokens[..tokens.len() - 1].chunks(window);
    let windows = inputs.zip(tokens[1..].chunks(window));
    let read = windows.map(|(inputs, targets)| reader.nats(&column(inputs), &column(targets)).unwrap());
    read.flat_map(|nats| values(&nats)).collect()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference; infinite where a number is missing.
fn distance(found: &[f64], wanted: &[f64]) -> f64 {
    let far = |(found, wanted): (&f64, &f64)| {
        let far = (found - wanted).abs();
        if far.is_nan() { f64::INFINITY } else { far }
    };
    if found.len() == wanted.len() {
        found.iter().zip(wanted).map(far).fold(0.0, f64::max)
    } else {
        f64::INFINITY
    }
}

#[test]
fn two_hundred_tokens_cost_what_they_cost_in_pytorch() {
    for name in ["rhn-tied", "char-cnn-lstm", "mixture-lstm"] {
        let golden = Golden::read(name);
        let text = golden.tokens("text");
        for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 1e-5)] {
            let device = Device::Cpu;
            let train = Tokens::U32(golden.tokens("train"));
            let parameters = golden.parameters(dtype);
            let rms = statistics::gather(
                &golden.config,
                &parameters,
                ("train", &train),
                dtype.into(),
                &device,
                &mut |_, _| Ok(()),
            );
            let rms = rms.unwrap();
            let check = |what: &str, found: &[f64], wanted: &Tensor| {
                let far = distance(found, &values(wanted));
                assert!(far < tolerance, "{name} {dtype:?} {what}: off by {far:.1e}");
            };
            golden.named("rms.").iter().for_each(|(key, wanted)| check(key, &values(&rms[key]), wanted));
            let unchanged = golden.parameters(dtype);
            let model = LanguageModel::new(&golden.config, &unchanged, dtype, &device).unwrap();
            let mut fixed = WindowReader::new(&model.freeze().unwrap(), 1).unwrap();
            let settings = golden.dynamic();
            let mut learning =
                DynamicModel::new(&golden.config, parameters, &rms, settings, dtype.into(), &device).unwrap();
            for (protocol, wanted) in golden.named("nats.") {
                let adaptation = golden.adaptation(&protocol);
                let predictor: &mut dyn Predictor =
                    if adaptation.dynamic.is_some() { &mut learning } else { &mut fixed };
                check(&protocol, &nats(predictor, &text, &adaptation), &wanted);
            }
            let weights = learning.weights().unwrap();
            golden.named("after.").iter().for_each(|(key, after)| check(key, &values(&weights[key]), after));
        }
    }
}

/// A directory with a trained run, `run`.
fn trained() -> Place {
    let place = Place::new();
    place.train("--out run");
    place
}

#[track_caller]
fn json(place: &Place, args: &str) -> Value {
    place.json_of(&format!("eval run --json {args}"))
}

#[test]
fn a_result_names_its_protocol_and_every_setting_and_the_checkpoint_stays_as_it_was() {
    let place = trained();
    let weights = std::fs::read(place.path("run/model.safetensors")).unwrap();
    let plain = json(&place, "");
    assert!(plain.get("dynamic_rate").is_none() && plain.get("cache").is_none());
    let dynamic = ["dynamic_rate", "dynamic_decay", "dynamic_epsilon", "segment", "dynamic_update"];
    let cache = ["cache", "cache_theta", "cache_lambda"];
    for (args, protocol, names) in [
        ("--dynamic", "dynamic", &dynamic[..]),
        ("--cache 20", "cache", &cache),
        (
            "--cache 20 --dynamic --temperature 1.1",
            "dynamic+cache",
            &[&dynamic[..], &cache, &["temperature"]].concat(),
        ),
        ("--mc 2 --temperature 1.1", "mc", &["temperature"]),
        ("--mc 2 --cache 9 --cache-theta 0.5", "mc+cache", &["cache_theta"]),
        ("--mc 2 --dynamic --segment 7", "mc+dynamic", &["dynamic_rate"]),
        ("--protocol batched --temperature 0.9", "batched", &["temperature"]),
    ] {
        let found = json(&place, args);
        assert_eq!(found["protocol"], protocol, "{args}");
        names.iter().for_each(|name| assert!(!found[name].is_null(), "{args}: no {name} in {found}"));
        assert_ne!(found["nats_per_token"], plain["nats_per_token"], "{args}");
    }
    assert_eq!(std::fs::read(place.path("run/model.safetensors")).unwrap(), weights);
    let table = stdout(&place.rhn("eval run --cache 20 --dynamic"));
    assert!(table.contains("dynamic+cache protocol") && table.contains("segment 5, all"), "{table}");
}

#[test]
fn statistics_are_gathered_once_and_any_number_of_threads_gives_the_same_bits() {
    let place = trained();
    let eval = |threads: usize| {
        let args = format!("eval run --json --dynamic --dynamic-rate 1e-3 --cache 20 --threads {threads}");
        let output = place.rhn(&args);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        (without_clock(found), stderr(&output).contains("gathering gradient statistics"))
    };
    let (wanted, gathered) = eval(1);
    assert!(gathered && place.path("run/gradient-rms.safetensors").is_file());
    for threads in [2, 3] {
        assert_eq!(eval(threads), (wanted.clone(), false), "{threads} threads");
        std::fs::remove_file(place.path("run/gradient-rms.safetensors")).unwrap();
        assert_eq!(eval(threads), (wanted.clone(), true), "{threads} threads, statistics and all");
    }
}

#[test]
fn what_changes_nothing_changes_no_bit() {
    let place = trained();
    let plain = json(&place, "")["nats_per_token"].clone();
    for args in ["--temperature 1", "--cache 20 --cache-lambda 0"] {
        assert_eq!(json(&place, args)["nats_per_token"], plain, "{args}");
    }
    let segments = |args: &str| json(&place, args)["nats_per_token"].as_f64().unwrap();
    let still = segments("--dynamic --dynamic-rate 0 --dynamic-decay 0 --segment 256"); // the windows of the stream
    let plain = plain.as_f64().unwrap();
    // The last window is short: it reads its weights in place, where sums have another order.
    assert!((still / plain - 1.0).abs() < 1e-6, "{still} and {plain}");
}

#[test]
fn flags_that_mean_nothing_are_refused_with_one_error() {
    let place = trained();
    place.fails("eval run --protocol batched --cache 5", 2, &["--cache", "not batched"]);
    for (args, parts) in [
        ("--temperature 0", &["--temperature is 0", "above 0"][..]),
        ("--dynamic --dynamic-rate -1", &["--dynamic-rate is -1", "at least 0"]),
        ("--dynamic --dynamic-decay NaN", &["--dynamic-decay is NaN"]),
        ("--dynamic --dynamic-epsilon 0", &["--dynamic-epsilon is 0"]),
        ("--dynamic --segment 0", &["--segment is 0", "at least 1"]),
        ("--cache 0", &["--cache is 0"]),
        ("--cache 9 --cache-lambda 1.5", &["--cache-lambda is 1.5", "less than 1"]),
        ("--cache 9 --cache-lambda -0.5", &["--cache-lambda is -0.5"]),
        ("--cache 9 --cache-theta inf", &["--cache-theta is inf"]),
        ("--segment 5", &["--dynamic"]),
        ("--cache-theta 1", &["--cache"]),
        ("--tune --temperature 1.1", &["--tune has nothing to search"]),
        ("--mc 3 --tune", &["--mc", "--tune", "cannot be used with"]),
        ("--protocol batched --dynamic", &["--protocol", "--dynamic", "cannot be used with"]),
        ("--dynamic --dynamic-update bias", &["bias", "gate-biases", "output-bias"]),
    ] {
        let output = place.rhn(&format!("eval run {args}"));
        assert_fails(&output, 2, parts);
        assert_eq!(stderr(&output).matches("error").count(), 1, "{args}: {}", stderr(&output));
    }
}

#[test]
fn statistics_of_other_weights_are_gathered_anew_and_damaged_ones_refused_by_name() {
    let place = trained();
    place.train("--out other --set train.seed=2");
    let nats = |args: &str| json(&place, args)["nats_per_token"].as_f64().unwrap();
    let single = nats("--dynamic");
    let own = place.path("run/gradient-rms.safetensors");
    let other = place.path("other/gradient-rms.safetensors");
    let of_other = || {
        let output = place.rhn("eval other --dynamic --json");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        (found["nats_per_token"].as_f64().unwrap(), stderr(&output).contains("other weights"))
    };
    let (wanted, _) = of_other();
    std::fs::copy(&own, &other).unwrap();
    assert_eq!(of_other(), (wanted, true));
    assert_eq!(of_other(), (wanted, false));
    // A figure does not depend on the precision of the evaluation before.
    let double = nats("--dynamic --precision f64");
    assert_eq!(nats("--dynamic"), single);
    assert_eq!(nats("--dynamic --precision f64"), double);
    assert_eq!(nats("--dynamic"), single);
    let bytes = std::fs::read(&own).unwrap();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut zeros = bytes.clone();
    zeros[header..].fill(0);
    std::fs::write(&own, zeros).unwrap();
    place.fails("eval run --dynamic", 4, &["run/gradient-rms.safetensors", "damaged", "remove"]);
    std::fs::write(&own, &bytes[..bytes.len() - 9]).unwrap();
    place.fails("eval run --dynamic", 4, &["run/gradient-rms.safetensors"]);
}

#[test]
fn without_the_training_text_there_are_no_statistics() {
    let place = trained();
    std::fs::rename(place.path("corpus.txt"), place.path("mine.txt")).unwrap();
    place.fails(
        "eval run --file mine.txt --dynamic",
        3,
        &["corpus.txt", "--dynamic needs the training split"],
    );
    assert_eq!(place.rhn("eval run --file mine.txt --cache 9").status.code(), Some(0));
}

#[test]
fn a_rate_that_is_far_too_large_is_an_error_that_says_what_to_do() {
    let place = trained();
    place.fails("eval run --dynamic --dynamic-rate 1e300", 5, &["left its course", "--dynamic-rate"]);
}

#[test]
fn a_signal_ends_the_gathering_and_leaves_no_file() {
    let place = trained();
    place.write("corpus.txt", PLAY.repeat(40_000)); // long enough to be interrupted
    place.train("--out long --max-steps 2");
    let child = place.command("eval long --dynamic").spawn().unwrap();
    wait_until("the process listens to signals", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
        u64::from_str_radix(caught, 16).unwrap_or(0) & 2 != 0 // SIGINT
    });
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let left = std::fs::read_dir(place.path("long")).unwrap();
    let names = left.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    assert!(names.into_iter().all(|name| !name.contains("gradient-rms")));
}

#[test]
fn a_search_prints_its_trials_and_flags_that_give_the_same_again() {
    let place = trained();
    let output = place.rhn("eval run --json --tune --dynamic --segment 10 --cache 30");
    let tuned = without_clock(serde_json::from_slice(&output.stdout).unwrap());
    let printed = stderr(&output);
    let best = printed.lines().find_map(|line| line.split_once("validation split: ")).expect("the best").1;
    let mut again = without_clock(json(&place, best));
    again["tuned_tokens"] = tuned["tuned_tokens"].clone();
    assert_eq!(again, tuned, "{best}");
    assert_eq!(printed.lines().filter(|line| line.trim_start().starts_with(char::is_numeric)).count(), 83);
    let table = stdout(&place.rhn("eval run --tune"));
    assert!(table.contains("--temperature 1.25") && table.contains("tuned on"), "{table}");
}

#[test]
fn scoring_and_sampling_can_have_the_cache_that_evaluation_has() {
    let place = trained();
    let cache = "--cache 20 --cache-theta 0.5 --cache-lambda 0.3";
    place.write("text.txt", PLAY);
    let wanted = json(&place, &format!("--file text.txt {cache}"));
    let total = |args: &str| -> Value {
        let output = place.rhn(&format!("score run text.txt --per line --base e --json {args}"));
        serde_json::from_str(stdout(&output).lines().last().unwrap()).unwrap()
    };
    let found = total(cache);
    assert!(total("").get("protocol").is_none());
    assert_eq!((&found["protocol"], &found["cache"]), (&wanted["protocol"], &wanted["cache"]));
    let nats = wanted["nats_per_token"].as_f64().unwrap();
    let first = place.rhn(&format!("score run text.txt --base e --json {cache}"));
    let rows = stdout(&first).lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let tokens = rows[1..rows.len() - 1].iter().map(|row| row["surprisal"].as_f64().unwrap());
    let mean = tokens.clone().sum::<f64>() / tokens.len() as f64; // evaluation predicts every token but the first
    assert_eq!(tokens.len() as u64, wanted["tokens"].as_u64().unwrap());
    assert!((mean - nats).abs() < 0.01, "{mean} is not {nats}");
    let sample = |args: &str| stdout(&place.rhn(&format!("sample run --prompt to --tokens 80 {args}")));
    assert_eq!(sample(cache), sample(cache));
    assert_ne!(sample(cache), sample(""));
    place.fails("sample run --cache 0", 2, &["--cache is 0"]);
    place.fails("score run text.txt --cache 9 --cache-lambda 2", 2, &["--cache-lambda is 2"]);
    place.fails("score run text.txt --cache-theta 2", 2, &["--cache"]);
}

#[test]
fn an_evaluation_that_is_kept_has_a_column_of_its_own_until_the_weights_change() {
    let place = trained();
    place.train("--out other --set train.seed=2");
    let cached = json(&place, "--cache 20 --keep");
    let dynamic = json(&place, "--dynamic --dynamic-rate 1e-3 --keep");
    let table = stdout(&place.rhn("compare run other"));
    let head = table.lines().next().unwrap();
    assert!(head.contains("test bits per character (cache)") && head.contains("(dynamic)"), "{table}");
    let last = table.lines().nth(3).unwrap().trim_end_matches(" |").rsplit(' ').next();
    assert_eq!(last, Some("–"), "{table}");
    let rows: Value = serde_json::from_slice(&place.rhn("compare run other --json").stdout).unwrap();
    let kept = &rows["runs"][0]["test_by_protocol"];
    assert_eq!((&kept["cache"], &kept["dynamic"]), (&cached["bits_per_char"], &dynamic["bits_per_char"]));
    assert!(rows["runs"][1].get("test_by_protocol").is_none());
    assert!(stdout(&place.rhn("compare run other --csv")).contains(",test_cache,test_dynamic,"));
    assert!(!table.contains("cache is"), "{table}");
    assert_eq!(rows["runs"][0]["settings_by_protocol"]["cache"]["cache"], 20);
    place.rhn("eval other --cache 30 --keep");
    let table = stdout(&place.rhn("compare run other"));
    assert!(table.contains("\ncache: cache is 20 of run, 30 of other\n"), "{table}");
    let warm = json(&place, "--temperature 1.2 --keep");
    let table: Value = serde_json::from_slice(&place.rhn("compare run --json").stdout).unwrap();
    let kept = &table["runs"][0]["test_by_protocol"];
    assert_eq!(kept["stream, temperature 1.2"], warm["bits_per_char"], "{kept}");
    assert!(kept.get("stream").is_none(), "{kept}");
    // By another name of the same text, and with the same weights.
    let step = place.last_step("run");
    place.train(&format!(
        "--out run --resume --corpus ./corpus.txt --set train.epochs=6 --max-steps {}",
        step + 1
    ));
    assert!(stdout(&place.rhn("compare run")).contains("(cache)"));
    place.train("--out run --resume --set train.epochs=6");
    assert!(!stdout(&place.rhn("compare run")).contains("(cache)"));
    place.fails("eval run --keep --file corpus.txt", 2, &["--keep", "--file"]);
    std::fs::create_dir(place.path("far")).unwrap(); // the text is beside the run, and has the run's name for it
    place.rhn_from("far", "eval ../run --cache 30 --keep");
    assert!(stdout(&place.rhn("compare run")).contains("(cache)"));

    // What a write that was cut off left neither takes the next line with it nor is passed over in silence.
    place.write("run/evaluations.jsonl", "{\"x");
    json(&place, "--cache 20 --keep");
    let output = place.rhn("compare run");
    assert!(stdout(&output).contains("(cache)") && stderr(&output).contains("evaluations.jsonl: line 1"));
}
