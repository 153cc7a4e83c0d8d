//! What a recipe can add to training, against PyTorch: `reference/make_training.py` writes the papers' form, in the papers'
//! units.

use crate::gradcheck::check_by_differences;
use crate::parity::{Golden, Report, apply, assert_each_is_tested, summed, values};
use candle_core::{DType, Device, Tensor};
use rhn::model::{LanguageModel, Noise, Parameters, State};
use rhn::task::language::{NextToken, Window, WindowNoise};
use rhn::train::averaging::Average;
use rhn::train::objective::{Objective, Sums};
use rhn::train::update::{Applied, Step, Update};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// `sentence: "file"`: one test a golden file.
macro_rules! golden {
    ($($sentence:ident: $file:literal,)*) => {
        const FILES: &[&str] = &["averaging", $($file),*];
        $(#[test] fn $sentence() { agrees_with_pytorch($file) })*
    };
}

golden! {
    penalties_on_activations_equal_pytorch: "activation",
    windows_of_drawn_lengths_equal_pytorch: "variable-windows",
    rows_of_the_table_are_dropped_as_pytorch_drops_them: "embedding-dropout",
    word_types_made_of_characters_are_dropped_as_pytorch_drops_them: "embedding-dropout-characters",
    fraternal_dropout_equals_pytorch: "fraternal",
    expectation_linear_dropout_equals_pytorch: "expectation-linear",
    the_pi_model_equals_pytorch: "pi",
    all_of_them_together_equal_pytorch: "everything",
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/training")
}

fn golden(file: &str) -> Golden {
    Golden::read(&folder().join(format!("{file}.safetensors")))
}

#[test]
fn every_golden_file_has_its_test() {
    assert_each_is_tested(&folder(), FILES);
}

fn agrees_with_pytorch(file: &str) {
    let golden = golden(file);
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-5)] {
        let mut report = Report { golden: &golden, dtype, tolerance, wrong: Vec::new() };
        twenty_steps(&golden, dtype, &mut report);
        assert!(report.wrong.is_empty(), "{file} in {dtype:?}:\n{}", report.wrong.join("\n"));
    }
}

/// The windows of the stream one after another, with the masks of the file.
fn windows(golden: &Golden, dtype: DType) -> Vec<(Window, WindowNoise)> {
    let stream = golden.tensor("stream");
    let part = |tensor: &Tensor, start: usize, steps: usize| tensor.narrow(0, start, steps).unwrap();
    let numbers = |name: &str| golden.tensor(name).to_vec1::<u32>().unwrap();
    let mut start = 0;
    let mut all = Vec::new();
    for (steps, reset) in numbers("lengths").into_iter().zip(numbers("resets")) {
        let steps = steps as usize;
        let noise = |pass: &str| {
            let word = golden.optional(&format!("{pass}.word")).map(|word| part(word, start, steps));
            golden.masks_of(pass, dtype, word.as_ref())
        };
        let noise = WindowNoise {
            first: noise("mask"),
            second: noise("second"),
            teachers: Vec::new(),
            resets_state: reset == 1,
        };
        let window = Window { inputs: part(stream, start, steps), targets: part(stream, start + 1, steps) };
        all.push((window, noise));
        start += steps;
    }
    all
}

/// Each window's loss and objective, each gradient's norm, and the weights after the last update.
fn twenty_steps(golden: &Golden, dtype: DType, report: &mut Report<'_>) {
    let parameters = golden.parameters(dtype);
    let model = LanguageModel::new(&golden.config, &parameters, dtype, &Device::Cpu).unwrap();
    let mut update = Update::new(&golden.train, &parameters, dtype, &Device::Cpu).unwrap();
    let objective = NextToken::new(model, &golden.train);
    let mut state = objective.zero_state().unwrap();
    let mut curves = [vec![], vec![], vec![]];
    for (step, (window, noise)) in (0..).zip(windows(golden, dtype)) {
        let loss = objective.loss(&window, &state, &noise).unwrap();
        curves[0].push(values(&loss.sums.nats).iter().sum::<f64>() / loss.sums.tokens as f64);
        curves[1].push(values(&loss.objective)[0]);
        let step = Step { step, rate: golden.train.learning_rate * objective.rate_scale(&window) };
        curves[2].push(apply(&mut update, &parameters, &loss.objective, &loss.sums, step));
        state = loss.carried.detach();
    }
    for (name, curve) in ["curve", "curve.objective", "curve.grad_norm"].into_iter().zip(curves) {
        report.compare(name, &Tensor::new(curve, &Device::Cpu).unwrap());
    }
    for (name, variable) in parameters.trained() {
        report.compare(&format!("after.{name}"), variable);
    }
}

