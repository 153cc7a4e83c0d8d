//! Numbers that are not finite: no update is made of them, nothing is saved of them, the step is named.

use super::assert_same;
use super::corruption::replace_tensor;
use crate::support::run::{PLAY, Place, states, stderr, stdout};
use candle_core::{DType, Device, Tensor};
use rhn::checkpoint;
use rhn::config::Resolved;
use rhn::data::DataDirectories;
use rhn::error::Error;
use rhn::run::RunDirectory;
use rhn::signals::Signals;
use rhn::storage::{load_tensors, save_tensors};
use rhn::task::language::{Language, NextToken};
use rhn::train::limits::Limits;
use rhn::train::step::Stepper;
use rhn::train::task::Task;
use rhn::train::trainer::Trainer;
use rhn::train::update::Saved;
use std::collections::BTreeMap;
use std::fs;

const BAD: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

fn language(place: &Place, settings: &[&str]) -> Language {
    let mut all = vec![format!("corpus.name={}", place.path("corpus.txt").display())];
    all.extend(settings.iter().map(ToString::to_string));
    let recipe = Resolved::new(place.path("tiny.toml").to_str().unwrap(), &all).unwrap().recipe;
    Language::prepare(recipe, &DataDirectories::new(None).unwrap(), None, DType::F32, &Device::Cpu).unwrap()
}

/// Everything that a step changes, as bytes.
fn all(stepper: &Stepper<NextToken>) -> [Vec<u8>; 3] {
    [stepper.parameters.tensors(), stepper.update.save().tensors, stepper.carried.save()]
        .map(|tensors| save_tensors(&tensors).unwrap())
}

fn saved(updates: u64, tensors: BTreeMap<String, Tensor>) -> Saved {
    Saved { updates, left_out: BTreeMap::new(), tensors }
}

fn step(language: &Language, stepper: &mut Stepper<NextToken>, step: u64) -> Result<(), Error> {
    stepper.step(&language.batch(0, 0)?, step, 0.01).map(drop)
}

/// The step fails by its number for a reason of this kind, and changes nothing.
#[track_caller]
fn assert_stopped(language: &Language, stepper: &mut Stepper<NextToken>, case: &str, reason: &str) {
    let before = all(stepper);
    match step(language, stepper, 6) {
        Err(error @ Error::NotFinite { step: 7, .. }) => {
            assert!(error.to_string().contains(reason), "{case}: {error}");
            assert!(error.to_string().contains("the update was not applied"), "{case}: {error}");
        }
        other => panic!("{case}: {other:?}"),
    }
    assert!(before == all(stepper), "{case}: something changed");
}

/// Tensors that do not share the variables' storage.
fn copies(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.copy().unwrap())).collect()
}

/// `tensors` with `value` in place of the last element of `name`.
fn poisoned(tensors: &BTreeMap<String, Tensor>, name: &str, value: f32) -> BTreeMap<String, Tensor> {
    poisoned_at(tensors, name, tensors[name].elem_count() - 1, value)
}

fn poisoned_at(
    tensors: &BTreeMap<String, Tensor>,
    name: &str,
    at: usize,
    value: f32,
) -> BTreeMap<String, Tensor> {
    let mut poisoned = copies(tensors);
    let mut values = tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values[at] = value;
    poisoned.insert(name.into(), Tensor::from_vec(values, tensors[name].dims(), &Device::Cpu).unwrap());
    poisoned
}

#[test]
fn a_weight_that_is_not_finite_stops_the_step_before_its_update() {
    let place = Place::new();
    for optimizer in ["sgd", "adam"] {
        let language = language(&place, &[&format!("train.optimizer={optimizer}")]);
        let good = language.stepper(None).unwrap().parameters.tensors();
        for name in good.keys() {
            for value in BAD {
                let mut stepper = language.stepper(None).unwrap();
                stepper.parameters.restore(&poisoned(&good, name, value)).unwrap();
                assert_stopped(&language, &mut stepper, &format!("{optimizer}, {name} {value}"), "");
            }
        }
    }
}

