//! The highway LSTM beside the models that it must equal: the LSTM, its own form in plain operations, one token at a time.

use candle_core::{DType, Device, Tensor};
use rhn::config::ModelConfig;
use rhn::config::train::DropoutConfig;
use rhn::model::{LanguageModel, NoiseSource, Parameters, State};
use rhn::sample::{SampleSettings, Sampler};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const WORDS: usize = 9;
const HIDDEN: usize = 7;

fn model(core: Value) -> ModelConfig {
    let config =
        json!({"model_type": "rhn", "vocab_size": WORDS, "embedding": {"kind": "word"}, "core": core});
    serde_json::from_value(config).unwrap()
}

fn hlstm(layers: usize, settings: Value) -> Value {
    let mut core = json!({"kind": "hlstm", "layers": layers, "hidden_size": HIDDEN});
    core.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    core
}

fn drawn(config: &ModelConfig) -> BTreeMap<String, Tensor> {
    let parameters = Parameters::draw(config, BTreeMap::new(), 5, 0.6, DType::F64, &Device::Cpu).unwrap();
    parameters.tensors()
}

fn tokens() -> Tensor {
    let ids: Vec<u32> = (0..15).map(|i| (i * i + i) % WORDS as u32).collect();
    Tensor::from_vec(ids, (5, 3), &Device::Cpu).unwrap()
}

/// Logits of the model with these weights, from a state of 0.3 everywhere, and the gradient of their sum of squares.
fn run(
    config: &ModelConfig,
    weights: &BTreeMap<String, Tensor>,
    dropout: &Value,
) -> (Tensor, BTreeMap<String, Tensor>) {
    let (dtype, device) = (DType::F64, Device::Cpu);
    let parameters = Parameters::load(config, weights, dtype, &device).unwrap();
    let model = LanguageModel::new(config, &parameters, dtype, &device).unwrap();
    let dropout: DropoutConfig = serde_json::from_value(dropout.clone()).unwrap();
    let noise = NoiseSource::new(config, &dropout, 4, dtype, &device).draw(&tokens(), 0, 0).unwrap();
    let (logits, _) = model.logits(&tokens(), &filled(&model), &noise).unwrap();
    let grads = logits.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let named = |(name, var): (&str, &candle_core::Var)| (name.to_string(), grads.get(var).unwrap().clone());
    (logits.detach(), parameters.trained().map(named).collect())
}

fn filled(model: &LanguageModel) -> State {
    let mut state = model.zero_state(3).unwrap();
    state.0.iter_mut().flatten().for_each(|part| *part = (part.ones_like().unwrap() * 0.3).unwrap());
    state
}

#[track_caller]
fn assert_near(found: &Tensor, wanted: &Tensor) {
    let difference = (found - wanted).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    let difference = difference.to_scalar::<f64>().unwrap();
    assert!(difference < 1e-12, "off by {difference:e}");
}

fn set(weights: &mut BTreeMap<String, Tensor>, ending: &str, value: f64) {
    let matching = weights.iter_mut().filter(|(name, _)| name.ends_with(ending));
    matching.for_each(|(_, weight)| *weight = (weight.ones_like().unwrap() * value).unwrap());
}

#[test]
fn shut_depth_gates_leave_layers_that_do_not_see_each_others_cells() {
    // What a shut gate sees is of no account, and gets no gradient; the scan has the comparison with no gate at all.
    let mut weights = drawn(&model(hlstm(3, json!({}))));
    set(&mut weights, "depth.bias", -1000.0);
    let (shut, grads) = run(&model(hlstm(3, json!({}))), &weights, &json!({}));
    for name in ["core.1.depth.weight", "core.2.depth.peephole", "core.2.depth.bias"] {
        assert_eq!(grads[name].abs().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap(), 0.0, "{name}");
    }
    // Nothing of what the gates see matters any more.
    set(&mut weights, "depth.weight", 0.1);
    set(&mut weights, "depth.peephole", 0.2);
    assert_near(&run(&model(hlstm(3, json!({}))), &weights, &json!({})).0, &shut);
}

