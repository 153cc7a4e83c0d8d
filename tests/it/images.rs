//! Nets for images: against PyTorch, from idx files to a result, resumed to the bit, and studied.

use crate::support::run::{Place, stderr, stdout};
use candle_core::{DType, Device, Tensor, Var};
use rhn::config::ModelConfig;
use rhn::config::Resolved;
use rhn::model::{LanguageModel, Noise, Parameters};
use rhn::train::objective::Sums;
use rhn::train::update::{Step, Update};
use rhn_kernels::gradients::Gradient;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What PyTorch computed for one small net.
struct Golden {
    config: ModelConfig,
    train: Value,
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/images");
        let bytes = fs::read(folder.join(format!("{name}.safetensors"))).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().as_ref().unwrap();
        Self {
            config: serde_json::from_str(&metadata["config"]).unwrap(),
            train: serde_json::from_str(&metadata["train"]).unwrap(),
            tensors: candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
                .unwrap()
                .into_iter()
                .collect(),
        }
    }

    fn parameters(&self, dtype: DType) -> Parameters {
        let first = self
            .tensors
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix("first.")?.to_string(), tensor.clone())));
        Parameters::load(&self.config, &first.collect(), dtype, &Device::Cpu).unwrap()
    }

    /// A step's images, `(1, batch, pixels)`, and labels, `(1, batch)`.
    fn batch(&self, step: usize, dtype: DType) -> (Tensor, Tensor) {
        let images = self.tensors["images"].get(step).unwrap().to_dtype(dtype).unwrap();
        let labels = self.tensors["labels"].get(step).unwrap();
        (images.unsqueeze(0).unwrap(), labels.unsqueeze(0).unwrap())
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference over the largest wanted magnitude; infinite if a number is missing.
fn distance(found: &[f64], wanted: &[f64]) -> f64 {
    if found.len() != wanted.len() {
        return f64::INFINITY;
    }
    let largest = wanted.iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let far = found.iter().zip(wanted).map(|(a, b)| (a - b).abs() / largest);
    far.fold(0.0, |worst, far| if far.is_nan() { f64::INFINITY } else { far.max(worst) })
}

fn agrees_with_pytorch(name: &str) {
    let golden = Golden::read(name);
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-5)] {
        let check = |what: &str, found: &[f64], wanted: &str| {
            let far = distance(found, &values(&golden.tensors[wanted]));
            assert!(far <= tolerance, "{name} in {dtype:?}: {what} is off by {far:e}");
        };
        let parameters = golden.parameters(dtype);
        let model = LanguageModel::new(&golden.config, &parameters, dtype, &Device::Cpu).unwrap();
        let state = model.zero_state(0).unwrap();
        let (images, labels) = golden.batch(0, dtype);
        let (logits, _) = model.logits(&images, &state, &Noise::none()).unwrap();
        check("logits", &values(&logits), "logits");
        let (nats, _) = model.nats(&images, &labels, &state, &Noise::none()).unwrap();
        let loss = nats.mean_all().unwrap();
        check("the loss", &values(&loss), "loss");
        let gradients = loss.backward().unwrap();
        for (weight, variable) in parameters.trained() {
            let gradient = gradients.get(variable).unwrap_or_else(|| panic!("{weight} has no gradient"));
            check(weight, &values(gradient), &format!("grad.{weight}"));
        }
        twenty_steps(&golden, &parameters, &model, dtype, &check);
    }
}

/// The losses, and the weights after the last update, of descent with momentum.
fn twenty_steps(
    golden: &Golden,
    parameters: &Parameters,
    model: &LanguageModel,
    dtype: DType,
    check: &dyn Fn(&str, &[f64], &str),
) {
    let keys = ["momentum", "nesterov", "weight_decay", "learning_rate"];
    let settings: Vec<String> =
        keys.iter().map(|key| format!("train.{key}={}", golden.train[*key])).collect();
    let train = Resolved::new("mnist-highway", &settings).unwrap().recipe.train;
    let mut update = Update::new(&train, parameters, dtype, &Device::Cpu).unwrap();
    let state = model.zero_state(0).unwrap();
    let mut losses = Vec::new();
    for step in 0..20 {
        let (images, labels) = golden.batch(step, dtype);
        let (nats, _) = model.nats(&images, &labels, &state, &Noise::none()).unwrap();
        let loss = nats.mean_all().unwrap();
        losses.push(values(&loss)[0]);
        let store = loss.backward().unwrap();
        let gradient = |(_, variable): (&str, &Var)| Some(Gradient::Dense(store.get(variable)?.clone()));
        let gradients = parameters.trained().map(gradient).collect();
        let sums = Sums { nats: nats.detach(), tokens: labels.elem_count() as u64 };
        update
            .step(parameters, gradients, &sums, Step { step: step as u64, rate: train.learning_rate })
            .unwrap();
    }
    check("the curve", &losses, "losses");
    for (weight, variable) in parameters.trained() {
        check(weight, &values(variable), &format!("after.{weight}"));
    }
}

