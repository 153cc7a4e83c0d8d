//! Every parameter of every built-in recipe, shrunk, receives a gradient.

use super::{shrunk::shrunk, values};
use candle_core::{DType, Device, Tensor};
use rhn::config::recipe::BUILT_IN;
use rhn::config::{EmbeddingConfig, ModelConfig, Recipe, Unit};
use rhn::model::spelling::Spelling;
use rhn::model::{LanguageModel, Noise, NoiseSource, Parameters};
use std::collections::BTreeMap;

const TIME: usize = 12;
const LANES: usize = 8;
const WORDS: [&str; 10] = ["<eos>", "<unk>", "the", "cat", "sat", "on", "a", "table", "N", "mississippi's"];

/// The model for few words, or for fewer characters than units.
fn sized(recipe: &Recipe) -> (ModelConfig, BTreeMap<String, Tensor>) {
    let vocab_size = if recipe.corpus.unit == Unit::Word { WORDS.len() } else { 5 };
    let mut config = ModelConfig::new(recipe.model.clone(), vocab_size);
    let EmbeddingConfig::CharCnn(cnn) = &recipe.model.embedding else { return (config, BTreeMap::new()) };
    let spelling = Spelling::of(WORDS.into_iter(), cnn.max_word_length).unwrap();
    config.set_spelling(spelling.size);
    (config, spelling.tensors().unwrap())
}

/// Each trained tensor's gradient, row by row.
fn gradients(recipe: &Recipe, masked: bool) -> BTreeMap<String, Vec<Vec<f64>>> {
    let (config, fixed) = sized(recipe);
    let (train, dtype, device) = (&recipe.train, DType::F64, Device::Cpu);
    let parameters = Parameters::draw(&config, fixed, train.seed, train.initial(), dtype, &device).unwrap();
    let model = LanguageModel::new(&config, &parameters, dtype, &device).unwrap();
    let token = |i: usize| ((i + i / 7) % config.vocab_size) as u32; // every word of the vocabulary, in a changing order
    let ids: Vec<u32> = (0..TIME * LANES).map(token).collect();
    let tokens = Tensor::from_vec(ids, (TIME, LANES), &device).unwrap();
    let masks = match masked {
        false => Noise::none(),
        true => {
            NoiseSource::new(&config, &train.dropout, train.seed, dtype, &device).draw(&tokens, 0, 0).unwrap()
        }
    };
    let targets = tokens.roll(1, 0).unwrap();
    let inputs = match config.pixels() {
        None => tokens,
        Some(pixels) => {
            let pixel = |i: usize| ((i * 7 + i / 11) % 13) as f64 / 13.0;
            let images: Vec<f64> = (0..TIME * LANES * pixels).map(pixel).collect();
            Tensor::from_vec(images, (TIME, LANES, pixels), &device).unwrap()
        }
    };
    let (nats, _) = model.nats(&inputs, &targets, &model.zero_state(LANES).unwrap(), &masks).unwrap();
    let store = nats.sum_all().unwrap().backward().unwrap();
    let rows = |name: &str, grad: Option<&Tensor>| {
        let grad = grad.unwrap_or_else(|| panic!("{name} receives no gradient"));
        let columns = *grad.dims().last().unwrap();
        values(grad).chunks(columns).map(<[f64]>::to_vec).collect()
    };
    parameters.trained().map(|(name, var)| (name.to_string(), rows(name, store.get(var)))).collect()
}

#[test]
fn every_parameter_of_every_recipe_family_receives_a_gradient() {
    for (recipe, _) in BUILT_IN {
        let small = shrunk(recipe, 8, &[]);
        if small.model.latent.is_some() || small.model.classifier.is_some() {
            continue; // no language model; `vae` and `classify` check the gradient of each weight
        }
        for (name, rows) in gradients(&small, true) {
            assert!(rows.iter().flatten().any(|&g| g != 0.0), "{recipe}, masked: {name}");
            assert!(rows.iter().flatten().all(|g| g.is_finite()), "{recipe}, masked: {name}");
        }
        for (name, rows) in gradients(&small, false) {
            let blank = name == "embedding.characters";
            assert!(!blank || rows[0].iter().all(|&g| g == 0.0), "{recipe}: the blank stays zero");
            let rest = &rows[usize::from(blank)..];
            assert!(rest.iter().all(|row| row.iter().any(|&g| g != 0.0)), "{recipe}: a row of {name}");
            // Behind a maximum or a ReLU a single weight may rest; everywhere else each one moves.
            let may_rest = name.starts_with("embedding.") && name != "embedding.weight";
            assert!(may_rest || rest.iter().flatten().all(|&g| g != 0.0), "{recipe}: a value of {name}");
        }
    }
}