#[test]
fn a_state_of_the_lanes_that_is_not_finite_stops_the_step() {
    let place = Place::new();
    let language = language(&place, &[]);
    let mut stepper = language.stepper(None).unwrap();
    stepper.carried =
        stepper.carried.load(&poisoned(&stepper.carried.save(), "state.0.0", f32::NAN)).unwrap();
    assert_stopped(&language, &mut stepper, "state", "the loss is NaN");
}

#[test]
fn a_gradient_that_overflows_while_the_loss_does_not_stops_the_step() {
    let place = Place::new();
    let language = language(&place, &["train.dropout.output=0.0"]);
    let mut stepper = language.stepper(None).unwrap();
    let mut weights = copies(&stepper.parameters.tensors());
    // No input, no state: the logits are the bias. What flows back through the output's weights is too large.
    for name in ["core.0.input.weight", "core.0.recurrent.weight"] {
        weights.insert(name.into(), weights[name].zeros_like().unwrap());
    }
    let signs: Vec<f32> = (0..18 * 8).map(|at| if at % 2 == 0 { 3e38 } else { -3e38 }).collect();
    weights.insert("output.weight".into(), Tensor::from_vec(signs, (8, 18), &Device::Cpu).unwrap());
    stepper.parameters.restore(&weights).unwrap();
    assert_stopped(&language, &mut stepper, "gradient", "the gradient's norm is");
}

#[test]
fn a_moment_that_is_not_finite_stops_the_step_before_its_update() {
    let place = Place::new();
    for optimizer in ["adam", "adamw"] {
        let language = language(&place, &[&format!("train.optimizer={optimizer}")]);
        let mut good = language.stepper(None).unwrap();
        step(&language, &mut good, 5).unwrap();
        let Saved { updates, tensors: moments, .. } = good.update.save();
        for (name, tensor) in &moments {
            // The first element is a first moment, the last one a second.
            for at in [0, tensor.elem_count() - 1] {
                for value in BAD {
                    let mut stepper = language.stepper(None).unwrap();
                    stepper.update.load(saved(updates, poisoned_at(&moments, name, at, value)), 0).unwrap();
                    let update = format!("the update of {}", name.strip_prefix("moments.").unwrap());
                    assert_stopped(&language, &mut stepper, &format!("{name} {at} {value}"), &update);
                }
            }
        }
    }
}

#[test]
fn a_step_that_was_refused_can_be_made_when_the_cause_is_gone() {
    let place = Place::new();
    let language = language(&place, &[]);
    let [mut refused, mut left_alone] = [(); 2].map(|()| language.stepper(None).unwrap());
    let moments = copies(&refused.update.save().tensors);
    refused.update.load(saved(0, poisoned(&moments, "moments.core.0.bias", f32::NAN)), 0).unwrap();
    assert_stopped(&language, &mut refused, "moment", "core.0.bias");
    refused.update.load(saved(0, moments.clone()), 0).unwrap();
    for stepper in [&mut refused, &mut left_alone] {
        step(&language, stepper, 0).unwrap();
    }
    assert!(all(&refused) == all(&left_alone));
}

#[test]
fn a_moment_that_is_not_finite_never_reaches_the_disk() {
    let place = Place::new();
    let language = language(&place, &[]);
    for value in BAD {
        let mut stepper = language.stepper(None).unwrap();
        let moments = stepper.update.save().tensors;
        stepper.update.load(saved(3, poisoned(&moments, "moments.core.0.bias", value)), 0).unwrap();
        fs::create_dir_all(place.path("run")).unwrap();
        let directory = Box::new(RunDirectory::open(&place.path("run"), None).unwrap());
        let (signals, limits) = (Signals::listen().unwrap(), Limits::default());
        let mut trainer = Trainer::new(&language, stepper, directory, None, signals, limits).unwrap();
        let error = trainer.save().unwrap_err();
        assert_eq!(error.exit_code(), 5);
        assert!(error.to_string().contains("moments.core.0.bias"), "{error}");
        assert!(states(&place.path("run")).is_empty());
    }
}