#[test]
fn the_objective_with_all_of_them_has_the_gradient_of_central_differences() {
    let golden = golden("everything");
    let parameters = golden.parameters(DType::F64);
    let model = LanguageModel::new(&golden.config, &parameters, DType::F64, &Device::Cpu).unwrap();
    let objective = NextToken::new(model, &golden.train);
    let zero = objective.zero_state().unwrap();
    let entering = |part: &Tensor| (part + 0.3).unwrap();
    let state = State(zero.0.iter().map(|layer| layer.iter().map(entering).collect()).collect());
    let mut windows = windows(&golden, DType::F64);
    windows.retain(|(window, noise)| !noise.resets_state && window.inputs.dims()[0] < 7);
    let (window, noise) = &windows[0];
    let loss = || objective.loss(window, &state, noise).unwrap().objective;
    let gradients = loss().backward().unwrap();
    for (name, var) in parameters.trained() {
        check_by_differences(name, var, &values(gradients.get(var).unwrap()), || values(&loss())[0]);
    }
}

/// The means of `average` by the names that the file has them under.
fn compare(report: &mut Report<'_>, kind: &str, average: &Average, own: &Parameters) {
    for (name, variable) in average.weights(own).trained() {
        report.compare(&format!("{kind}.{name}"), variable);
    }
}

fn average(kind: Value) -> Average {
    Average::new(&serde_json::from_value(kind).unwrap())
}

/// `torch.optim.ASGD` with `t0 = 0`, as the papers' code has it, begins its mean anew with the second step: with `t0 = -1`
/// it is the mean of all steps, ours. Both are in the file; the one without the first step is ours if that is left out.
#[test]
fn means_of_the_weights_equal_pytorch() {
    let golden = golden("averaging");
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-5)] {
        let mut report = Report { golden: &golden, dtype, tolerance, wrong: Vec::new() };
        let parameters = golden.parameters(dtype);
        let model = LanguageModel::new(&golden.config, &parameters, dtype, &Device::Cpu).unwrap();
        let mut update = Update::new(&golden.train, &parameters, dtype, &Device::Cpu).unwrap();
        let mut triggered = average(json!({"kind": "nt-asgd", "non_monotone": 2}));
        let mut from_second = average(json!({"kind": "nt-asgd", "non_monotone": 2}));
        let mut half = average(json!({"kind": "ema", "decay": 0.5}));
        let mut exponential = average(json!({"kind": "ema", "decay": 0.9}));
        let windows = golden.tensor("curve.tokens");
        let losses = values(golden.tensor("losses"));
        let (count, rows, _) = windows.dims3().unwrap();
        let per_epoch = count / losses.len();
        let begins = golden.tensor("begins").to_vec1::<u32>().unwrap()[0] as usize;
        assert!(begins > per_epoch && begins + per_epoch < count);
        for step in 0..count {
            let window = windows.get(step).unwrap();
            let tokens = window.narrow(0, 0, rows - 1).unwrap();
            let targets = window.narrow(0, 1, rows - 1).unwrap();
            let state = model.zero_state(golden.train.batch_size).unwrap();
            let (nats, _) = model.nats(&tokens, &targets, &state, &Noise::none()).unwrap();
            let sums = Sums { nats: nats.detach(), tokens: targets.elem_count() as u64 };
            let at = Step { step: step as u64, rate: golden.train.learning_rate };
            apply(&mut update, &parameters, &summed(&nats), &sums, at);
            for average in [&mut triggered, &mut half, &mut exponential] {
                average.add(&parameters, &Applied::here()).unwrap();
            }
            if step != begins {
                from_second.add(&parameters, &Applied::here()).unwrap();
            }
            assert_eq!(
                triggered.steps().unwrap(),
                (step + 1).saturating_sub(begins) as u64,
                "after step {step}"
            );
            if (step + 1) % per_epoch == 0 {
                triggered.end_epoch(losses[step / per_epoch]);
                from_second.end_epoch(losses[step / per_epoch]);
            }
        }
        for (name, variable) in parameters.trained() {
            report.compare(&format!("after.{name}"), variable);
        }
        compare(&mut report, "mean", &triggered, &parameters);
        compare(&mut report, "mean_t0_0", &from_second, &parameters);
        compare(&mut report, "ema_half", &half, &parameters);
        compare(&mut report, "ema", &exponential, &parameters);
        assert!(report.wrong.is_empty(), "{dtype:?}:\n{}", report.wrong.join("\n"));
    }
}
