//! Exports of small models of every kind: files, weights, refusals, and what an ONNX graph computes. The programs that
//! load them are asked in `tests/ecosystem`.

mod onnx_reader;

use candle_core::{DType, Device, Tensor};
use onnx_reader::{Onnx, Values};
use rhn::checkpoint::{Checkpoint, publish};
use rhn::config::ModelConfig;
use rhn::config::Resolved;
use rhn::data::{Text, Tokenizer};
use rhn::export::{Target, export};
use rhn::model::{Noise, Parameters};
use rhn::storage::{CONFIG, MODEL, RECIPE, TOKENIZER, load_tensors, save_tensors};
use rhn_kernels::precision::Precision;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const PLAY: &str = "To be , or not to be :\nthat is the question\n";

/// Every core with the embeddings, outputs and units among them.
const MODELS: [(&str, &[&str]); 20] = [
    ("char", &["model.core.layers=2"]),
    ("word", &["model.output.tied=true"]),
    ("word", &["model.output.by_word=true"]),
    ("byte", &["model.core.shared_gates=\"transform\"", "corpus.unknown=true"]),
    ("bpe", &["model.core.shared_gates=\"both\"", "model.core.layers=2", "corpus.vocab_size=260"]),
    ("char", &["model.core={kind=\"lstm\",layers=2,hidden_size=5}", "corpus.unknown=true"]),
    ("word", &["model.core={kind=\"gru\",hidden_size=5}", "model.output.tied=true"]),
    ("char", &["model.core.layers=2", "model.core.mogrifier={rounds=4}"]),
    ("word", &["model.core={kind=\"lstm\",layers=2,hidden_size=5,mogrifier={rounds=12,rank=2}}"]),
    ("char", &["model.output={kind=\"mixture\",components=3}"]),
    ("word", &["model.core.mogrifier={rounds=1}", "model.output={kind=\"mixture\",components=2,tied=true}"]),
    ("char", &["model.core={kind=\"hlstm\",layers=3,hidden_size=5}"]),
    ("char", &["model.core={kind=\"hlstm\",layers=2,hidden_size=5,projection=3}"]),
    ("char", &["model.core={kind=\"hlstm\",layers=2,hidden_size=5,coupled=true,peephole=\"none\"}"]),
    ("char", &["model.core={kind=\"hlstm\",layers=2,hidden_size=5,variant=\"depth-gated\"}"]),
    ("char", &["model.core={kind=\"hlstm\",layers=2,hidden_size=5,variant=\"depth-gated\",stabiliser=true}"]),
    ("char", &["model.core={kind=\"hlstm\",hidden_size=5,variant=\"kurata\"}", "model.output.tied=true"]),
    (
        "word",
        &[
            "model.embedding={kind=\"char-cnn\",char_size=3,filter_widths=[1,2],filter_counts=[3,4],highway_layers=2}",
        ],
    ),
    (
        "word",
        &[
            "model.embedding={kind=\"char-cnn\",char_size=3,filter_widths=[1,2],filter_counts=[3,4],highway_layers=1,highway=\"residual-linear\",word_size=6}",
        ],
    ),
    (
        "word",
        &["model.embedding={kind=\"char-lstm\",char_size=3,char_hidden=4,word_size=5,highway_layers=1}"],
    ),
];

/// A checkpoint with drawn weights in a directory of its own.
struct Model {
    directory: TempDir,
}

impl Model {
    fn new(unit: &str, settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = ["corpus.name=corpus.txt".to_string(), format!("corpus.unit={unit}")];
        let small = ["model.core.hidden_size=6", "model.core.recurrence_depth=2", "train.batch_size=2"];
        let usual = if settings.iter().any(|setting| setting.starts_with("model.core={")) {
            &small[2..]
        } else {
            &small
        };
        let settings = own.into_iter().chain(usual.iter().chain(settings).map(|setting| setting.to_string()));
        let recipe = Resolved::new("shakespeare", &settings.collect::<Vec<_>>()).unwrap().recipe;
        let tokenizer = Tokenizer::build(&recipe.corpus, &Text::from(PLAY)).unwrap();
        let (config, fixed) = ModelConfig::for_words(recipe.model.clone(), tokenizer.words()).unwrap();
        let parameters = Parameters::draw(&config, fixed, 1, 0.5, DType::F32, &Device::Cpu).unwrap();
        let mut weights = parameters.tensors();
        for (name, weight) in &mut weights {
            if name.ends_with(".stabiliser") {
                *weight = (weight.ones_like().unwrap() * 0.4).unwrap(); // it begins at 0, where it does nothing
            }
        }
        let files = [
            (CONFIG, serde_json::to_vec(&config).unwrap()),
            (MODEL, save_tensors(&weights).unwrap()),
            (TOKENIZER, tokenizer.to_json().into_bytes()),
            (RECIPE, recipe.to_toml().into_bytes()),
        ];
        publish(&directory.path().join("run"), &files).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint::open(&self.path("run")).unwrap()
    }

