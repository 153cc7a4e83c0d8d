//! What must hold for any bytes: a value that keeps its promises, or an error of the right kind; never a panic.
//!
//! Each function is a fuzz target; `tests/fuzz_corpus.rs` replays the committed inputs through the same code.

use candle_core::{DType, Device};
use rhn::checkpoint::parse_config;
use rhn::config::{CorpusConfig, ModelConfig, Recipe, Resolved, Unit};
use rhn::data::split::{Cut, by_percent};
use rhn::data::{Text, Tokenizer};
use rhn::error::Result;
use rhn::model::TensorSpec;
use rhn::sample::distribution::Filters;
use rhn::storage::{Manifest, load_tensors, load_weights};
use std::collections::BTreeMap;
use std::path::Path;

/// The value, unless it was refused with this exit code.
fn accepted<T>(result: Result<T>, code: u8) -> Option<T> {
    result.map_err(|error| assert_eq!(error.exit_code(), code, "{error}")).ok()
}

/// A recipe's text, and after a NUL a `--set`.
pub(crate) fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (text, setting) = text.split_once('\0').map_or((text, None), |(text, rest)| (text, Some(rest)));
    if let Some(setting) = setting {
        accepted(Resolved::new("shakespeare", &[setting.to_string()]), 2);
    }
    let Some(recipe) = accepted(Recipe::parse(text, Path::new("fuzzed.toml")), 2) else { return };
    accepted(recipe.validate(), 2);
    let config = ModelConfig::new(recipe.model.clone(), 50);
    if accepted(config.validate(), 2).is_some() {
        accepted(rhn::model::specs(&config).map(drop), 2);
    }
    if recipe.leaves().values().all(|value| value != "nan") {
        assert_eq!(Recipe::parse(&recipe.to_toml(), Path::new("saved.toml")).unwrap(), recipe);
    }
}

/// A `manifest.json`.
pub(crate) fn manifest(bytes: &[u8]) {
    let Some(manifest) = accepted(Manifest::parse(Path::new("manifest.json"), bytes), 4) else { return };
    for name in manifest.names() {
        assert!(!name.contains(['/', '\\']) && !name.starts_with('.'), "{name:?}");
        assert!(manifest.get(name).is_some());
    }
    assert_eq!(Manifest::parse(Path::new("again"), &manifest.to_json()).unwrap(), manifest);
}

/// A `config.json`: what is accepted describes a model whose tensors can be listed and counted.
pub(crate) fn config(bytes: &[u8]) {
    let Some(config) = accepted(parse_config(Path::new("config.json"), bytes), 4) else { return };
    let specs = rhn::model::specs(&config).expect("a config that is accepted describes a model");
    let count = |shape: &[usize]| shape.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
    assert!(specs.values().all(|spec| count(&spec.shape).is_some()));
}

/// A `model.safetensors` for a model of five tensors.
pub(crate) fn weights(bytes: &[u8]) {
    let expected = BTreeMap::from([
        ("embedding.characters".to_string(), TensorSpec::weight(&[4, 2])),
        ("embedding.spelling".to_string(), TensorSpec::indices(&[2, 3], 4)),
        ("output.bias".to_string(), TensorSpec::weight(&[5])),
    ]);
    let path = Path::new("model.safetensors");
    if let Some(tensors) = accepted(load_weights(path, bytes, &expected, DType::F32.into(), &Device::Cpu), 4)
    {
        let bias = tensors["output.bias"].to_vec1::<f32>().unwrap();
        assert!(bias.len() == 5 && bias.iter().all(|value| value.is_finite()));
        let letters = tensors["embedding.spelling"].to_vec2::<u32>().unwrap().concat();
        assert!(letters.iter().all(|&letter| letter < 4));
    }
    accepted(load_tensors(path, bytes, &Device::Cpu), 4);
}

/// A `tokenizer.json`: what is accepted cuts any text into ids of its vocabulary, and reads any ids.
pub(crate) fn tokenizer(bytes: &[u8]) {
    let Some(tokenizer) = accepted(Tokenizer::parse(Path::new("tokenizer.json"), bytes), 4) else { return };
    let types = tokenizer.vocab_size();
    assert_eq!(tokenizer.words().len(), types);
    assert!(
        tokenizer.unknown_id().into_iter().chain(tokenizer.line_end_id()).all(|id| (id as usize) < types)
    );
    for text in ["", "to be\nor not to be\r\n", "é 東京🎭\0\u{301} <unk> <eos>", "\u{feff}x"] {
        let Some(encoded) = accepted(tokenizer.encode_measured(&Text::from(text)), 3) else { continue };
        assert!(encoded.tokens.iter().all(|id| (id as usize) < types));
        assert_eq!(encoded.extents.len(), encoded.tokens.len());
        let bytes: u64 = (0..encoded.extents.len()).map(|at| u64::from(encoded.extents.get(at).bytes)).sum();
        assert!(bytes <= text.len() as u64);
    }
    let mut decoder = tokenizer.decoder();
    (0..types.min(300) as u32).chain([u32::MAX]).for_each(|id| drop(decoder.push(id)));
    decoder.finish();
    assert!(Tokenizer::parse(Path::new("again"), tokenizer.to_json().as_bytes()).is_ok());
}

