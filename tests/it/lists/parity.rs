//! Against PyTorch: `reference/make_lists.py` reads every sentence by itself, without padding.

use crate::gradcheck::check_by_differences;
use crate::parity::{Golden, Report, apply, assert_each_is_tested, values};
use candle_core::{DType, Device, Tensor};
use rhn::model::{LanguageModel, Noise, NoiseSource, Parameters};
use rhn::task::rescore::{ExpectedErrors, ListBatch, ListTokens};
use rhn::train::objective::Objective;
use rhn::train::update::{Step, Update};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// `sentence: "file"`: one test a golden file.
macro_rules! golden {
    ($($sentence:ident: $file:literal,)*) => {
        const FILES: &[&str] = &[$($file),*];
        $(#[test] fn $sentence() { agrees_with_pytorch($file) })*
    };
}

golden! {
    the_expected_errors_of_an_lstm_equal_pytorch: "plain",
    expected_errors_with_cross_entropy_and_masks_equal_pytorch: "mixed",
    the_expected_errors_of_a_mixture_with_masked_vectors_equal_pytorch: "mixture",
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/lists")
}

#[test]
fn every_golden_file_has_its_test() {
    assert_each_is_tested(&folder(), FILES);
}

#[derive(Deserialize)]
struct List {
    hypotheses: Vec<Vec<u32>>,
    fixed: Vec<f64>,
    errors: Vec<f64>,
    reference: Vec<u32>,
}

struct Case {
    objective: ExpectedErrors,
    parameters: Parameters,
    batch: ListBatch,
    noise: Noise,
}

impl Case {
    fn new(golden: &Golden, dtype: DType) -> Self {
        let parameters = golden.parameters(dtype);
        let model = LanguageModel::new(&golden.config, &parameters, dtype, &Device::Cpu).unwrap();
        let train = &golden.train;
        let settings = train.lists.unwrap();
        let source = NoiseSource::new(&golden.config, &train.dropout, train.seed, dtype, &Device::Cpu);
        let lists: Vec<List> = serde_json::from_str(&golden.metadata["lists"]).unwrap();
        let lists: Vec<ListTokens> = lists
            .into_iter()
            .map(|List { hypotheses, fixed, errors, reference }| ListTokens {
                hypotheses,
                fixed,
                errors,
                reference,
                unseen: 0,
            })
            .collect();
        let end = golden.config.vocab_size as u32 - 1;
        let each: Vec<&ListTokens> = lists.iter().collect();
        let batch = ListBatch::new(&each, end, &settings, (dtype, &Device::Cpu)).unwrap();
        let objective = ExpectedErrors::new(model, source, settings);
        Self { objective, parameters, batch, noise: golden.masks_of("mask", dtype, None) }
    }
}

fn agrees_with_pytorch(file: &str) {
    let golden = Golden::read(&folder().join(format!("{file}.safetensors")));
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-5)] {
        let mut report = Report { golden: &golden, dtype, tolerance, wrong: Vec::new() };
        let Case { objective, parameters, batch, noise } = Case::new(&golden, dtype);
        let state = objective.zero_state().unwrap();
        let first = objective.loss(&batch, &state, &noise).unwrap().objective.backward().unwrap();
        for (name, var) in parameters.trained() {
            report.compare(&format!("grad.{name}"), first.get(var).unwrap());
        }
        let mut update = Update::new(&golden.train, &parameters, dtype, &Device::Cpu).unwrap();
        let mut curves = [vec![], vec![], vec![]];
        for step in 0..golden.tensor("curve").elem_count() as u64 {
            let loss = objective.loss(&batch, &state, &noise).unwrap();
            curves[0].push(values(&loss.sums.nats).iter().sum::<f64>());
            curves[1].push(values(&loss.objective)[0]);
            let step = Step { step, rate: golden.train.learning_rate };
            curves[2].push(apply(&mut update, &parameters, &loss.objective, &loss.sums, step));
        }
        for (name, curve) in ["curve", "curve.objective", "curve.grad_norm"].into_iter().zip(curves) {
            report.compare(name, &Tensor::new(curve, &Device::Cpu).unwrap());
        }
        for (name, tensor) in parameters.tensors() {
            report.compare(&format!("after.{name}"), &tensor);
        }
        assert!(report.wrong.is_empty(), "{file} in {dtype:?}:\n{}", report.wrong.join("\n"));
    }
}

#[test]
fn the_objective_has_the_gradient_of_central_differences() {
    let golden = Golden::read(&folder().join("mixed.safetensors"));
    let Case { objective, parameters, batch, noise } = Case::new(&golden, DType::F64);
    let state = objective.zero_state().unwrap();
    let loss = || objective.loss(&batch, &state, &noise).unwrap().objective;
    let gradients = loss().backward().unwrap();
    for (name, var) in parameters.trained() {
        check_by_differences(name, var, &values(gradients.get(var).unwrap()), || values(&loss())[0]);
    }
}