#[test]
fn a_plain_net_equals_pytorch() {
    agrees_with_pytorch("plain-relu");
}

#[test]
fn a_highway_net_equals_pytorch() {
    agrees_with_pytorch("coupled-tanh");
}

#[test]
fn a_highway_net_with_carry_gates_of_its_own_equals_pytorch() {
    agrees_with_pytorch("full-tanh");
}

#[test]
fn highway_nets_that_share_gates_over_depth_equal_pytorch() {
    ["coupled-tanh-shared", "full-sigmoid-shared-transform", "full-sigmoid-shared-both"]
        .into_iter()
        .for_each(agrees_with_pytorch);
}

/// An idx file of bytes.
fn idx(sizes: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(elements);
    bytes
}

/// Images of 3 × 3 pixels of three classes: a row of each is bright, the others are of noise.
fn made_up(count: u32, first: u32) -> (Vec<u8>, Vec<u8>) {
    let mut random = first.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        random
    };
    let mut pixels = Vec::new();
    let mut labels = Vec::new();
    for _ in 0..count {
        let label = next() % 3;
        labels.push(label as u8);
        pixels.extend((0..9).map(|at| (next() % 100) as u8 + if at / 3 == label { 120 } else { 0 }));
    }
    (idx(&[count, 3, 3], &pixels), idx(&[count], &labels))
}

/// A directory with `images/`, an idx corpus.
fn place() -> Place {
    let place = Place::new();
    for (name, count, first) in [("train", 240, 1), ("t10k", 60, 2)] {
        let (images, labels) = made_up(count, first);
        place.write(&format!("images/{name}-images-idx3-ubyte"), images);
        place.write(&format!("images/{name}-labels-idx1-ubyte"), labels);
    }
    place
}

/// Settings of a net for them that trains in a moment.
const SMALL: &str = "--set corpus.name=images --set model.embedding.pixels=9 --set model.core.layers=4 \
                     --set model.core.hidden_size=8 --set train.batch_size=20 --set train.epochs=12 \
                     --set train.learning_rate=0.1";

fn succeed(place: &Place, args: &str) -> String {
    let output = place.rhn(args);
    assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
    stdout(&output)
}

#[test]
fn a_net_learns_its_images_and_evaluates_to_its_result() {
    let place = place();
    for recipe in ["mnist-highway", "mnist-plain"] {
        succeed(&place, &format!("train {recipe} {SMALL} --out {recipe}"));
        let result = place.json(&format!("{recipe}/result.json"));
        assert!(result["accuracy"].as_f64().unwrap() > 0.95, "{result}");
        let found: Value = serde_json::from_str(&succeed(&place, &format!("eval {recipe} --json"))).unwrap();
        for key in ["nats_per_token", "accuracy", "tokens"] {
            assert_eq!(found[key], result[key], "{recipe}: {key}");
        }
        let train = succeed(&place, &format!("eval {recipe} --split train --json"));
        let train: Value = serde_json::from_str(&train).unwrap();
        assert_eq!(train["nats_per_token"], result["valid_nats_per_token"]); // it chose the weights
        let settings: String = SMALL.split("--set ").skip(1).map(|one| format!("set.{one}\n")).collect();
        let head = format!("recipe = \"{recipe}\"\n{}", settings.replace("=images", "=\"images\""));
        place.assert_counted_before(&head, recipe);
    }
}

#[test]
fn a_stopped_net_resumes_to_the_bit_on_any_number_of_threads() {
    let place = place();
    succeed(&place, &format!("train mnist-highway {SMALL} --out whole --threads 1"));
    succeed(&place, &format!("train mnist-highway {SMALL} --out parts --max-steps 31 --threads 2"));
    succeed(&place, "train parts --resume --max-steps 77 --threads 3");
    succeed(&place, "train parts --resume --threads 2");
    for ((name, whole), (_, parts)) in place.fingerprint("whole").iter().zip(place.fingerprint("parts")) {
        assert_eq!(whole, &parts, "{name}");
    }
}

