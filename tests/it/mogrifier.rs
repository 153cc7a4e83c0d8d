//! The Mogrifier beside the model without it, and from outside.

use crate::support::run::{PLAY, Place, assert_fails, stderr, stdout};
use candle_core::{DType, Device, Tensor};
use rhn::config::ModelConfig;
use rhn::config::train::DropoutConfig;
use rhn::model::{LanguageModel, Noise, NoiseSource, Parameters, State, specs};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const WORDS: usize = 9;

fn cells() -> [Value; 4] {
    let rhn = |gates: &str| json!({"kind": "rhn", "layers": 2, "hidden_size": 7, "recurrence_depth": 3, "shared_gates": gates});
    [rhn("none"), rhn("transform"), rhn("both"), json!({"kind": "lstm", "layers": 2, "hidden_size": 7})]
}

fn config(core: &Value, mogrifier: Option<Value>) -> ModelConfig {
    let mut core = core.clone();
    if let Some(mogrifier) = mogrifier {
        core["mogrifier"] = mogrifier;
    }
    let embedding = json!({"kind": "word", "size": 4});
    let config = json!({"model_type": "rhn", "vocab_size": WORDS, "embedding": embedding, "core": core});
    serde_json::from_value(config).unwrap()
}

fn drawn(config: &ModelConfig) -> BTreeMap<String, Tensor> {
    Parameters::draw(config, BTreeMap::new(), 5, 0.6, DType::F64, &Device::Cpu).unwrap().tensors()
}

fn model(config: &ModelConfig, weights: &BTreeMap<String, Tensor>) -> (LanguageModel, Parameters) {
    let parameters = Parameters::load(config, weights, DType::F64, &Device::Cpu).unwrap();
    (LanguageModel::new(config, &parameters, DType::F64, &Device::Cpu).unwrap(), parameters)
}

fn tokens() -> Tensor {
    let ids: Vec<u32> = (0..15).map(|i| (i * i + i) % WORDS as u32).collect();
    Tensor::from_vec(ids, (5, 3), &Device::Cpu).unwrap()
}

