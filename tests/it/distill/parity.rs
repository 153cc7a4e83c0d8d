//! Against PyTorch: `reference/make_distill.py` writes what students are taught, and gates that learn alone.

use crate::gradcheck::check_by_differences;
use crate::parity::{Golden, Report, apply, assert_each_is_tested, values};
use candle_core::{DType, Device, Tensor};
use rhn::config::ModelConfig;
use rhn::model::{LanguageModel, Parameters, State};
use rhn::task::language::{NextToken, Window, WindowNoise};
use rhn::task::teachers::{Teacher, Teachers};
use rhn::train::objective::Objective;
use rhn::train::update::{Step, Update};
use std::path::{Path, PathBuf};

/// `sentence: "file"`: one test a golden file.
macro_rules! golden {
    ($($sentence:ident: $file:literal,)*) => {
        const FILES: &[&str] = &["gates", $($file),*];
        $(#[test] fn $sentence() { agrees_with_pytorch($file) })*
    };
}

golden! {
    a_student_of_one_teacher_equals_pytorch: "whole",
    a_temperature_equals_pytorch: "temperature",
    the_most_probable_words_and_the_rest_equal_pytorch: "top-k",
    the_mean_of_two_teachers_equals_pytorch: "two-teachers",
    the_mean_over_dropout_passes_of_a_teacher_equals_pytorch: "monte-carlo",
    a_student_with_a_mixture_of_softmaxes_equals_pytorch: "mixture",
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/distill")
}

fn golden(file: &str) -> Golden {
    Golden::read(&folder().join(format!("{file}.safetensors")))
}

#[test]
fn every_golden_file_has_its_test() {
    assert_each_is_tested(&folder(), FILES);
}

/// The student's objective and its weights, and the masks of any window.
struct Student {
    objective: NextToken,
    parameters: Parameters,
    noise: WindowNoise,
}

impl Student {
    fn new(golden: &Golden, dtype: DType) -> Self {
        let parameters = golden.parameters(dtype);
        let parameters = parameters.update_only(golden.train.update, &golden.config.spec).unwrap();
        let model = LanguageModel::new(&golden.config, &parameters, dtype, &Device::Cpu).unwrap();
        let configs: Vec<ModelConfig> = serde_json::from_str(&golden.metadata["teachers"]).unwrap();
        let teacher = |(index, config): (usize, &ModelConfig)| {
            let weights = golden.parameters_of(&format!("teacher.{index}.param."), config, dtype);
            let model = LanguageModel::new(config, &weights, dtype, &Device::Cpu).unwrap();
            Teacher {
                name: format!("teacher-{index}"),
                sha256: String::new(),
                model: model.freeze().unwrap(),
                dropout: Default::default(),
            }
        };
        let settings = golden.train.loss.distill().unwrap();
        let teachers =
            Teachers::new(configs.iter().enumerate().map(teacher).collect(), settings.clone()).unwrap();
        let masks = |index: usize| golden.masks_of(&format!("teacher.{index}.mask"), dtype, None);
        let noise = WindowNoise {
            first: golden.masks_of("mask", dtype, None),
            teachers: (0..configs.len()).map(masks).collect(),
            ..WindowNoise::default()
        };
        Self { objective: NextToken::new(model, &golden.train).taught_by(Some(teachers)), parameters, noise }
    }
}

fn windows(golden: &Golden) -> Vec<Window> {
    let stream = golden.tensor("stream");
    let steps = golden.train.bptt_steps;
    let part = |start: usize| stream.narrow(0, start, steps).unwrap();
    let starts = (0..stream.dims()[0] - 1).step_by(steps);
    starts.map(|start| Window { inputs: part(start), targets: part(start + 1) }).collect()
}

fn agrees_with_pytorch(file: &str) {
    let golden = golden(file);
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-5)] {
        let mut report = Report { golden: &golden, dtype, tolerance, wrong: Vec::new() };
        every_step(&golden, dtype, &mut report);
        assert!(report.wrong.is_empty(), "{file} in {dtype:?}:\n{}", report.wrong.join("\n"));
    }
}

/// Each window's loss, objective, norm and teacher's loss, and the weights after the last update; what the rule remembers.
fn every_step(golden: &Golden, dtype: DType, report: &mut Report<'_>) -> Update {
    let Student { objective, parameters, noise } = Student::new(golden, dtype);
    let mut update = Update::new(&golden.train, &parameters, dtype, &Device::Cpu).unwrap();
    let mut state = objective.zero_state().unwrap();
    let mut curves = [vec![], vec![], vec![], vec![]];
    for (step, window) in (0..).zip(windows(golden)) {
        let loss = objective.loss(&window, &state, &noise).unwrap();
        let per_token = |nats: &Tensor| values(nats).iter().sum::<f64>() / loss.sums.tokens as f64;
        curves[0].push(per_token(&loss.sums.nats));
        curves[1].push(values(&loss.objective)[0]);
        curves[3].push(per_token(loss.teacher.as_ref().unwrap()));
        let step = Step { step, rate: golden.train.learning_rate };
        curves[2].push(apply(&mut update, &parameters, &loss.objective, &loss.sums, step));
        state = loss.carried.detach();
    }
    let names = ["curve", "curve.objective", "curve.grad_norm", "curve.teacher"];
    for (name, curve) in names.into_iter().zip(curves) {
        report.compare(name, &Tensor::new(curve, &Device::Cpu).unwrap());
    }
    for (name, tensor) in parameters.tensors() {
        report.compare(&format!("after.{name}"), &tensor);
    }
    update
}

/// PyTorch's optimizer had the gates' columns alone; here they are a part of their tensors, and so are the moments.
#[test]
fn gates_that_learn_alone_and_their_moments_equal_pytorch() {
    let golden = golden("gates");
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-5)] {
        let mut report = Report { golden: &golden, dtype, tolerance, wrong: Vec::new() };
        let update = every_step(&golden, dtype, &mut report);
        let moments = update.save().tensors;
        assert_eq!(moments.len(), 3, "{:?}", moments.keys()); // input and recurrent weights, biases
        moments.iter().for_each(|(name, tensor)| report.compare(name, tensor));
        assert!(report.wrong.is_empty(), "{dtype:?}:\n{}", report.wrong.join("\n"));
    }
}

#[test]
fn a_student_s_objective_has_the_gradient_of_central_differences() {
    for file in ["temperature", "top-k"] {
        let golden = golden(file);
        let Student { objective, parameters, noise } = Student::new(&golden, DType::F64);
        let entering = |part: &Tensor| (part + 0.3).unwrap();
        let zero = objective.zero_state().unwrap();
        let state = State(zero.0.iter().map(|layer| layer.iter().map(entering).collect()).collect());
        let window = &windows(&golden)[1];
        let loss = || objective.loss(window, &state, &noise).unwrap().objective;
        let gradients = loss().backward().unwrap();
        for (name, var) in parameters.trained() {
            check_by_differences(name, var, &values(gradients.get(var).unwrap()), || values(&loss())[0]);
        }
    }
}