#[test]
fn what_the_layers_read_and_what_they_give_is_dropped() {
    let place = place();
    let weights = |rates: &str| {
        let out = format!("run-{}", rates.len());
        succeed(&place, &format!("train mnist-highway {SMALL} --out {out} --max-steps 5 {rates}"));
        std::fs::read(place.newest(&out).join("model.safetensors")).unwrap()
    };
    let plain = weights("");
    assert!(weights("--set train.dropout.input=0.5") != plain);
    assert!(weights("--set train.dropout.output=0.5") != plain);
}

#[test]
fn a_dry_run_counts_images() {
    place().dry_run(&format!("mnist-highway {SMALL}"), "images");
}

#[test]
fn validation_images_are_kept_apart_when_asked_for() {
    let place = place();
    succeed(
        &place,
        &format!("train mnist-highway {SMALL} --set corpus.split=[75,25,0] --out run --max-steps 20"),
    );
    let start = place.events("run", "start").remove(0);
    assert_eq!((start["train_tokens"].as_u64(), start["steps_per_epoch"].as_u64()), (Some(180), Some(9)));
    assert!(succeed(&place, "eval run --split valid").contains("images           60"));
}

#[test]
fn the_transform_bias_is_what_was_asked_for_when_built_and_when_loaded() {
    let place = place();
    let asked = "--set model.core.transform_bias=-3.5 --set train.learning_rate=1e-12 --set train.epochs=1";
    succeed(&place, &format!("train mnist-highway {SMALL} {asked} --out run"));
    let gates = succeed(&place, "study gates run --json --out gates");
    let gates: Value = serde_json::from_str(&gates).unwrap();
    for layer in gates["stages"][0]["layers"].as_array().unwrap() {
        assert!((layer["bias"].as_f64().unwrap() + 3.5).abs() < 1e-6, "{layer}");
    }
}

#[test]
fn a_lesion_of_nothing_is_the_net_and_one_of_a_plain_layer_costs_much() {
    let place = place();
    succeed(&place, &format!("train mnist-highway {SMALL} --out highway"));
    succeed(&place, &format!("train mnist-plain {SMALL} --out plain"));
    for net in ["highway", "plain"] {
        let found =
            succeed(&place, &format!("study lesion {net} --swap --repeat --shuffle 2 --json --out lesion"));
        let found: Value = serde_json::from_str(&found).unwrap();
        let eval: Value =
            serde_json::from_str(&succeed(&place, &format!("eval {net} --split train --json"))).unwrap();
        assert_eq!(found["untouched"]["nats_per_token"], eval["nats_per_token"]); // to the last bit
        assert!(eval.get("perplexity").is_none() && found["untouched"]["absent"].is_null());
        let left_out = found["interventions"].as_array().unwrap().iter();
        let left_out: Vec<f64> = left_out
            .filter(|one| one["intervention"] == "left out")
            .map(|one| one["nats_per_token"].as_f64().unwrap())
            .collect();
        assert_eq!(left_out.len(), 4);
        let untouched = eval["nats_per_token"].as_f64().unwrap();
        assert!(left_out.iter().all(|nats| *nats != untouched), "a lesion changes something");
        let ratio = found["interventions"][0]["ratio"].as_f64().unwrap();
        assert!((ratio - left_out[0] / untouched).abs() < 1e-9 * ratio, "a ratio of losses");
        if net == "plain" {
            assert!(
                left_out.iter().all(|nats| *nats > 5.0 * untouched),
                "{left_out:?}, untouched {untouched}"
            );
        }
    }
}