/// A text, cut by the unit that the first byte says, with and without a type for what is unseen.
pub(crate) fn corpus(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let unit = [Unit::Word, Unit::Char, Unit::Byte, Unit::Bpe][usize::from(first % 4)];
    let config = CorpusConfig {
        unknown: first & 4 == 0,
        min_count: u64::from(first >> 6),
        vocab_size: if unit == Unit::Bpe { 300 } else { usize::from(first >> 3 & 7) },
        split: [80.0, 10.0, 10.0],
        ..CorpusConfig::new("fuzzed", unit)
    };
    let whole = Text::new(bytes.to_vec(), "fuzzed.txt");
    let Some([train, valid, test]) = accepted(by_percent(&whole, config.split, Cut::Line), 3) else { return };
    assert_eq!([train.bytes(), valid.bytes(), test.bytes()].concat(), bytes);
    let Some(tokenizer) = accepted(Tokenizer::build(&config, &train), 3) else { return };
    let types = tokenizer.vocab_size();
    for text in [&train, &valid, &test] {
        let Some(encoded) = accepted(tokenizer.encode(text), 3) else { continue };
        assert!(encoded.tokens.iter().all(|id| (id as usize) < types));
        assert!(encoded.bytes <= text.len() as u64 && encoded.chars <= encoded.bytes);
    }
    saves_and_reads_the_same(&tokenizer, &whole);
    comes_back(&tokenizer, &train, unit);
}

fn saves_and_reads_the_same(tokenizer: &Tokenizer, text: &Text) {
    let saved = Tokenizer::parse(Path::new("saved"), tokenizer.to_json().as_bytes()).expect("its own form");
    let ids = |tokenizer: &Tokenizer| tokenizer.encode(text).map(|encoded| encoded.tokens.to_vec()).ok();
    assert_eq!(ids(tokenizer), ids(&saved));
}

/// The text that a vocabulary was made of is what its tokens spell.
fn comes_back(tokenizer: &Tokenizer, train: &Text, unit: Unit) {
    let encoded = tokenizer.encode(train).expect("the vocabulary was made of it");
    let mut decoder = tokenizer.decoder();
    let mut back: String = encoded.tokens.iter().map(|id| decoder.push(id)).collect();
    back.push_str(&decoder.finish());
    match unit {
        Unit::Word => {}
        Unit::Char | Unit::Bpe => assert_eq!(back, train.as_str().unwrap().replace("\r\n", "\n")),
        Unit::Byte => assert_eq!(back, String::from_utf8_lossy(train.bytes())),
    }
}

/// Sampling parameters, then logits; eight bytes each.
pub(crate) fn sampling(bytes: &[u8]) {
    let numbers: Vec<f64> = bytes.as_chunks().0.iter().map(|eight| f64::from_le_bytes(*eight)).collect();
    let [temperature, top_p, min_p, repetition_penalty, top_k, logits @ ..] = &numbers[..] else { return };
    let filters = Filters {
        temperature: *temperature,
        top_k: *top_k as usize,
        top_p: *top_p,
        min_p: *min_p,
        repetition_penalty: *repetition_penalty,
    };
    if accepted(filters.validate(), 2).is_none() || logits.is_empty() {
        return;
    }
    if !logits.iter().all(|logit| logit.abs() < f64::from(f32::MAX)) {
        return; // a sampler refuses them before
    }
    let mut candidates = Vec::new();
    filters.apply(logits, [0, 2].into_iter(), Some(1), &mut candidates);
    let sum: f64 = candidates.iter().map(|(_, probability)| probability).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{filters:?} {logits:?}: {candidates:?}");
    for (id, probability) in candidates {
        assert!((id as usize) < logits.len() && (0.0..=1.0).contains(&probability));
        assert!(id != 1 || logits.len() == 1);
    }
}

/// Panics if what must hold for any bytes does not.
pub(crate) type Check = fn(&[u8]);

/// Every target by its name.
pub(crate) const ALL: [(&str, Check); 7] = [
    ("recipe", recipe),
    ("manifest", manifest),
    ("config", config),
    ("weights", weights),
    ("tokenizer", tokenizer),
    ("corpus", corpus),
    ("sampling", sampling),
];