fn filled(model: &LanguageModel) -> State {
    let mut state = model.zero_state(3).unwrap();
    state.0.iter_mut().flatten().for_each(|part| *part = (part.ones_like().unwrap() * 0.3).unwrap());
    state
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_near(found: &Tensor, wanted: &Tensor) {
    for (found, wanted) in values(found).iter().zip(values(wanted)) {
        assert!((found - wanted).abs() < 1e-11 * (1.0 + wanted.abs()), "{found} for {wanted}");
    }
}

/// 2 sigmoid(0) = 1: gates whose matrices are zero let everything through, so that the layer in tensor operations must be
/// the layer with kernels, gradients included.
#[test]
fn with_gates_of_zero_it_is_the_cell_alone() {
    let masks = json!({"word": 0.2, "input": 0.3, "hidden": 0.3, "output": 0.3, "recurrent_weights": 0.3});
    let mut separate = masks.clone();
    separate["separate_gate_masks"] = json!(true);
    for core in cells() {
        for (mogrifier, dropout) in
            [(json!({"rounds": 5}), masks.clone()), (json!({"rounds": 4, "rank": 2}), separate.clone())]
        {
            let plain = config(&core, None);
            let gated = config(&core, Some(mogrifier));
            let mut weights = drawn(&plain);
            for (name, tensor) in drawn(&gated) {
                weights.entry(name).or_insert(tensor.zeros_like().unwrap());
            }
            let dropout: DropoutConfig = serde_json::from_value(dropout).unwrap();
            let run = |config: &ModelConfig| {
                let (model, parameters) = model(config, &weights);
                let source = NoiseSource::new(config, &dropout, 4, DType::F64, &Device::Cpu);
                let noise = source.draw(&tokens(), 0, 0).unwrap();
                let (nats, after) = model.nats(&tokens(), &tokens(), &filled(&model), &noise).unwrap();
                let gradients = parameters.gradients(&nats.sum_all().unwrap()).unwrap();
                let named = parameters.trained().map(|(name, _)| name.to_string()).zip(gradients);
                (nats, after, named.collect::<BTreeMap<_, _>>())
            };
            let (nats, after, gradients) = run(&gated);
            let (wanted, wanted_after, wanted_gradients) = run(&plain);
            assert_near(&nats, &wanted);
            for (found, wanted) in after.0.iter().flatten().zip(wanted_after.0.iter().flatten()) {
                assert_near(found, wanted);
            }
            wanted_gradients.iter().for_each(|(name, wanted)| assert_near(&gradients[name], wanted));
        }
    }
}

/// Where the carry is 1 − t, a state is a mean of candidates, whatever the gates make of what the products see.
#[test]
fn the_state_of_an_rhn_stays_bounded_however_wide_the_gates_are_open() {
    for core in &cells()[..2] {
        let config = config(core, Some(json!({"rounds": 4})));
        let weights: BTreeMap<_, _> = drawn(&config)
            .into_iter()
            .map(|(name, tensor)| {
                let is_open = name.contains("mogrifier") && name.ends_with(".bias");
                (name, if is_open { tensor.affine(0.0, 9.0).unwrap() } else { tensor })
            })
            .collect();
        let (model, _) = model(&config, &weights);
        let mut state = filled(&model);
        for _ in 0..200 {
            let (nats, after) = model.nats(&tokens(), &tokens(), &state, &Noise::none()).unwrap();
            assert!(values(&nats).iter().all(|nats| nats.is_finite()));
            state = after.detach();
            assert!(state.0.iter().flatten().flat_map(values).all(|unit| unit.abs() <= 1.0), "{core}");
        }
    }
}

#[test]
fn biases_begin_at_zero_and_matrices_do_not() {
    let config = config(&cells()[3], Some(json!({"rounds": 3, "rank": 2})));
    let weights = drawn(&config);
    let gates: BTreeMap<_, _> = weights.iter().filter(|(name, _)| name.contains("mogrifier")).collect();
    assert_eq!(gates.len(), 2 * 3 * 3); // layers, gates, tensors
    for (name, tensor) in gates {
        assert_eq!(values(tensor).iter().all(|&value| value == 0.0), name.ends_with(".bias"), "{name}");
    }
    let shapes = specs(&config).unwrap();
    let shape = |name: &str| shapes[&format!("core.0.mogrifier.{name}")].shape.clone();
    assert_eq!(
        [shape("0.down.weight"), shape("0.up.weight"), shape("0.bias")],
        [vec![7, 2], vec![2, 4], vec![4]]
    );
    assert_eq!(
        [shape("1.down.weight"), shape("1.up.weight"), shape("1.bias")],
        [vec![4, 2], vec![2, 7], vec![7]]
    );
}

#[test]
fn frozen_and_traced_it_is_the_trained_model_to_the_bit() {
    for core in cells() {
        let config = config(&core, Some(json!({"rounds": 5, "rank": 3})));
        let (model, _) = model(&config, &drawn(&config));
        let state = filled(&model);
        let (logits, after) = model.logits(&tokens(), &state, &Noise::none()).unwrap();
        let (frozen, frozen_after) =
            model.freeze().unwrap().logits(&tokens(), &state, &Noise::none()).unwrap();
        assert_near(&frozen, &logits); // the output's product is packed
        let parts = |state: &State| state.0.iter().flatten().map(values).collect::<Vec<_>>();
        assert_eq!(parts(&frozen_after), parts(&after));
        let traced = model.trace_steps(&tokens(), &state).unwrap();
        assert_eq!(traced.is_some(), core["kind"] == "rhn");
        if let Some((stages, traced_after)) = traced {
            assert_eq!(parts(&traced_after), parts(&after));
            assert_eq!((stages.len(), stages[0].layers.len()), (2, 3));
            assert_eq!(stages[0].layers[0].carry.is_some(), core["shared_gates"] == "both");
        }
    }
}

const MOGRIFIED: &str = "--set model.core.mogrifier={rounds=3,rank=2} --set train.epochs=2";

#[test]
fn every_command_works_with_it_or_refuses_by_name() {
    let place = Place::new();
    place.train(&format!("--out run {MOGRIFIED}"));
    place.write("play.txt", PLAY);
    for args in [
        "eval run --mc 2",
        "eval run --dynamic --dynamic-update gates --cache 20",
        "sample run --tokens 20",
        "score run play.txt",
        "inspect run",
        "study estimate run",
        "study lesion run",
        "study gates run",
    ] {
        let output = place.rhn(args);
        assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
    }
    let described = stdout(&place.rhn("inspect run"));
    assert!(described.contains("input and state gate each other in 3 rounds of rank 2"), "{described}");
    let output = place.rhn("compress run play.txt --out play.rhn");
    assert_fails(&output, 4, &["has a core of plain tensor operations", "without a mogrifier"]);
}

#[test]
fn settings_that_no_layer_has_are_refused() {
    let place = Place::new();
    for (settings, part) in [
        ("mogrifier={rounds=0}", "mogrifier.rounds is 0, wanted 1 to 64"),
        ("mogrifier={rank=9}", "mogrifier.rank is 9, wanted 1 to the hidden size 8"),
        ("mogrifier={rank=0}", "mogrifier.rank is 0"),
        ("mogrifier={round=2}", "Did you mean rounds?"),
    ] {
        place.fails(&format!("train tiny.toml --out other --set model.core.{settings}"), 2, &[part]);
    }
}
