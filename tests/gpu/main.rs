//! A GPU beside the CPU: masks, losses, every gradient, updates, what is not finite, a short training.
//!
//! Where no GPU is found each test says so and is passed over. `scripts/gpu-check.sh` runs them where there is one.

#[path = "../it/support/shrunk.rs"]
mod shrunk;

use candle_core::{Device, Tensor};
use rhn::bench::subject::Subject;
use rhn::config::DropoutKind;
use rhn::data::{DataDirectories, registry::Registry};
use rhn::error::Error;
use rhn::model::Noise;
use rhn::task::language::{Language, NextToken, Window};
use rhn::train::step::Stepper;
use rhn::train::task::Task;
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::HiddenMask;
use shrunk::shrunk;
use std::collections::BTreeMap;
use std::path::Path;

/// Recipes, units: odd ones, those of whole tiles, the paper's.
const MODELS: [(&str, usize); 7] = [
    ("ptb-rhn", 7),
    ("ptb-rhn", 130),
    ("ptb-rhn", 830),
    ("enwik8-rhn", 64),
    ("ptb-rhn-untied", 33),
    ("ptb-char-cnn-small", 48),
    ("ptb-char-cnn-rhn", 20),
];

/// Settings on a small recipe, of parts that go step by step or in blocks of rows on any device.
const PARTS: [&[&str]; 3] = [
    &[
        "model.output={kind=\"mixture\",components=3,tied=true}",
        "model.embedding.size=8",
        "train.dropout.components=0.3",
    ],
    &["train.dropout.recurrent_weights=0.4"],
    &["model.core.mogrifier={rounds=5,rank=4}"],
];

/// The first GPU, if this build can use one and it is there.
fn gpu() -> Option<Device> {
    #[cfg(feature = "cuda")]
    match rhn_kernels::cuda::device::open(0) {
        Ok(device) => return Some(device),
        Err(error) => eprintln!("skipped: {error}"),
    }
    #[cfg(not(feature = "cuda"))]
    eprintln!("skipped: this build has no CUDA");
    None
}

fn language(
    recipe: &str,
    hidden: usize,
    settings: &[&str],
    precision: Precision,
    device: &Device,
) -> Language {
    let directories = DataDirectories::only(Path::new("no such directory"), Registry::built_in());
    let with = |before: &[&str]| shrunk(recipe, hidden, &[before, settings].concat());
    let recipe = match with(&[]).train.dropout.kind {
        DropoutKind::Variational => with(&["train.dropout.word=0.2"]),
        DropoutKind::PerStep => with(&[]), // words are not dropped there
    };
    Subject::prepare(recipe, &directories, precision, device).unwrap().language
}

