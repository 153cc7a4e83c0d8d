//! Dropout of recurrent weights: every kind of cell has it in training and none in an evaluation, and the weights
//! themselves stay as they are.

use crate::support::run::Place;
use candle_core::{DType, Device, Tensor};
use rhn::config::ModelConfig;
use rhn::config::train::DropoutConfig;
use rhn::model::{LanguageModel, Noise, NoiseSource, Parameters, specs};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const WORDS: usize = 9;

/// Every cell, and the weights that its state is multiplied by.
fn cells() -> Vec<(Value, &'static [&'static str])> {
    let cell = |kind: &str, settings: Value| {
        let mut core = json!({"kind": kind, "layers": 2, "hidden_size": 6});
        core.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        core
    };
    let rhn = |gates: &str| cell("rhn", json!({"recurrence_depth": 3, "shared_gates": gates}));
    let hlstm = |settings| cell("hlstm", settings);
    vec![
        (rhn("none"), &["recurrent.weight"]),
        (rhn("transform"), &["recurrent.weight", "shared.weight"]),
        (rhn("both"), &["recurrent.weight", "shared.weight"]),
        (cell("lstm", json!({})), &["recurrent.weight"]),
        (cell("gru", json!({})), &["recurrent.weight"]),
        (hlstm(json!({})), &["recurrent.weight"]),
        (hlstm(json!({"projection": 4})), &["recurrent.weight"]),
        (hlstm(json!({"coupled": true, "peephole": "none"})), &["recurrent.weight"]),
        (hlstm(json!({"variant": "depth-gated"})), &["recurrent.weight", "peephole"]),
        (hlstm(json!({"variant": "kurata"})), &["recurrent.weight", "highway.weight"]),
    ]
}

fn config(core: &Value) -> ModelConfig {
    let config =
        json!({"model_type": "rhn", "vocab_size": WORDS, "embedding": {"kind": "word"}, "core": core});
    serde_json::from_value(config).unwrap()
}

fn tokens() -> Tensor {
    let ids: Vec<u32> = (0..15).map(|i| (i * i + i) % WORDS as u32).collect();
    Tensor::from_vec(ids, (5, 3), &Device::Cpu).unwrap()
}

fn source(config: &ModelConfig, dropout: Value) -> NoiseSource {
    let dropout: DropoutConfig = serde_json::from_value(dropout).unwrap();
    NoiseSource::new(config, &dropout, 3, DType::F64, &Device::Cpu)
}

fn drawn(config: &ModelConfig, step: u64) -> Noise {
    source(config, json!({"recurrent_weights": 0.5})).draw(&tokens(), step, step).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_masks_are_those_of_the_weights_that_the_state_is_multiplied_by() {
    for (core, names) in cells() {
        let config = config(&core);
        let specs = specs(&config).unwrap();
        let noise = drawn(&config, 0);
        let mut all = BTreeSet::new();
        assert_eq!(noise.weights.len(), 2);
        for (layer, masks) in noise.weights.iter().enumerate() {
            assert_eq!(
                masks.0.keys().map(String::as_str).collect::<BTreeSet<_>>(),
                BTreeSet::from_iter(names.iter().copied())
            );
            for (name, mask) in &masks.0 {
                assert_eq!(mask.dims(), specs[&format!("core.{layer}.{name}")].shape, "{core} {name}");
                let values = values(mask);
                assert!(values.iter().all(|&value| value == 0.0 || value == 2.0));
                assert!(values.contains(&0.0) && values.contains(&2.0));
                all.insert(format!("{values:?}"));
            }
        }
        assert_eq!(all.len(), 2 * names.len(), "a mask for each: {core}");
        let none = source(&config, json!({})).draw(&tokens(), 0, 0).unwrap();
        assert!(none.weights.iter().all(|masks| masks.0.is_empty()));
    }
}

/// In other programs a fused kernel read the weights that were not masked: nothing was dropped, without a word.
#[test]
fn two_training_passes_over_a_batch_differ_and_two_evaluations_do_not() {
    for (core, names) in cells() {
        let config = config(&core);
        let (dtype, device) = (DType::F64, Device::Cpu);
        let parameters = Parameters::draw(&config, BTreeMap::new(), 5, 0.6, dtype, &device).unwrap();
        let before: Vec<_> = parameters.trained().map(|(_, var)| values(var)).collect();
        let model = LanguageModel::new(&config, &parameters, dtype, &device).unwrap();
        let state = model.zero_state(3).unwrap();
        let training = |step: u64| {
            let (nats, _) = model.nats(&tokens(), &tokens(), &state, &drawn(&config, step)).unwrap();
            (values(&nats), parameters.gradients(&nats.sum_all().unwrap()).unwrap())
        };
        let (first, gradients) = training(0);
        assert_ne!(first, training(1).0, "{core}");
        assert_eq!(first, training(0).0, "{core}");
        let frozen = model.freeze().unwrap();
        let evaluation = || values(&frozen.nats(&tokens(), &tokens(), &state, &Noise::none()).unwrap().0);
        let plain = values(&model.nats(&tokens(), &tokens(), &state, &Noise::none()).unwrap().0);
        assert_eq!(evaluation(), evaluation());
        assert!(plain.iter().zip(evaluation()).all(|(a, b)| (a - b).abs() < 1e-12), "{core}");
        assert_ne!(first, plain, "{core}");

        let noise = drawn(&config, 0);
        for ((name, _), gradient) in parameters.trained().zip(&gradients) {
            let Some((layer, short)) = name.strip_prefix("core.").and_then(|rest| rest.split_once('.'))
            else {
                continue;
            };
            if !names.contains(&short) {
                continue;
            }
            let mask = values(&noise.weights[layer.parse::<usize>().unwrap()].0[short]);
            let gradient = values(gradient);
            let dropped = gradient.iter().zip(&mask).filter(|(_, mask)| **mask == 0.0);
            assert!(
                dropped.clone().all(|(gradient, _)| *gradient == 0.0),
                "{core} {name}: what is dropped does not learn"
            );
            assert!(gradient.iter().any(|&gradient| gradient != 0.0), "{core} {name}");
        }
        let after: Vec<_> = parameters.trained().map(|(_, var)| values(var)).collect();
        assert_eq!(before, after, "the weights themselves: {core}");
    }
}

#[test]
fn monte_carlo_dropout_leaves_the_weights_whole() {
    let place = Place::new();
    place.train("--out run --max-steps 3 --set train.dropout={recurrent_weights=0.5}");
    let nats = |args: &str| {
        let output = place.rhn(&format!("eval run --json {args}"));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        found["nats_per_token"].as_f64().unwrap()
    };
    assert!((nats("--mc 2") - nats("")).abs() < 1e-6); // nothing else is dropped
}

#[test]
fn rates_and_cores_that_cannot_be_are_refused() {
    let place = Place::new();
    place.fails(
        "train tiny.toml --out other --set train.dropout.recurrent_weights=1.0",
        2,
        &["train.dropout.recurrent_weights is 1, wanted a dropout rate of 0 ≤ rate < 1"],
    );
    place.fails(
        "train mnist-highway --out other --set train.dropout.recurrent_weights=0.5",
        2,
        &["train.dropout.recurrent_weights is for the weights between time steps", "none in"],
    );
}