#[test]
fn an_update_beyond_the_weights_type_stops_the_step() {
    let place = Place::new();
    for (optimizer, rate) in [("sgd", 1e39), ("adam", 1e39), ("adamw", 1e39)] {
        let language = language(&place, &[&format!("train.optimizer={optimizer}")]);
        let mut stepper = language.stepper(None).unwrap();
        let before = all(&stepper);
        let error = stepper.step(&language.batch(0, 0).unwrap(), 0, rate).unwrap_err();
        assert!(error.to_string().starts_with("step 1: the update of core.0.bias is not finite"), "{error}");
        assert!(before == all(&stepper));
    }
}

#[test]
fn a_perplexity_that_no_double_holds_is_said_to_be_that() {
    let place = Place::new();
    place.train("--out run --max-steps 1");
    let mut bias = vec![0f32; 18];
    bias[3] = 1e4; // 10,000 nats for every other character
    replace_tensor(&place.path("run"), "output.bias", Some(Tensor::new(bias, &Device::Cpu).unwrap()));
    let gently = "--init-from run --set train.learning_rate=1e-9 --max-steps 1000";
    let said = [
        place.rhn("eval run"),
        place.rhn(&format!("train tiny.toml --out other {gently}")),
        place.rhn("inspect other"),
    ];
    for output in said {
        let text = stdout(&output);
        assert!(text.contains("over 1e308") && !text.contains("NaN"), "{text}{}", stderr(&output));
    }
    let json: serde_json::Value = serde_json::from_slice(&place.rhn("eval run --json").stdout).unwrap();
    assert!(json["nats_per_token"].as_f64().unwrap() > 1000.0 && json["perplexity"].is_null(), "{json}");
}

/// A text of words with a word that the weights of `poisoned-start` make overflow wherever it is kept: embeddings at
/// the edge of single precision, doubled by a dropout rate of one half.
fn minefield() -> Place {
    let place = Place::new();
    let play = PLAY.repeat(4);
    for (split, text) in [
        ("train", format!("{play}boom {play}{play}{play}boom\n{play}")),
        ("valid", play.clone()),
        ("test", play),
    ] {
        place.write(&format!("splits/{split}.txt"), text);
    }
    place.train(&format!("--out start {MINES} --max-steps 1"));
    let out = place.path("start");
    let read = |name: &str| fs::read(out.join(name)).unwrap();
    let tokenizer = rhn::data::Tokenizer::load(&out.join(rhn::storage::TOKENIZER)).unwrap();
    let boom = tokenizer.words().iter().position(|word| word == "boom").unwrap();
    let mut weights = load_tensors(&out, &read(rhn::storage::MODEL), &Device::Cpu).unwrap();
    let table = &weights["embedding.weight"];
    let (types, size) = table.dims2().unwrap();
    let mut values = table.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values[boom * size..(boom + 1) * size].fill(3e38);
    weights.insert("embedding.weight".into(), Tensor::from_vec(values, (types, size), &Device::Cpu).unwrap());
    let mut files: Vec<(&str, Vec<u8>)> =
        [rhn::storage::CONFIG, rhn::storage::TOKENIZER, rhn::storage::RECIPE]
            .map(|name| (name, read(name)))
            .into();
    files.push((rhn::storage::MODEL, save_tensors(&weights).unwrap()));
    checkpoint::publish(&place.path("poisoned-start"), &files).unwrap();
    place
}

const MINES: &str = "--corpus splits --set corpus.unit=word --set train.dropout={input=0.5} --set train.epochs=2 \
    --set train.max_grad_norm=5.0 --set train.bptt_steps=4";