#[test]
fn the_estimates_end_in_the_last_layer() {
    let place = place();
    succeed(&place, &format!("train mnist-highway {SMALL} --out run"));
    let found = succeed(&place, "study estimate run --against init --json --out estimate");
    place.fails("study estimate run --over types", 2, &["--over is for words"]);
    assert!(succeed(&place, "data inspect images").contains("240"));
    place.fails("bench mnist-highway", 2, &["rhn bench is for language models", "images"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    let stages = found["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 2);
    for stage in stages {
        let layers = stage["layers"].as_array().unwrap();
        assert_eq!((layers.len(), stage["rows"].as_u64()), (5, Some(240)));
        assert_eq!(layers[4]["sd"].as_f64(), Some(0.0));
        assert!(layers[0]["sd"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn the_depth_study_trains_compares_and_goes_on() {
    let place = place();
    let sizes = "--set model.embedding.pixels=9 --set train.batch_size=20";
    let args = format!("study depth --corpus images --depths 2,4 --epochs 3 --out depth {sizes} --json");
    let found: Value = serde_json::from_str(&succeed(&place, &args)).unwrap();
    let nets = found["nets"].as_array().unwrap();
    let names: Vec<&str> = nets.iter().map(|net| net["net"].as_str().unwrap()).collect();
    assert_eq!(names, ["plain-2", "plain-4", "highway-2", "highway-4"]);
    for net in nets {
        let curve = net["curve"].as_array().unwrap();
        assert_eq!((curve.len(), curve[2][1].as_f64()), (3, net["last_train_nats"].as_f64()));
        assert_eq!(net["units"].as_u64(), Some(if net["kind"] == "plain" { 71 } else { 50 }));
    }
    let again: Value = serde_json::from_str(&succeed(&place, &args)).unwrap();
    assert_eq!(again["nets"], found["nets"]); // nothing is trained again
    place.fails(&args.replace("batch_size=20", "batch_size=30"), 2, &["batch_size was 20, is 30", "--out"]);
    place.fails(
        &args.replace("--epochs 3", "--epochs 2"),
        2,
        &["its run is one of 3 epochs, 2 are asked for"],
    );
    // A quick look is of other runs than the study: their rates were not searched.
    let quick = args.replace("--epochs 3", "--quick --depths 2");
    succeed(&place, &quick.replacen("--depths 2,4 ", "", 1));
    assert!(place.path("depth/plain-2-quick").is_dir());
    let given = format!("{args} --set train.learning_rate=0.02").replace("--out depth", "--out given");
    succeed(&place, &given);
    place.fails(&args.replace("--out depth", "--out given"), 2, &["learning_rate is 0.02, which was given"]);
    // A net that was killed before it had published anything goes on.
    for name in
        ["config.json", "manifest.json", "model.safetensors", "tokenizer.json", "recipe.toml", "result.json"]
    {
        let _ = std::fs::remove_file(place.path("depth/plain-2").join(name));
    }
    succeed(&place, &args.replace("--epochs 3", "--epochs 4"));
    assert!(place.path("depth/curves.tsv").is_file() && place.path("depth/nets.tsv").is_file());
}

#[test]
fn a_trial_that_leaves_its_course_is_a_row() {
    let place = place();
    let args = "study depth --corpus images --depths 3 --kinds plain --activation relu --epochs 2 --out lost \
                --set model.embedding.pixels=9 --set train.batch_size=20 --set train.learning_rate=1e30 --json";
    let found: Value = serde_json::from_str(&succeed(&place, args)).unwrap();
    assert_eq!(found["summaries"][0]["failed"].as_u64(), Some(1));
    assert!(found["nets"][0]["failed"].as_str().is_some() && found["nets"][0]["last_train_nats"].is_null());
}

#[test]
fn a_study_of_depth_neither_searches_nor_draws_what_is_given() {
    let place = place();
    let nets = |args: &str| -> Vec<Value> {
        let all = format!(
            "study depth --corpus images --depths 2 --json --quick --set model.embedding.pixels=9 --set train.batch_size=60 {args}"
        );
        let found: Value = serde_json::from_str(&succeed(&place, &all)).unwrap();
        found["nets"].as_array().unwrap().clone()
    };
    let number = |net: &Value, key: &str| net[key].as_f64().unwrap();
    let searched =
        "--set train.learning_rate=0.05 --set model.core.transform_bias=-3 --set model.core.hidden_size=4";
    for net in nets(&format!("{searched} --out searched")) {
        assert_eq!((number(&net, "learning_rate"), net["units"].as_u64()), (0.05, Some(4)));
        assert!(net["kind"] == "plain" || number(&net, "transform_bias") == -3.0, "{net}");
    }
    let drawn =
        "--kinds highway --trials 3 --activation relu --transform-bias -3.5 --set train.momentum=0.25";
    let trials = nets(&format!("{drawn} --out drawn"));
    assert_eq!(trials.len(), 3);
    for net in &trials {
        assert_eq!(net["activation"], "relu");
        assert_eq!((number(net, "transform_bias"), number(net, "momentum")), (-3.5, 0.25));
        assert!(number(net, "learning_rate") != number(&trials[0], "learning_rate") || net["trial"] == 1);
    }
    for net in nets("--kinds highway --trials 3 --activation both --out both") {
        assert!(net["net"].as_str().unwrap().ends_with(net["activation"].as_str().unwrap()), "{net}");
    }
    place.fails(
        "study depth --corpus images --set model.core.layers=3",
        2,
        &["model.core.layers", "--depths"],
    );
    place.fails("study bias --corpus images --set model.core.mixing=plain", 2, &["model.core.mixing"]);
    assert_eq!(nets("--kinds highway,highway --out twice").len(), 1);
    place.fails(
        "study bias --corpus images --set model.core.transform_bias=1",
        2,
        &["transform_bias", "--values"],
    );
}

#[test]
fn the_bias_study_says_how_open_gates_are() {
    let place = place();
    let args = "study bias --corpus images --depth 4 --values -1,-4 --epochs 2 --out bias --json \
                --set model.embedding.pixels=9 --set train.batch_size=20 --set train.learning_rate=0.01";
    let found: Value = serde_json::from_str(&succeed(&place, args)).unwrap();
    let gate = |row: usize| found["rows"][row]["mean_gate"].as_f64().unwrap();
    assert!((gate(0) - 0.269).abs() < 0.1 && (gate(1) - 0.018).abs() < 0.02, "{} {}", gate(0), gate(1));
}

#[test]
fn what_is_for_text_is_refused_of_images_and_the_other_way_round() {
    let place = place();
    succeed(&place, &format!("train mnist-highway {SMALL} --out run --max-steps 3"));
    for command in ["sample run", "score run corpus.txt", "eval run --mc 3", "eval run --file corpus.txt"] {
        place.fails(command, if command.starts_with("eval") { 2 } else { 4 }, &["image"]);
    }
    // Its own images, and no others, wherever it is called from.
    place.write("elsewhere/nothing.txt", "");
    assert!(place.rhn_from("elsewhere", "eval ../run").status.success());
    let pixels = place.path("images/t10k-images-idx3-ubyte");
    let own = std::fs::read(&pixels).unwrap();
    let mut others = own.clone();
    *others.last_mut().unwrap() ^= 1;
    std::fs::write(&pixels, others).unwrap();
    for command in ["eval run", "study gates run"] {
        place.fails(command, 3, &["images: has other images than the run's"]);
    }
    assert!(place.rhn("eval run --corpus images").status.success());
    std::fs::write(&pixels, own).unwrap();
    place.fails("eval run --keep", 2, &["--keep", "images"]);
    place.fails("eval run --protocol batched", 2, &["--protocol", "images"]);
    for flag in ["--dynamic", "--cache 9", "--temperature 2", "--tune"] {
        let name = flag.split(' ').next().unwrap();
        place.fails(&format!("eval run {flag}"), 2, &[name, "is for text", "images"]);
    }
    for (settings, code, parts) in [
        ("--set train.bptt_steps=5", 2, vec!["train.bptt_steps is for text"]),
        ("--set train.dropout.word=0.5", 2, vec!["train.dropout.word is for text"]),
        ("--set model.embedding.pixels=784", 2, vec!["images of 9 pixels", "model.embedding.pixels=9"]),
        ("--set corpus.name=corpus.txt", 3, vec!["corpus.txt", "idx files"]),
        ("--set corpus.name=ptb", 3, vec!["ptb", "corpus of text"]),
        ("--set train.batch_size=1000", 3, vec!["240 training images"]),
        ("--set model.core.shared_gates=both", 2, vec!["a gate that the layers lack"]),
        ("--set train.nesterov=true --set train.momentum=0.0", 2, vec!["train.nesterov needs a momentum"]),
        ("--init-from run --grow-vocab", 2, vec!["--grow-vocab is for text"]),
    ] {
        place.fails(&format!("train mnist-highway {SMALL} {settings} --out other"), code, &parts);
    }
    place.fails("train shakespeare --set corpus.name=mnist --out other", 3, &["images"]);
    let other = ["cannot begin", "[task] kind = \"language\""];
    place.fails(
        "train shakespeare --init-from run --out other",
        4,
        &[&["run", "classifies images"], &other[..]].concat(),
    );
    place.train("--out text --max-steps 1");
    let parts = ["text", "reads text", "[task] kind = \"images\""];
    place.fails(&format!("train mnist-highway {SMALL} --init-from text --out other"), 4, &parts);
    place.fails("train shakespeare --set train.init=glorot --out other", 2, &["uniform"]);
    assert!(!place.path("other").exists());
}

#[test]
fn a_known_corpus_of_images_is_taken_only_if_it_is_what_it_should_be() {
    let place = place();
    place.fails(
        "data fetch mnist --from images --data-dir kept",
        3,
        &["train-images-idx3-ubyte", "47040016"],
    );
    let mnist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/mnist");
    if !mnist.is_dir() {
        return println!("skipped: no MNIST in ../shared/data");
    }
    succeed(&place, &format!("data fetch mnist --from {} --data-dir kept", mnist.display()));
    let found: Value =
        serde_json::from_str(&succeed(&place, "data inspect mnist --data-dir kept --json")).unwrap();
    assert_eq!((found["classes"].as_u64(), found["splits"][0]["labels"][0].as_u64()), (Some(10), Some(5923)));
    place.fails("data inspect mnist --unit word --data-dir kept", 2, &["--unit"]);
}
