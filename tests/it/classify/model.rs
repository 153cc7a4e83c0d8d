//! The model: logits, loss and gradients.

use crate::gradcheck::{check_by_differences, values};
use crate::parity::{Golden, Report, assert_each_is_tested};
use candle_core::{DType, Device, Tensor};
use rhn::model::{Classifier, EncoderNoise, EncoderNoiseSource, Noise, Parameters, label_nats};
use rhn_kernels::scan::HiddenMask;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `sentence: "file"`: one test a golden file.
macro_rules! golden {
    ($($sentence:ident: $file:literal,)*) => {
        const FILES: &[&str] = &[$($file),*];
        $(#[test] fn $sentence() { agrees_with_pytorch($file) })*
    };
}

golden! {
    the_mean_of_stacked_lstms_equals_pytorch: "mean-lstm",
    the_maximum_of_rhns_with_masks_equals_pytorch: "max-rhn",
    attention_over_grus_with_masks_equals_pytorch: "attention-gru",
    attention_over_one_direction_of_characters_equals_pytorch: "attention-char-cnn-forward",
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/classify")
}

#[test]
fn every_golden_classifier_has_its_test() {
    assert_each_is_tested(&folder(), FILES);
}

/// The masks of a fixture.
fn masks(golden: &Golden, dtype: DType) -> EncoderNoise {
    let mask =
        |name: &str| golden.optional(&format!("mask.{name}")).map(|mask| mask.to_dtype(dtype).unwrap());
    let direction = |name: &str| Noise {
        input: vec![mask(&format!("{name}.input.0"))],
        hidden: mask(&format!("{name}.hidden.0")).map(HiddenMask::Shared).into_iter().collect(),
        ..Noise::none()
    };
    let word = mask("word").map(|mask| mask.unsqueeze(2).unwrap());
    let forward = Noise { word, ..direction("forward") };
    EncoderNoise { each: [forward, direction("backward")], pooled: mask("pooled") }
}

fn agrees_with_pytorch(file: &str) {
    let golden = Golden::read(&folder().join(format!("{file}.safetensors")));
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-5)] {
        let mut report = Report { golden: &golden, dtype, tolerance, wrong: Vec::new() };
        let parameters = golden.parameters(dtype);
        let model = Classifier::new(&golden.config, &parameters, dtype, &Device::Cpu).unwrap();
        let lengths: Vec<u32> = golden.tensor("lengths").to_vec1().unwrap();
        let lengths: Vec<usize> = lengths.into_iter().map(|length| length as usize).collect();
        let logits = model.logits(golden.tensor("tokens"), &lengths, &masks(&golden, dtype)).unwrap();
        report.compare("logits", &logits);
        let labels = golden.tensor("labels").to_dtype(dtype).unwrap();
        let loss = label_nats(&logits, &labels, golden.train.positive_weight).unwrap().mean_all().unwrap();
        report.compare("loss", &loss.reshape(1).unwrap());
        for ((name, _), gradient) in parameters.trained().zip(parameters.gradients(&loss).unwrap()) {
            report.compare(&format!("grad.{name}"), &gradient);
        }
        assert!(report.wrong.is_empty(), "{file} in {dtype:?}:\n{}", report.wrong.join("\n"));
    }
}

const LENGTHS: [usize; 3] = [4, 1, 3];

/// A small classifier, its weights, and a batch of three sentences.
fn small(pooling: &str) -> (Classifier, Parameters, Tensor, EncoderNoise) {
    let config: rhn::config::ModelConfig = serde_json::from_value(json!({
        "model_type": "rhn", "vocab_size": 7, "embedding": {"kind": "word", "size": 3},
        "core": {"kind": "rhn", "hidden_size": 4, "recurrence_depth": 2, "transform_bias": -0.5},
        "classifier": {"pooling": pooling},
    }))
    .unwrap();
    config.validate().unwrap();
    let parameters = Parameters::draw(&config, BTreeMap::new(), 3, 0.7, DType::F64, &Device::Cpu).unwrap();
    let model = Classifier::new(&config, &parameters, DType::F64, &Device::Cpu).unwrap();
    let tokens: Vec<u32> = (0..12).map(|at| (at * at + 2 * at) % 7).collect();
    let tokens = Tensor::from_vec(tokens, (4, 3), &Device::Cpu).unwrap();
    let dropout = json!({"word": 0.2, "input": 0.3, "hidden": 0.3, "output": 0.3, "recurrent_weights": 0.2});
    let dropout = serde_json::from_value(dropout).unwrap();
    let noise = EncoderNoiseSource::new(&config, &dropout, 7, DType::F64, &Device::Cpu);
    let noise = noise.draw(&tokens, 0).unwrap();
    (model, parameters, tokens, noise)
}

#[test]
fn each_pooling_has_the_gradient_of_central_differences() {
    for pooling in ["mean", "max", "attention"] {
        let (model, parameters, tokens, noise) = small(pooling);
        let labels = Tensor::new(&[1.0, 0.0, 1.0], &Device::Cpu).unwrap();
        let loss = || {
            let logits = model.logits(&tokens, &LENGTHS, &noise).unwrap();
            label_nats(&logits, &labels, 1.7).unwrap().sum_all().unwrap()
        };
        let gradients = parameters.gradients(&loss()).unwrap();
        for ((name, variable), gradient) in parameters.trained().zip(gradients) {
            let name = format!("{pooling}: {name}");
            check_by_differences(&name, variable, &values(&gradient), || values(&loss())[0]);
        }
    }
}

#[test]
fn a_sentence_has_the_logit_that_it_has_alone_whatever_comes_after_it() {
    for pooling in ["mean", "max", "attention"] {
        let (model, _, tokens, _) = small(pooling);
        let logits = |tokens: &Tensor, lengths: &[usize]| {
            values(&model.logits(tokens, lengths, &EncoderNoise::default()).unwrap())
        };
        let together = logits(&tokens, &LENGTHS);
        for (row, &length) in LENGTHS.iter().enumerate() {
            let alone = tokens.narrow(1, row, 1).unwrap().narrow(0, 0, length).unwrap();
            let alone = logits(&alone.contiguous().unwrap(), &[length])[0];
            assert!((together[row] - alone).abs() < 1e-12, "{pooling}, row {row}: {} {alone}", together[row]);
        }
        let other = tokens.ones_like().unwrap();
        let rows: Vec<Tensor> = LENGTHS
            .iter()
            .enumerate()
            .map(|(row, &length)| {
                let of = |from: &Tensor, start: usize, count: usize| {
                    from.narrow(1, row, 1).unwrap().narrow(0, start, count).unwrap()
                };
                Tensor::cat(&[of(&tokens, 0, length), of(&other, length, 4 - length)], 0).unwrap()
            })
            .collect();
        let padded_otherwise = Tensor::cat(&rows, 1).unwrap();
        assert_eq!(logits(&padded_otherwise, &LENGTHS), together, "{pooling}"); // to the bit
    }
}

#[test]
fn the_masks_of_a_step_are_its_own_and_each_direction_has_others() {
    let (_, _, tokens, noise) = small("max");
    let of =
        |noise: &EncoderNoise, direction: usize| values(noise.each[direction].input[0].as_ref().unwrap());
    assert!(of(&noise, 0) != of(&noise, 1) && noise.each[1].word.is_none());
    assert_eq!(noise.pooled.as_ref().unwrap().dims(), [3, 8]);
    let (_, _, _, again) = small("max");
    assert_eq!(of(&noise, 0), of(&again, 0));
    assert_eq!(noise.each[0].word.as_ref().unwrap().dims(), [tokens.dim(0).unwrap(), 3, 1]);
}