#[test]
fn a_step_that_is_not_finite_stops_the_run_by_its_number_and_keeps_the_last_good_state() {
    let place = minefield();
    let run = format!("train tiny.toml --out run {MINES} --set train.save_minutes=0");
    place.fails(&format!("{run} --init-from poisoned-start"), 5, &["step ", "the update was not applied"]);
    let kept = place.newest("run");
    place.fails(&format!("{run} --resume"), 5, &["step "]); // it is no accident
    assert_eq!(kept, place.newest("run"));
    place.train(&format!("--out run {MINES} --resume --on-non-finite skip")); // and may be passed over
    assert!(place.json("run/result.json")["skipped_steps"].as_u64().unwrap() > 0);
    // What was saved last is the step before, not one of some minutes ago.
    let stopped = format!("train tiny.toml --out stopped {MINES}");
    place.fails(&format!("{stopped} --init-from poisoned-start"), 5, &["step "]);
    let first = place.events("run", "skip")[0]["step"].as_u64().unwrap();
    assert!(place.newest("stopped").ends_with(format!("step-{:010}", first - 1)));
    place.rhn(&format!("{stopped} --resume --on-non-finite skip"));
    place.train(&format!("--out whole {MINES} --init-from poisoned-start --on-non-finite skip"));
    assert_same(&place, "whole", "stopped");
}

#[test]
fn skipped_steps_are_counted_and_a_run_in_pieces_skips_the_same() {
    let place = minefield();
    let skip = format!("{MINES} --on-non-finite skip");
    let message = place.train(&format!("--out whole {skip} --init-from poisoned-start"));
    let skips = place.events("whole", "skip");
    assert!(skips.len() >= 2 && message.contains(": skipped, 1 so far"), "{message}");
    assert_eq!(place.json("whole/result.json")["skipped_steps"], skips.len());
    assert_eq!(place.events("whole", "epoch").last().unwrap()["skipped_steps"], skips.len());
    let steps = place.json("whole/result.json")["steps"].as_u64().unwrap();
    place.train(&format!("--out pieces {skip} --init-from poisoned-start --max-steps 3"));
    for stop in (5..steps).step_by(9) {
        place.train(&format!("--out pieces {skip} --resume --max-steps {stop}"));
    }
    place.train(&format!("--out pieces {skip} --resume"));
    assert_same(&place, "whole", "pieces");
    assert_eq!(skips, place.events("pieces", "skip"));
}

#[test]
fn an_epoch_whose_steps_were_all_skipped_has_no_training_loss() {
    let place = minefield();
    for (split, text) in
        [("train", PLAY.replace(' ', " boom ")), ("valid", PLAY.repeat(4)), ("test", PLAY.repeat(4))]
    {
        place.write(&format!("mined/{split}.txt"), text);
    }
    let mined = MINES.replace("--corpus splits", "--corpus mined");
    place.train(&format!("--out run {mined} --init-from poisoned-start --on-non-finite skip"));
    let epochs = place.events("run", "epoch");
    for epoch in &epochs {
        assert_eq!(epoch["skipped_steps"], epoch["step"], "{epoch}");
        assert_eq!(
            [&epoch["train_nats_per_token"], &epoch["grad_norm"]],
            [&serde_json::Value::Null; 2],
            "{epoch}"
        );
        assert!(epoch["valid_nats_per_token"].is_f64(), "{epoch}");
    }
    assert_eq!(epochs.len(), 2);
}

#[test]
fn skipping_has_its_bound() {
    let place = minefield();
    let run = format!("train tiny.toml --out run {MINES} --init-from poisoned-start --on-non-finite skip");
    let parts = ["1 step skipped before", "train.max_skipped_steps"];
    place.fails(&format!("{run} --set train.max_skipped_steps=1"), 5, &parts);
    assert_eq!(place.events("run", "skip").len(), 1);
    place.fails("train tiny.toml --on-non-finite ignore", 2, &["wanted stop or skip"]);
}
