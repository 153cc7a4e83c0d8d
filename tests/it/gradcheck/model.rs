//! Every cell and layer through the model as it is trained: all masks, a state that is not zero.

use super::{check_by_differences, random, values};
use candle_core::{DType, Device, Tensor, Var};
use rhn::config::ModelConfig;
use rhn::config::train::DropoutConfig;
use rhn::model::spelling::Spelling;
use rhn::model::{LanguageModel, Noise, NoiseSource, Parameters, State};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const TIME: usize = 4;
const LANES: usize = 3;

/// Short and long, so that padding is seen; with repeated characters, so that several positions share the maximum.
const WORDS: [&str; 7] = ["a", "aaa", "abab", "<eos>", "<unk>", "bcdba", "dd"];

/// Noise on everything that the kind of dropout has, with separate ones for H and T.
fn all_masks() -> Value {
    json!({"word": 0.2, "input": 0.3, "between": 0.2, "hidden": 0.3, "output": 0.3, "recurrent_weights": 0.3,
        "separate_gate_masks": true})
}

fn shared_masks() -> Value {
    json!({"word": 0.2, "input": 0.3, "between": 0.2, "hidden": 0.3, "output": 0.3, "recurrent_weights": 0.3})
}

fn rhn(layers: usize) -> Value {
    json!({"kind": "rhn", "layers": layers, "hidden_size": 5, "recurrence_depth": 3, "transform_bias": -0.5})
}

fn sharing_rhn(layers: usize, gates: &str) -> Value {
    let mut core = rhn(layers);
    core["shared_gates"] = gates.into();
    core
}

fn lstm(layers: usize) -> Value {
    json!({"kind": "lstm", "layers": layers, "hidden_size": 5})
}

fn hlstm(layers: usize, settings: Value) -> Value {
    let mut core = json!({"kind": "hlstm", "layers": layers, "hidden_size": 5, "depth_bias": -0.5});
    core.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    core
}

fn char_cnn(highway_layers: usize, word_size: Option<usize>) -> Value {
    json!({"kind": "char-cnn", "char_size": 3, "filter_widths": [1, 2, 4], "filter_counts": [2, 3, 2],
           "highway_layers": highway_layers, "word_size": word_size})
}

/// A window of a small model: what the gradient of its loss is compared on.
struct Window {
    model: LanguageModel,
    parameters: Parameters,
    tokens: Tensor,
    targets: Tensor,
    state: State,
    masks: Noise,
    weights: Var,
}

impl Window {
    fn new(embedding: Value, core: Value, tied: bool, dropout: Value) -> Self {
        Self::with_output(embedding, core, json!({"tied": tied}), dropout)
    }

    fn with_output(embedding: Value, core: Value, output: Value, dropout: Value) -> Self {
        let spelled = match embedding["characters"] == "bytes" {
            true => Spelling::of_bytes(WORDS.into_iter(), 12),
            false => Spelling::of(WORDS.into_iter(), 65).unwrap(),
        };
        let config: ModelConfig = serde_json::from_value(json!({
            "model_type": "rhn", "vocab_size": WORDS.len(), "alphabet_size": spelled.size.alphabet_size,
            "word_length": spelled.size.word_length, "embedding": embedding, "core": core, "output": output,
        }))
        .unwrap();
        let (dtype, device, fixed) = (DType::F64, Device::Cpu, spelled.tensors().unwrap());
        let parameters = Parameters::draw(&config, fixed, 3, 0.7, dtype, &device).unwrap();
        let model = LanguageModel::new(&config, &parameters, dtype, &device).unwrap();
        let token = |i: usize| ((i * i + 2 * i) % WORDS.len()) as u32; // some words more than once
        let ids: Vec<u32> = (0..(TIME + 1) * LANES).map(token).collect();
        let ids = Tensor::from_vec(ids, (TIME + 1, LANES), &device).unwrap();
        let tokens = ids.narrow(0, 0, TIME).unwrap().contiguous().unwrap();
        let dropout: DropoutConfig = serde_json::from_value(dropout).unwrap();
        let masks = NoiseSource::new(&config, &dropout, 7, dtype, &device).draw(&tokens, 0, 0).unwrap();
        let targets = ids.narrow(0, 1, TIME).unwrap().contiguous().unwrap();
        let weights = random("weights", &[TIME, LANES], 1.0, dtype);
        Self { state: entering(&model), model, parameters, tokens, targets, masks, weights }
    }

