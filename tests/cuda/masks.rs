//! Masks are the same bits as those of `model::dropout` for the same seed.

use crate::emulator::{Script, emulator};
use crate::grids;
use candle_core::{DType, Device, Tensor};
use rhn::config::{ModelConfig, Resolved};
use rhn::model::MaskSource;
use rhn::ops::recurrence::HiddenMask;
use rhn::rng::key_words;

const SEED: u64 = 20260;

fn source(kind: &str) -> (MaskSource, ModelConfig) {
    // Masks of words and states are of a whole window or none.
    let shared = if kind == "variational" { ["word=0.3", "hidden=0.4"] } else { ["word=0", "hidden=0"] };
    let rates = shared.into_iter().chain(["input=0.25", "output=0.65"]);
    let mut settings: Vec<String> = rates.map(|rate| format!("train.dropout.{rate}")).collect();
    settings.push(format!("train.dropout.kind={kind}"));
    settings.push("model.core.hidden_size=37".into());
    let recipe = Resolved::new("ptb-rhn", &settings).unwrap().recipe;
    let model = ModelConfig::new(recipe.model, 50);
    let source = MaskSource::new(&model, &recipe.train.dropout, SEED, DType::F32, &Device::Cpu);
    (source, model)
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// What the kernel draws, as bits, whatever its grid.
fn drawn(purpose: &str, position: u64, rate: f64, count: usize) -> Option<Vec<u32>> {
    let emulator = emulator()?;
    let found = grids(count.div_ceil(8), 64).map(|geometry| {
        let mut script = Script::new();
        script.load("key", &key_words(SEED, purpose, position));
        script.buffer::<f32>("mask", count);
        let kept = 1.0 / (1.0 - rate);
        script.launch("dropout_f32", geometry, &[&"&key", &rate, &kept, &count, &"&mask"]);
        script.run(emulator, &["mask"]).get::<u32>("mask")
    });
    assert_eq!(found[0], found[1]);
    Some(found[0].clone())
}

#[test]
fn masks_of_states_and_inputs_are_the_same_bits() {
    let tokens = Tensor::zeros((5, 3), DType::U32, &Device::Cpu).unwrap();
    for (kind, times) in [("variational", 1), ("per-step", 5)] {
        let (source, model) = source(kind);
        let masks = source.draw(&tokens, 7, 9).unwrap();
        let window = if times == 1 { 7 } else { 9 };
        let input = times * 3 * model.embedding_size();
        let mut pairs = vec![
            ("dropout.input.0", window, 0.25, input, masks.input[0].as_ref().unwrap()),
            ("dropout.output", window, 0.65, times * 3 * 37, masks.output.as_ref().unwrap()),
        ];
        match &masks.hidden[0] {
            HiddenMask::Shared(hidden) => pairs.push(("dropout.hidden.0", 7, 0.4, 3 * 37, hidden)),
            _ => assert_eq!(kind, "per-step"),
        }
        for (purpose, position, rate, count, wanted) in pairs {
            let Some(found) = drawn(purpose, position, rate, count) else { return };
            assert_eq!(found, bits(wanted), "{kind} {purpose}");
            assert!(found.contains(&0) && found.iter().any(|&bits| bits != 0), "{purpose}");
        }
    }
}

#[test]
fn masks_of_words_are_the_same_bits() {
    let Some(emulator) = emulator() else { return };
    let (time, lanes) = (11, 3);
    let ids: Vec<u32> = (0..time * lanes).map(|i| (i * i * 7 % 50) as u32).collect();
    let tokens = Tensor::from_slice(&ids, (time, lanes), &Device::Cpu).unwrap();
    let wanted = source("variational").0.draw(&tokens, 4, 0).unwrap().word.unwrap();
    let keys: Vec<u32> =
        (0..lanes).flat_map(|lane| key_words(SEED, &format!("dropout.word.{lane}"), 4)).collect();
    for geometry in grids(ids.len(), 32) {
        let mut script = Script::new();
        script.load("keys", &keys);
        script.load("tokens", &ids);
        script.buffer::<f32>("mask", ids.len());
        let (rate, kept) = (0.3, 1.0 / (1.0 - 0.3));
        let arguments: [&dyn std::fmt::Display; 7] =
            [&"&keys", &"&tokens", &rate, &kept, &lanes, &ids.len(), &"&mask"];
        script.launch("word_dropout_f32", geometry, &arguments);
        assert_eq!(script.run(emulator, &["mask"]).get::<u32>("mask"), bits(&wanted));
    }
}