fn window(language: &Language, index: usize) -> Window {
    language.batch(0, index % language.batch_count(0)).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let host = tensor.to_device(&Device::Cpu).unwrap().to_dtype(candle_core::DType::F64).unwrap();
    host.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference over the largest number; infinite if anything is not finite.
fn distance(found: &[f64], wanted: &[f64]) -> f64 {
    let finite = found.len() == wanted.len() && found.iter().chain(wanted).all(|value| value.is_finite());
    if !finite {
        return f64::INFINITY;
    }
    let largest = wanted.iter().fold(1e-30f64, |largest, value| largest.max(value.abs()));
    found.iter().zip(wanted).map(|(found, wanted)| (found - wanted).abs()).fold(0.0, f64::max) / largest
}

#[track_caller]
fn assert_near(what: &str, found: &Tensor, wanted: &Tensor, tolerance: f64) {
    let distance = distance(&numbers(found), &numbers(wanted));
    assert!(distance <= tolerance, "{what}: {distance:e} where {tolerance:e} is allowed");
}

/// Nats and every gradient of a window, by name.
fn gradients(stepper: &Stepper<NextToken>, window: &Window) -> BTreeMap<String, Tensor> {
    let Window { inputs, targets } = window;
    let objective = &stepper.objective;
    let masks = objective.noise.draw(inputs, 5, 5).unwrap();
    let (nats, state) = objective.model.nats(inputs, targets, &stepper.carried, &masks).unwrap();
    let mut grads = nats.sum_all().unwrap().backward().unwrap();
    let of = |(name, var): (&str, &candle_core::Var)| {
        let grad = grads.remove(var).unwrap_or_else(|| panic!("{name} receives no gradient"));
        (name.to_string(), grad)
    };
    let mut all: BTreeMap<String, Tensor> = stepper.parameters.trained().map(of).collect();
    all.extend(state.detach().save());
    all.insert("nats".into(), nats.detach());
    all
}

fn compare_gradients(precision: Precision, exact: Precision, tolerance: f64) {
    let Some(device) = gpu() else { return };
    let none: &[&str] = &[];
    let models = MODELS.map(|(recipe, hidden)| (recipe, hidden, none));
    for (recipe, hidden, settings) in models.into_iter().chain(PARTS.map(|part| ("ptb-rhn", 20, part))) {
        let [there, here] = [(precision, &device), (exact, &Device::Cpu)].map(|(precision, device)| {
            let language = language(recipe, hidden, settings, precision, device);
            gradients(&language.stepper(None).unwrap(), &window(&language, 3))
        });
        assert_eq!(there.keys().collect::<Vec<_>>(), here.keys().collect::<Vec<_>>());
        for (name, found) in &there {
            assert_near(&format!("{recipe} {hidden} {settings:?} {name}"), found, &here[name], tolerance);
        }
    }
}

#[test]
fn losses_and_gradients_are_the_cpus() {
    compare_gradients(Precision::F32, Precision::F64, 1e-4);
}

#[test]
fn losses_and_gradients_in_double_precision_are_the_cpus() {
    compare_gradients(Precision::F64, Precision::F64, 1e-9);
}

#[test]
fn rounded_products_are_near() {
    compare_gradients(Precision::Tf32, Precision::F64, 2e-2); // operands of 2^-11
    compare_gradients(Precision::Bf16, Precision::F64, 5e-2); // operands of 2^-9, through all time steps
}

fn mask_tensors(masks: &Noise) -> Vec<Tensor> {
    let hidden = masks.hidden.iter().flat_map(|mask| match mask {
        HiddenMask::None => vec![],
        HiddenMask::Shared(mask) => vec![mask.clone()],
        HiddenMask::Separate { h, t } => vec![h.clone(), t.clone()],
    });
    let others = masks.input.iter().chain([&masks.word, &masks.output]).flatten().cloned();
    hidden.chain(others).collect()
}

#[test]
fn masks_are_the_same_bits() {
    let Some(device) = gpu() else { return };
    let per_step = ["kind=per-step", "word=0", "hidden=0"].map(|key| format!("train.dropout.{key}"));
    for (settings, least) in [(vec![], 4), (per_step.iter().map(String::as_str).collect(), 2)] {
        let [there, here] = [&device, &Device::Cpu].map(|device| {
            let language = language("ptb-rhn", 130, &settings, Precision::F32, device);
            let masks = language
                .stepper(None)
                .unwrap()
                .objective
                .noise
                .draw(&window(&language, 1).inputs, 6, 9)
                .unwrap();
            mask_tensors(&masks)
        });
        assert_eq!((there.len(), here.len()), (least, least));
        for (found, wanted) in there.iter().zip(&here) {
            assert_eq!(numbers(found), numbers(wanted));
        }
    }
}

/// `count` steps; each loss and norm, and all weights at the end.
fn train(language: &Language, count: u64, rate: f64) -> (Vec<[f64; 2]>, BTreeMap<String, Tensor>) {
    let mut stepper = language.stepper(None).unwrap();
    let mut told = Vec::new();
    for step in 0..count {
        stepper.advance(&window(language, step as usize), step, rate).unwrap();
        told.extend(stepper.reports(false).unwrap());
    }
    told.extend(stepper.reports(true).unwrap());
    let told: Vec<_> = told.into_iter().map(|report| report.unwrap()).collect();
    assert!(told.iter().zip(0..).all(|(report, step)| report.step == step) && told.len() == count as usize);
    let pair =
        |report: &rhn::train::update::StepReport| [report.nats / report.tokens as f64, report.grad_norm];
    (told.iter().map(pair).collect(), stepper.parameters.tensors())
}

#[test]
fn updates_are_the_cpus() {
    let Some(device) = gpu() else { return };
    for (optimizer, rate) in [("sgd", 0.2), ("adam", 1e-3), ("adamw", 1e-3)] {
        let settings = [format!("train.optimizer={optimizer}"), "train.weight_decay=1e-3".into()];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let [there, here] = [&device, &Device::Cpu]
            .map(|device| train(&language("ptb-rhn", 40, &settings, Precision::F64, device), 20, rate));
        for (name, wanted) in &here.1 {
            assert_near(&format!("{optimizer} {name}"), &there.1[name], wanted, 1e-8);
        }
    }
}

#[test]
fn a_short_training_is_the_cpus() {
    let Some(device) = gpu() else { return };
    for (recipe, hidden) in [("shakespeare", 64), ("ptb-rhn", 40), ("ptb-char-cnn-small", 24)] {
        let settings = ["train.optimizer=adam"];
        let [there, here] = [&device, &Device::Cpu]
            .map(|device| train(&language(recipe, hidden, &settings, Precision::F32, device), 50, 2e-3).0);
        assert!(here[49][0] < here[0][0], "{recipe} learned nothing");
        for (step, (found, wanted)) in there.iter().zip(&here).enumerate() {
            let near = distance(&found[..1], &wanted[..1]) < 2e-3; // rounding grows with the steps
            assert!(near, "{recipe}, step {step}: {found:?} where the CPU has {wanted:?}");
        }
    }
}

#[test]
fn the_same_run_gives_the_same_bits() {
    let Some(device) = gpu() else { return };
    for precision in [Precision::F32, Precision::Bf16] {
        let run = || train(&language("ptb-rhn", 130, &[], precision, &device), 20, 0.2);
        let [(losses, weights), (again, same)] = [run(), run()];
        assert_eq!(losses, again);
        for (name, tensor) in weights {
            assert_eq!(numbers(&tensor), numbers(&same[&name]), "{name}");
        }
    }
}

#[test]
fn a_step_that_is_not_finite_changes_nothing_and_is_named() {
    let Some(device) = gpu() else { return };
    let settings = ["train.optimizer=sgd", "train.max_grad_norm=0"];
    let language = language("ptb-rhn", 40, &settings, Precision::F32, &device);
    let mut stepper = language.stepper(None).unwrap();
    let mut all = Vec::new();
    for step in 0..20 {
        let rate = if step == 5 { 1e39 } else { 0.1 }; // more than single precision holds
        stepper.advance(&window(&language, step as usize), step, rate).unwrap();
        all.extend(stepper.reports(false).unwrap());
    }
    all.extend(stepper.reports(true).unwrap());
    let whole = all.iter().filter(|report| report.is_ok()).count();
    assert_eq!((whole, all.len()), (5, 6));
    assert!(matches!(all[5], Err(Error::NotFinite { step: 6, .. })), "{:?}", all[5]);
    let wanted = train(&language, 5, 0.1).1;
    for (name, tensor) in stepper.parameters.tensors() {
        assert_eq!(numbers(&tensor), numbers(&wanted[&name]), "{name}");
    }
}

/// With one rank a sum is what it is of; the second step begins its sums while its backward pass goes on.
#[cfg(feature = "nccl")]
#[test]
fn a_sum_over_one_rank_by_nccl_is_the_gradient() {
    use rhn::parallel::nccl::Nccl;
    use rhn::parallel::reduce::{Own, Reducer};
    use rhn::parallel::world::{Solo, World};
    use std::sync::Arc;
    let Some(device) = gpu() else { return };
    let Device::Cuda(cuda) = &device else { return };
    let ranks: Arc<dyn World> = Arc::new(Nccl::join(Arc::new(Solo), cuda).unwrap());
    assert!(ranks.adds_up_on(&device) && !ranks.adds_up_on(&Device::Cpu));
    for (recipe, precision) in [("ptb-rhn", Precision::F32), ("ptb-char-cnn-small", Precision::F64)] {
        let language = language(recipe, 130, &[], precision, &device);
        let stepper = language.stepper(None).unwrap();
        let Window { inputs, targets } = window(&language, 3);
        let masks = stepper.objective.noise.draw(&inputs, 5, 5).unwrap();
        let objective = || {
            let model = &stepper.objective.model;
            let (nats, _) = model.nats(&inputs, &targets, &stepper.carried, &masks).unwrap();
            nats.sum_all().unwrap()
        };
        let wanted = stepper.parameters.gradients(&objective()).unwrap();
        let mut reducer = Reducer::new(ranks.clone());
        for step in 0..2 {
            let objective = objective();
            let own = Own { objective: &objective, reported: [1.5, 0.0, 7.0] };
            let (summed, error) = reducer.sum(&stepper.parameters, Some(own)).unwrap();
            assert!(error.is_none() && !summed.has_failed);
            assert_eq!(summed.reported, [1.5, 0.0, 7.0]);
            let names = stepper.parameters.trained().map(|(name, _)| name);
            for ((name, found), wanted) in names.zip(summed.gradients).zip(&wanted) {
                let found = found.unwrap().dense().unwrap();
                assert_eq!(numbers(&found), numbers(wanted), "{recipe} {name} in step {step}");
            }
        }
    }
}