    fn weighted(&self) -> Tensor {
        let (nats, _) = self.model.nats(&self.tokens, &self.targets, &self.state, &self.masks).unwrap();
        (nats * self.weights.as_tensor()).unwrap().sum_all().unwrap()
    }

    fn check(&self) {
        let grads = self.weighted().backward().unwrap();
        for (name, var) in self.parameters.trained() {
            let grad = grads.get(var).unwrap_or_else(|| panic!("{name} receives no gradient"));
            check_by_differences(name, var, &values(grad), || values(&self.weighted())[0]);
        }
    }
}

/// A state of numbers in ± 0.8.
fn entering(model: &LanguageModel) -> State {
    let zero = model.zero_state(LANES).unwrap();
    let drawn = |(name, part): (String, Tensor)| {
        let values = random(&name, part.dims(), 0.8, DType::F64).as_detached_tensor();
        (name, values)
    };
    zero.load(&zero.save().into_iter().map(drawn).collect::<BTreeMap<_, _>>()).unwrap()
}

fn words(size: Option<usize>) -> Value {
    json!({"kind": "word", "size": size})
}

#[test]
fn an_rhn_has_the_gradient_of_central_differences() {
    for dropout in [json!({}), shared_masks(), all_masks()] {
        Window::new(words(None), rhn(1), false, dropout.clone()).check();
        Window::new(words(Some(4)), rhn(2), false, dropout).check();
    }
}

#[test]
fn an_rhn_that_shares_gates_has_the_gradient_of_central_differences() {
    for gates in ["transform", "both"] {
        for dropout in [json!({}), shared_masks(), all_masks()] {
            Window::new(words(Some(4)), sharing_rhn(2, gates), false, dropout).check();
        }
    }
}

#[test]
fn a_tied_output_adds_to_the_embeddings_gradient() {
    Window::new(words(None), rhn(1), true, all_masks()).check();
    Window::new(words(None), lstm(1), true, shared_masks()).check();
}

#[test]
fn a_mixture_of_softmaxes_has_the_gradient_of_central_differences() {
    let masks = json!({"word": 0.2, "input": 0.3, "output": 0.3, "components": 0.3});
    let per_step = json!({"kind": "per-step", "output": 0.3, "components": 0.3});
    for (size, components, tied, dropout) in
        [(3, 1, true, json!({})), (4, 3, true, masks), (6, 2, false, per_step)]
    {
        let output = json!({"kind": "mixture", "components": components, "tied": tied});
        Window::with_output(words(Some(size)), lstm(1), output, dropout).check();
    }
}

#[test]
fn an_lstm_has_the_gradient_of_central_differences() {
    let per_step = json!({"kind": "per-step", "input": 0.3, "between": 0.5, "output": 0.5});
    for dropout in [json!({}), shared_masks(), per_step] {
        Window::new(words(None), lstm(1), false, dropout.clone()).check();
        Window::new(words(Some(4)), lstm(2), false, dropout).check();
    }
}

#[test]
fn a_projected_lstm_has_the_gradient_of_central_differences() {
    let projected = |layers: usize| {
        let mut core = lstm(layers);
        core["projection"] = json!(3);
        core
    };
    Window::new(words(Some(4)), projected(2), false, json!({"hidden": 0.3, "recurrent_weights": 0.4}))
        .check();
    Window::new(words(None), projected(1), true, json!({})).check();
}

#[test]
fn a_gru_with_masked_weights_has_the_gradient_of_central_differences() {
    let gru = json!({"kind": "gru", "layers": 2, "hidden_size": 5});
    Window::new(words(Some(4)), gru, false, json!({"hidden": 0.3, "recurrent_weights": 0.4})).check();
}