#[test]
fn without_peepholes_and_with_shut_gates_it_is_the_lstm() {
    let masks = json!({"word": 0.2, "input": 0.3, "hidden": 0.3, "output": 0.3});
    for dropout in [json!({}), masks] {
        let lstm = model(json!({"kind": "lstm", "layers": 2, "hidden_size": HIDDEN}));
        let mut weights = drawn(&model(hlstm(2, json!({}))));
        set(&mut weights, ".peephole", 0.0);
        set(&mut weights, "depth.bias", -1000.0);
        let (found, grads) = run(&model(hlstm(2, json!({}))), &weights, &dropout);
        for layer in 0..2 {
            let bias = weights[&format!("core.{layer}.bias")].clone();
            weights.insert(format!("core.{layer}.recurrent.bias"), bias.zeros_like().unwrap());
            weights.insert(format!("core.{layer}.input.bias"), bias);
        }
        let (wanted, wanted_grads) = run(&lstm, &weights, &dropout);
        assert_near(&found, &wanted);
        for name in ["core.0.input.weight", "core.1.recurrent.weight", "embedding.weight"] {
            assert_near(&grads[name], &wanted_grads[name]);
        }
    }
}

#[test]
fn the_scan_equals_the_plain_operations() {
    // A projection by the identity matrix is none, and is computed by the plain operations.
    let masks = json!({"input": 0.3, "hidden": 0.3, "depth": 0.4});
    let per_step = json!({"kind": "per-step", "between": 0.5, "depth": 0.4});
    let settings = [
        json!({}),
        json!({"first_layer_carry": true}),
        json!({"peephole": "none"}),
        json!({"stabiliser": true, "first_layer_carry": true}),
    ];
    for settings in settings {
        for dropout in [&masks, &per_step] {
            let scanned = model(hlstm(3, settings.clone()));
            let mut plain = settings.clone();
            plain["projection"] = json!(HIDDEN);
            let plain = model(hlstm(3, plain));
            let mut weights = drawn(&scanned);
            let (found, grads) = run(&scanned, &weights, dropout);
            for layer in 0..3 {
                let identity = Tensor::eye(HIDDEN, DType::F64, &Device::Cpu).unwrap();
                weights.insert(format!("core.{layer}.projection.weight"), identity);
            }
            let (wanted, wanted_grads) = run(&plain, &weights, dropout);
            assert_near(&found, &wanted);
            grads.iter().for_each(|(name, grad)| assert_near(grad, &wanted_grads[name]));
        }
    }
}

#[test]
fn one_token_at_a_time_gives_the_probabilities_of_a_window() {
    let settings = [
        json!({}),
        json!({"first_layer_carry": true, "peephole": "none"}),
        json!({"variant": "depth-gated"}),
        json!({"variant": "kurata"}),
        json!({"projection": 4}),
        json!({"stabiliser": true, "first_layer_carry": true}),
        json!({"stabiliser": true, "variant": "depth-gated"}),
    ];
    for settings in settings {
        let config = model(hlstm(3, settings));
        let (dtype, device) = (DType::F32, Device::Cpu);
        let mut weights = drawn(&config);
        set(&mut weights, ".stabiliser", 0.4);
        let parameters = Parameters::load(&config, &weights, dtype, &device).unwrap();
        let model = LanguageModel::new(&config, &parameters, dtype, &device).unwrap();
        let frozen = model.freeze().unwrap();
        let mut sampler = Sampler::new(&frozen, SampleSettings::default(), &[3], 1).unwrap();
        let drawn: Vec<_> = sampler.by_ref().take(6).map(|drawn| drawn.unwrap()).collect();
        let mut ids = vec![3];
        ids.extend(drawn.iter().map(|drawn| drawn.id));
        let tokens = Tensor::from_slice(&ids[..6], (6, 1), &device).unwrap();
        let noise = rhn::model::Noise::none();
        let (logits, _) = model.logits(&tokens, &model.zero_state(1).unwrap(), &noise).unwrap();
        let logits = logits.to_vec3::<f32>().unwrap();
        for (drawn, logits) in drawn.iter().zip(&logits) {
            let sum: f64 = logits[0].iter().map(|&z| f64::from(z).exp()).sum();
            let wanted = sum.ln() - f64::from(logits[0][drawn.id as usize]);
            assert!((drawn.nats - wanted).abs() < 1e-5, "{} for {wanted}", drawn.nats);
        }
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let error = |settings: Value| model(hlstm(2, settings)).validate().unwrap_err().to_string();
    assert!(error(json!({"variant": "kurata", "coupled": true})).contains("none of peephole"));
    assert!(error(json!({"projection": 0})).contains("model.core.projection is 0, wanted 1 or more"));
    let message = serde_json::from_value::<rhn::config::CoreConfig>(hlstm(2, json!({"peepholes": "none"})));
    assert!(message.unwrap_err().to_string().contains("peephole"));
}
