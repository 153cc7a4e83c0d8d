//! What a recipe can add to training acts there and nowhere else, and a run with it knows its steps.

use crate::support::run;
use candle_core::{DType, Device, Tensor};
use rhn::config::Resolved;
use rhn::data::{DataDirectories, registry::Registry};
use rhn::parallel::world::Solo;
use rhn::task::language::{Language, NextToken};
use rhn::train::objective::Objective;
use rhn::train::step::Stepper;
use rhn::train::task::Task;
use run::{PLAY, Place, stdout};

/// Each of them in a recipe with some dropout.
const EACH: [&str; 8] = [
    "train.activation.ar=2.0",
    "train.activation.tar=1.0",
    "train.window=variable",
    "train.dropout.embedding=0.5",
    "train.fraternal.kappa=0.15",
    "train.fraternal={variant='eld',kappa=0.25}",
    "train.fraternal.variant=pi",
    "train.state_reset=0.9",
];

/// The text of the tests by characters into a small RHN.
fn language(settings: &[&str]) -> Language {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("play.txt");
    std::fs::write(&corpus, PLAY.repeat(20)).unwrap();
    let corpus = format!("corpus.name={}", corpus.display());
    let small = [
        corpus.as_str(),
        "train.batch_size=2",
        "train.bptt_steps=12",
        "model.core.hidden_size=8",
        "model.core.recurrence_depth=2",
        "train.dropout={input=0.2,output=0.3}",
    ];
    let all: Vec<String> = small.iter().chain(settings).map(ToString::to_string).collect();
    let recipe = Resolved::new("shakespeare", &all).unwrap().recipe;
    let directories = DataDirectories::only(folder.path(), Registry::built_in());
    Language::prepare(recipe, &directories, None, DType::F64, &Device::Cpu).unwrap()
}

/// Some steps, and the nats per token of the first.
fn stepped(language: &Language, steps: usize) -> (Stepper<NextToken>, f64) {
    let mut stepper = language.stepper(None).unwrap();
    let step = |step| {
        let report = stepper.step(&language.batch(0, step).unwrap(), step as u64, 0.01).unwrap();
        report.nats / report.tokens as f64
    };
    let nats: Vec<f64> = (0..steps).map(step).collect();
    (stepper, nats[0])
}

fn weights(stepper: &Stepper<NextToken>) -> Vec<f64> {
    let values = |(_, var): (_, &candle_core::Var)| var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    stepper.parameters.trained().flat_map(values).collect()
}

#[test]
fn each_acts_in_training_and_none_in_evaluation() {
    let plain = language(&[]);
    let (stepper, first) = stepped(&plain, 4);
    let valid = |language: &Language| {
        language.validate(&stepper.parameters, &Solo, &mut |_, _| Ok(())).unwrap().nats_per_token
    };
    let measured = valid(&plain);
    for setting in EACH {
        let other = language(&[setting]);
        let (other_stepper, other_first) = stepped(&other, 4);
        assert_ne!(weights(&stepper), weights(&other_stepper), "{setting}");
        assert_eq!(measured, valid(&other), "{setting}");
        // What is added to the loss is not reported: the first step has the same weights, masks and state.
        let changes_what_is_read = setting.contains("window") || setting.contains("dropout");
        assert_eq!(first == other_first, !changes_what_is_read, "{setting}: {first} and {other_first}");
    }
}

#[test]
fn a_rate_of_zero_is_the_run_without_it() {
    let (plain, _) = stepped(&language(&[]), 3);
    for setting in
        ["train.activation={ar=0.0,tar=0.0}", "train.state_reset=0.0", "train.dropout.embedding=0.0"]
    {
        let (other, _) = stepped(&language(&[setting]), 3);
        assert_eq!(weights(&plain), weights(&other), "{setting}");
    }
}