#[test]
fn a_mogrifier_has_the_gradient_of_central_differences() {
    let mogrified = |mut core: Value, mogrifier: Value| {
        core["mogrifier"] = mogrifier;
        core
    };
    let rank = json!({"rounds": 5, "rank": 2});
    Window::new(words(Some(4)), mogrified(rhn(2), rank), false, all_masks()).check();
    Window::new(words(None), mogrified(sharing_rhn(1, "both"), json!({"rounds": 3})), true, json!({}))
        .check();
    Window::new(words(Some(4)), mogrified(lstm(2), json!({"rounds": 2})), false, shared_masks()).check();
}

#[test]
fn a_highway_lstm_has_the_gradient_of_central_differences() {
    let masks = json!({"word": 0.2, "input": 0.3, "hidden": 0.3, "output": 0.3, "depth": 0.3,
        "recurrent_weights": 0.3});
    let per_step = json!({"kind": "per-step", "between": 0.5, "output": 0.5, "depth": 0.3});
    let settings = [
        json!({}),
        json!({"peephole": "none", "first_layer_carry": true}),
        json!({"coupled": true, "projection": 3}),
        json!({"variant": "depth-gated"}),
        json!({"stabiliser": true}),
        json!({"stabiliser": true, "variant": "depth-gated"}),
    ];
    for settings in settings {
        Window::new(words(None), hlstm(1, settings.clone()), false, json!({})).check();
        Window::new(words(Some(4)), hlstm(2, settings), false, masks.clone()).check();
    }
    Window::new(words(Some(4)), hlstm(3, json!({})), false, per_step).check();
}

#[test]
fn an_lstm_with_a_highway_layer_inside_has_the_gradient_of_central_differences() {
    for dropout in [json!({}), shared_masks()] {
        let kurata = hlstm(2, json!({"variant": "kurata"}));
        Window::new(words(Some(4)), kurata, false, dropout).check();
    }
}

#[test]
fn char_cnn_and_highway_layers_have_the_gradient_of_central_differences() {
    for (highway_layers, word_size) in [(0, None), (1, Some(4)), (2, None)] {
        Window::new(char_cnn(highway_layers, word_size), rhn(1), false, shared_masks()).check();
    }
    Window::new(char_cnn(1, None), lstm(2), false, shared_masks()).check();
    let mut over_bytes = char_cnn(2, Some(4));
    over_bytes["characters"] = json!("bytes");
    Window::new(over_bytes, lstm(1), false, json!({})).check();
}

#[test]
fn two_lstms_over_characters_have_the_gradient_of_central_differences() {
    let embedding = |highway_layers: usize, characters: &str| {
        json!({"kind": "char-lstm", "characters": characters, "char_size": 3, "char_hidden": 4, "word_size": 5,
               "highway_layers": highway_layers})
    };
    Window::new(embedding(0, "unicode"), rhn(1), false, shared_masks()).check();
    Window::new(embedding(2, "bytes"), lstm(1), false, json!({})).check();
}

#[test]
fn the_entering_state_has_the_gradient_of_central_differences() {
    let depth_gated = hlstm(2, json!({"variant": "depth-gated"}));
    let mut mogrified = rhn(2);
    mogrified["mogrifier"] = json!({"rounds": 3});
    let mut projected = lstm(2);
    projected["projection"] = json!(3);
    let plain = [rhn(2), sharing_rhn(2, "both"), lstm(2), hlstm(2, json!({}))];
    for core in plain.into_iter().chain([depth_gated, mogrified, projected]) {
        let mut window = Window::new(words(None), core, false, all_masks());
        let parts: Vec<(String, Var)> = (window.state.save().into_iter())
            .map(|(name, part)| (name, Var::from_tensor(&part).unwrap()))
            .collect();
        let tensors = parts.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        // `load` would make copies of another type or device alone, and these are of the same.
        window.state = window.state.load(&tensors).unwrap();
        let grads = window.weighted().backward().unwrap();
        for (name, var) in &parts {
            let grad = grads.get(var).unwrap_or_else(|| panic!("{name} receives no gradient"));
            check_by_differences(name, var, &values(grad), || values(&window.weighted())[0]);
        }
    }
}