    fn export(&self, target: Target) -> PathBuf {
        let out = self.path(&format!("{target:?}"));
        let names = export(&self.checkpoint(), target, &out).unwrap();
        let mut found: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        found.sort();
        let mut names = names;
        names.sort_unstable();
        assert_eq!(found, names);
        out
    }

    /// Everything beside the run.
    fn beside(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "run").collect()
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    load_tensors(path, &fs::read(path).unwrap(), &Device::Cpu).unwrap()
}

/// A run's weights as an export has them: an output's table as a matrix, stabilisers in the matrices that multiply the input.
fn as_exported(mut weights: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    if let Some(table) = weights.remove("output.table") {
        weights.insert("output.weight".into(), table.t().unwrap().contiguous().unwrap());
    }
    for k in 0..3 {
        let Some(log_scale) = weights.remove(&format!("core.{k}.stabiliser")) else { continue };
        for part in ["input", "depth", "depth.carry"] {
            if let Some(weight) = weights.get_mut(&format!("core.{k}.{part}.weight")) {
                *weight = weight.broadcast_mul(&log_scale.exp().unwrap()).unwrap();
            }
        }
    }
    weights
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_near(found: &Tensor, wanted: &Tensor, what: &str) {
    assert_eq!(found.dims(), wanted.dims(), "{what}");
    let far = numbers(found).iter().zip(numbers(wanted)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-5, "{what}: {far} apart");
}

#[test]
fn every_model_has_its_weights_and_a_configuration_that_fits_them() {
    for (unit, settings) in MODELS {
        let model = Model::new(unit, settings);
        let trained = as_exported(tensors(&model.path("run/model.safetensors")));
        let out = model.export(Target::Transformers);
        let config = json(&out.join("config.json"));
        let exported = tensors(&out.join("model.safetensors"));
        let vocab_size = config["vocab_size"].as_u64().unwrap() as usize;
        let known = config["trained_vocab_size"].as_u64().unwrap() as usize;
        assert!(vocab_size > known);
        for (k, shapes) in config["layer_shapes"].as_array().unwrap().iter().enumerate() {
            for (name, shape) in shapes.as_object().unwrap() {
                let name = format!("core.{k}.{name}");
                let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
                assert_eq!(exported[&name].dims(), shape, "{name}");
                assert_eq!(numbers(&exported[&name]), numbers(&trained[&name]), "{name}");
            }
        }
        let tied = trained.contains_key("output.weight");
        assert_eq!(exported.contains_key("lm_head.weight"), tied);
        assert_eq!(config["tie_word_embeddings"], !tied);
        if let Some(output) = trained.get("output.weight") {
            let rows = exported["lm_head.weight"].narrow(0, 0, known).unwrap();
            assert_eq!(numbers(&rows), numbers(&output.t().unwrap().contiguous().unwrap()));
        }
        let table = model.checkpoint().model(Precision::F32, &Device::Cpu).unwrap().table().clone();
        let vectors = &exported["embedding.weight"];
        assert_eq!(numbers(&vectors.narrow(0, 0, known).unwrap()), numbers(&table));
        assert_eq!(vectors.dims(), [vocab_size, config["embedding_size"].as_u64().unwrap() as usize]);
        let bias = numbers(&exported["lm_head.bias"]);
        assert!(
            bias[..known].iter().all(|bias| bias.abs() < 10.0)
                && bias[known..].iter().all(|&bias| bias == -1e4)
        );
        let core = trained.keys().filter(|name| name.starts_with("core.")).count();
        let others = exported.keys().filter(|name| !name.starts_with("core.")).count();
        let mixture = trained.contains_key("output.mixture.weight");
        if mixture {
            for part in ["components", "mixture"] {
                let weight = &exported[&format!("{part}.weight")];
                let wanted = trained[&format!("output.{part}.weight")].t().unwrap().contiguous().unwrap();
                assert_eq!(numbers(weight), numbers(&wanted));
            }
            assert_eq!(config["components"].as_u64().unwrap() as usize, exported["mixture.weight"].dims()[0]);
        }
        let wanted = if tied { 3 } else { 2 } + if mixture { 3 } else { 0 };
        assert_eq!((exported.len(), others), (core + others, wanted), "and nothing else");
    }
}

#[test]
fn the_library_finds_its_classes_and_special_tokens() {
    let model = Model::new("char", &[]); // a closed vocabulary of 17 characters, the line feed first
    let out = model.export(Target::Transformers);
    let config = json(&out.join("config.json"));
    for (key, wanted) in [
        ("model_type", "rhn".into()),
        ("architectures", serde_json::json!(["RhnForCausalLM"])),
        ("dtype", "float32".into()),
        ("num_hidden_layers", 1.into()),
        ("hidden_size", 6.into()),
        ("vocab_size", 20.into()),
        ("bos_token_id", 18.into()),
        ("eos_token_id", 18.into()),
        ("pad_token_id", 19.into()),
        ("ignored_token_ids", serde_json::json!([17, 19])),
    ] {
        assert_eq!(config[key], wanted, "{key}");
    }
    assert_eq!(config["auto_map"]["AutoModelForCausalLM"], "modeling_rhn.RhnForCausalLM");
    let generation = json(&out.join("generation_config.json"));
    assert_eq!(generation["suppress_tokens"], serde_json::json!([17, 19]));
    let tokens = json(&out.join("tokenizer_config.json"));
    assert_eq!(tokens["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!(tokens["clean_up_tokenization_spaces"], false);
    let names = ["unk_token", "bos_token", "eos_token", "pad_token"].map(|key| tokens[key].as_str().unwrap());
    assert_eq!(names, ["<|unk|>", "<eos>", "<eos>", "<pad>"]);
    let vectors = tensors(&out.join("model.safetensors"))["embedding.weight"].to_vec2::<f32>().unwrap();
    assert_eq!(vectors[18], vectors[0], "a text begins after a line end");
    assert!(vectors[17].iter().chain(&vectors[19]).all(|&value| value == 0.0));
    let readme = fs::read_to_string(out.join("README.md")).unwrap();
    for part in ["trust_remote_code=True", "corpus.txt", r"| `<\|unk\|>` | 17 |", "| `<eos>` | 18 |"] {
        assert!(readme.contains(part), "{part} is not in {readme}");
    }
}

#[test]
fn exported_twice_the_bytes_are_the_same() {
    let model = Model::new("word", &["model.output.tied=true"]);
    for target in [Target::Transformers, Target::Onnx] {
        let out = model.export(target);
        let again = model.path("again");
        for name in export(&model.checkpoint(), target, &again).unwrap() {
            assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(again.join(name)).unwrap(), "{name}");
        }
        fs::remove_dir_all(again).unwrap();
    }
}

/// Logits of the model, `(batch, time, vocabulary)`, of tokens `(batch, time)`.
fn logits(model: &Model, tokens: &[[u32; 5]; 2]) -> Tensor {
    let model = model.checkpoint().model(Precision::F32, &Device::Cpu).unwrap();
    let tokens = Tensor::new(tokens, &Device::Cpu).unwrap().t().unwrap().contiguous().unwrap();
    let (logits, _) = model.logits(&tokens, &model.zero_state(2).unwrap(), &Noise::none()).unwrap();
    logits.transpose(0, 1).unwrap().contiguous().unwrap()
}

fn tokens(values: &[[u32; 5]; 2]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap().to_dtype(DType::I64).unwrap()
}

/// The zero state of a graph for two batch rows, with the units of each part from the checkpoint's own zero state.
fn zero_state(model: &Model, graph: &Onnx) -> Values {
    let frozen = model.checkpoint().model(Precision::F32, &Device::Cpu).unwrap();
    let state = frozen.zero_state(2).unwrap().save();
    let inputs: Vec<String> = graph.inputs().into_iter().filter(|name| name != "tokens").collect();
    assert_eq!(inputs, state.keys().cloned().collect::<Vec<_>>(), "a layer's parts by name");
    state.into_iter().collect()
}

#[test]
fn the_graphs_of_every_model_compute_its_logits() {
    let ids = [[3, 1, 4, 1, 5], [2, 6, 5, 3, 0]];
    for (unit, settings) in MODELS {
        let model = Model::new(unit, settings);
        let out = model.export(Target::Onnx);
        let what = format!("{unit} {settings:?}");
        let wanted = logits(&model, &ids);
        let file = fs::read(out.join("sequence.onnx")).unwrap();
        let sequence = Onnx::parse(&file);
        let mut inputs = zero_state(&model, &sequence);
        inputs.insert("tokens".into(), tokens(&ids));
        let found = sequence.run(&inputs);
        assert_eq!(found[0].0, "logits");
        assert_near(&found[0].1, &wanted, &what);

        let file = fs::read(out.join("step.onnx")).unwrap();
        let step = Onnx::parse(&file);
        let mut state = zero_state(&model, &step);
        for time in 0..5 {
            let column = tokens(&ids).narrow(1, time, 1).unwrap().flatten_all().unwrap();
            state.insert("tokens".into(), column);
            let found = step.run(&state);
            let wanted = wanted.narrow(1, time, 1).unwrap().squeeze(1).unwrap();
            assert_near(&found[0].1, &wanted, &format!("{what}, step {time}"));
            let named = |(name, value): (String, Tensor)| (name.replace("next", "state"), value);
            state.extend(found.into_iter().skip(1).map(named));
        }
        for (name, left) in found.into_iter().skip(1) {
            assert_near(&left, &state[&name.replace("next", "state")], &format!("{what}, {name}"));
        }
    }
}

#[test]
fn a_directory_with_something_in_it_is_refused_and_an_empty_one_is_filled() {
    let model = Model::new("char", &[]);
    let out = model.path("out");
    fs::create_dir(&out).unwrap();
    export(&model.checkpoint(), Target::Onnx, &out).unwrap();
    let message = export(&model.checkpoint(), Target::Transformers, &out).unwrap_err();
    assert_eq!(message.exit_code(), 2);
    assert!(message.to_string().contains("is not empty"), "{message}");
    assert!(!out.join("config.json").exists());
    fs::write(model.path("file"), "").unwrap();
    let message = export(&model.checkpoint(), Target::Onnx, &model.path("file")).unwrap_err();
    assert!(message.to_string().contains("is no directory"), "{message}");
    let mut beside = model.beside();
    beside.sort();
    assert_eq!(beside, ["file", "out"], "and nothing is left aside");
}

#[test]
fn a_failure_leaves_nothing() {
    let model = Model::new("char", &[]);
    fs::write(model.path("file"), "").unwrap();
    export(&model.checkpoint(), Target::Onnx, &model.path("file/out")).unwrap_err();
    assert_eq!(model.beside(), ["file"]);
}

#[test]
fn a_part_that_is_not_exported_is_refused_by_name_before_anything_is_written() {
    let model = Model::new("char", &[]);
    let pixels = r#"{"model_type":"rhn","vocab_size":10,"embedding":{"kind":"pixels","pixels":9},
        "core":{"kind":"feed-forward","layers":1,"hidden_size":6},"output":{"tied":false}}"#;
    let run = model.path("run");
    let own = |name: &str| fs::read(run.join(name)).unwrap();
    let files = [
        (CONFIG, pixels.as_bytes().to_vec()),
        (MODEL, own(MODEL)),
        (TOKENIZER, own(TOKENIZER)),
        (RECIPE, own(RECIPE)),
    ];
    publish(&model.path("images"), &files).unwrap();
    let checkpoint = Checkpoint::open(&model.path("images")).unwrap();
    for target in [Target::Transformers, Target::Onnx] {
        let message = export(&checkpoint, target, &model.path("out")).unwrap_err();
        assert_eq!(message.exit_code(), 4);
        let message = message.to_string();
        assert!(message.contains("config.json") && message.contains("embedding.kind = pixels"), "{message}");
    }
    assert_eq!(model.beside(), ["images"]);
}