#[test]
fn the_state_is_zero_in_as_many_windows_as_asked_for_and_in_the_same_each_time() {
    let language = language(&["train.state_reset=0.25"]);
    let objective = language.stepper(None).unwrap().objective;
    let window = language.batch(0, 0).unwrap();
    let resets = |steps: std::ops::Range<u64>| -> Vec<bool> {
        steps.map(|step| objective.noise(&window, step).unwrap().resets_state).collect()
    };
    let all = resets(0..1000);
    let count = all.iter().filter(|&&resets| resets).count();
    assert!((190..310).contains(&count), "{count}"); // 250 ± 4.4 deviations
    assert_eq!(all[400..], resets(400..1000));
    let zero = objective.zero_state().unwrap();
    let carried = |part: &Tensor| (part + 0.5).unwrap();
    let carried = rhn::model::State(zero.0.iter().map(|layer| layer.iter().map(carried).collect()).collect());
    let loss = |state, step| {
        let noise = objective.noise(&window, step).unwrap();
        objective.loss(&window, state, &noise).unwrap().objective.to_scalar::<f64>().unwrap()
    };
    for (step, &is_reset) in (0..20).zip(&all) {
        assert_eq!(loss(&zero, step) == loss(&carried, step), is_reset, "step {step}");
    }
}

#[test]
fn a_run_with_drawn_windows_knows_the_steps_of_each_epoch_and_of_the_whole() {
    let language = language(&["train.window=variable", "train.epochs=4"]);
    let counts: Vec<usize> = (0..4).map(|epoch| language.batch_count(epoch)).collect();
    assert!(counts.iter().any(|&count| count != counts[0]), "{counts:?}");
    assert_eq!(language.total_steps(), counts.iter().sum::<usize>() as u64);
    let place = Place::new();
    place.train(
        "--out run --set train.window=variable --set train.evaluate_steps=7 \
         --set train.schedule={kind=\"cosine\",final_fraction=0.1}",
    );
    let epochs = place.events("run", "epoch");
    let step = |index: usize| epochs[index]["step"].as_u64().unwrap();
    assert_eq!(place.events("run", "start")[0]["steps_per_epoch"], step(0));
    assert_ne!(step(1), 2 * step(0), "epochs of different lengths");
    let evaluated = place.events("run", "evaluation");
    assert!(evaluated.iter().all(|row| row["step"].as_u64().unwrap() % 7 == 0) && evaluated.len() > 5);
    let total = step(2) as f64; // the cosine reaches its end with the last step, whose rate is the one before that
    let wave = 0.5 * (1.0 + (std::f64::consts::PI * (total - 1.0) / total).cos());
    let rate = epochs[2]["learning_rate"].as_f64().unwrap();
    assert!((rate - 0.01 * (0.1 + 0.9 * wave)).abs() < 1e-15, "{rate}");
    assert!(
        stdout(&place.rhn("train tiny.toml --dry-run --set train.window=variable"))
            .contains("in the first epoch")
    );
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let place = Place::new();
    for (setting, part) in [
        ("activation.ar=-1", "activation.ar is -1, wanted 0 or more"),
        ("activation.tar=inf", "activation.tar is inf"),
        ("activation.br=1", "train.activation.br: unknown field"),
        ("window=long", "unknown variant"),
        ("state_reset=1", "state_reset is 1, wanted a probability 0 ≤ p < 1"),
        ("dropout.embedding=1", "train.dropout.embedding is 1, wanted a dropout rate"),
        ("fraternal.kappa=-0.5", "fraternal.kappa is -0.5"),
        ("fraternal.variant=twins", "unknown variant"),
    ] {
        place.fails(&format!("train tiny.toml --out run --set train.{setting}"), 2, &[part]);
    }
    let none = "--set train.dropout={} --set train.fraternal.kappa=0.15";
    place.fails(&format!("train tiny.toml --out run {none}"), 2, &["train.dropout drops none"]);
    let zero = "--set train.dropout={input=0.0,between=0.0,output=0.0} --set train.fraternal.kappa=0.15";
    place.fails(&format!("train tiny.toml --out run {zero}"), 2, &["train.dropout drops none"]);
    assert!(!place.path("run").exists());
    for setting in [
        "window=variable",
        "activation.ar=1",
        "fraternal.kappa=1",
        "state_reset=0.1",
        "dropout.embedding=0.1",
    ] {
        let key = setting.split(['=', '.']).next().unwrap();
        let images = "train mnist-highway --out run --set train.dropout.input=0.1";
        place.fails(&format!("{images} --set train.{setting}"), 2, &[key, "is for text"]);
    }
}
