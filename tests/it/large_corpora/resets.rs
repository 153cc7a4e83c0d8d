//! A state that goes back to zero at each sentence's start: the same numbers and gradients as sentence by sentence.

use crate::support::run::PLAY;
use candle_core::{DType, Device, Tensor};
use rhn::config::Resolved;
use rhn::data::{DataDirectories, registry::Registry};
use rhn::model::{Noise, State};
use rhn::task::language::{Language, NextToken, Window};
use rhn::train::objective::Objective;
use rhn::train::step::Stepper;
use rhn::train::task::Task;

const CORES: [&str; 5] = [
    "model.core.layers=2",
    "model.core={kind='lstm',layers=2,hidden_size=7}",
    "model.core={kind='lstm',layers=1,hidden_size=7,projection=4}",
    "model.core={kind='gru',layers=2,hidden_size=7}",
    "model.core={kind='hlstm',layers=2,hidden_size=7,variant='zhang'}",
];

/// Lines of 19 and 27 characters in windows of 12, so that windows have one sentence, two, or parts of them.
fn language(settings: &[&str]) -> Language {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("play.txt");
    std::fs::write(&corpus, format!("{PLAY}a\n\nbe so\n").repeat(20)).unwrap();
    let corpus = format!("corpus.name={}", corpus.display());
    let small = [
        corpus.as_str(),
        "corpus.sentences=reset",
        "train.batch_size=3",
        "train.bptt_steps=12",
        "model.core.hidden_size=8",
        "model.core.recurrence_depth=2",
    ];
    let core = settings.iter().any(|setting| setting.starts_with("model.core={"));
    let small = small.into_iter().filter(|setting| !core || !setting.starts_with("model.core"));
    let all: Vec<String> = small.chain(settings.iter().copied()).map(str::to_owned).collect();
    let recipe = Resolved::new("shakespeare", &all).unwrap().recipe;
    let directories = DataDirectories::only(folder.path(), Registry::built_in());
    Language::prepare(recipe, &directories, None, DType::F64, &Device::Cpu).unwrap()
}

/// The inputs of a window: `(time, batch)`.
fn ids(window: &Window) -> Vec<Vec<u32>> {
    window.inputs.to_vec2().unwrap()
}

fn map(state: &State, change: impl Fn(&Tensor) -> Tensor) -> State {
    State(state.0.iter().map(|layer| layer.iter().map(&change).collect()).collect())
}

/// The window one time step after another, with the states of rows that begin a sentence set to zero: its nats, and the
/// state after it.
fn step_by_step(stepper: &Stepper<NextToken>, window: &Window, noise: &Noise, line_end: u32) -> (f64, State) {
    let mut state = stepper.carried.clone();
    let mut nats = 0.0;
    for (step, row) in ids(window).iter().enumerate() {
        let kept: Vec<f64> = row.iter().map(|&id| f64::from(u8::from(id != line_end))).collect();
        let kept = Tensor::from_vec(kept, (row.len(), 1), &Device::Cpu).unwrap();
        state = map(&state, |part| part.broadcast_mul(&kept).unwrap());
        let of = |ids: &Tensor| ids.narrow(0, step, 1).unwrap();
        let found =
            stepper.objective.model.nats(&of(&window.inputs), &of(&window.targets), &state, noise).unwrap();
        nats += found.0.sum_all().unwrap().to_scalar::<f64>().unwrap();
        state = found.1.detach();
    }
    (nats, state)
}

fn close(one: &State, other: &State) {
    for (one, other) in one.0.iter().flatten().zip(other.0.iter().flatten()) {
        let distance = (one - other).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(distance < 1e-12, "{distance}");
    }
}

#[test]
fn windows_with_resets_are_those_of_single_time_steps_also_with_dropout() {
    for core in CORES {
        let mut all = vec![core, "train.dropout={input=0.3,between=0.2,hidden=0.3,output=0.3}"];
        if core.contains("hlstm") {
            all.push("train.dropout.depth=0.2");
        }
        let language = language(&all);
        let line_end = language.tokenizer().line_end_id().unwrap();
        let mut stepper = language.stepper(None).unwrap();
        let mut in_mid_window = 0;
        for step in 0..6 {
            let window = language.batch(0, step as usize).unwrap();
            in_mid_window += ids(&window)[1..].iter().flatten().filter(|&&id| id == line_end).count();
            let noise = stepper.objective.noise(&window, step).unwrap();
            let loss = stepper.objective.loss(&window, &stepper.carried, &noise).unwrap();
            let nats = loss.sums.nats.sum_all().unwrap().to_scalar::<f64>().unwrap();
            let (wanted, state) = step_by_step(&stepper, &window, &noise.first, line_end);
            assert!((nats - wanted).abs() < 1e-9, "{core}: {nats} {wanted}");
            close(&loss.carried, &state);
            stepper.carried = loss.carried.detach();
        }
        assert!(in_mid_window > 6, "{core}: the windows have too few sentences for this test");
    }
}

#[test]
fn the_gradient_ends_where_a_sentence_begins() {
    for core in CORES {
        let language = language(&[core]);
        let line_end = language.tokenizer().line_end_id().unwrap();
        let mut stepper = language.stepper(None).unwrap();
        for step in 0..2 {
            let window = language.batch(0, step).unwrap();
            let loss = stepper.objective.loss(&window, &stepper.carried, &Default::default()).unwrap();
            let gradients = |objective: &Tensor| stepper.parameters.gradients(objective).unwrap();
            let wanted = gradients(&sentence_by_sentence(&stepper, &window, line_end));
            for (found, wanted) in gradients(&loss.objective).iter().zip(&wanted) {
                let scale = wanted.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
                let distance =
                    (found - wanted).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
                assert!(distance <= 1e-10 * scale.max(1e-3), "{core}: {distance} of {scale}");
            }
            stepper.carried = loss.carried.detach();
        }
    }
}

/// The objective of a window, each part of it that belongs to one sentence read by itself at batch 1.
fn sentence_by_sentence(stepper: &Stepper<NextToken>, window: &Window, line_end: u32) -> Tensor {
    let inputs = ids(window);
    let rows = inputs[0].len();
    let model = &stepper.objective.model;
    let mut sum = Tensor::zeros((), DType::F64, &Device::Cpu).unwrap();
    for row in 0..rows {
        let begins = (0..inputs.len()).filter(|&step| step == 0 || inputs[step][row] == line_end);
        let begins: Vec<usize> = begins.chain([inputs.len()]).collect();
        for piece in begins.windows(2) {
            let of = |ids: &Tensor| {
                ids.narrow(0, piece[0], piece[1] - piece[0])
                    .unwrap()
                    .narrow(1, row, 1)
                    .unwrap()
                    .contiguous()
                    .unwrap()
            };
            let goes_on = piece[0] == 0 && inputs[0][row] != line_end;
            let state = match goes_on {
                true => map(&stepper.carried, |part| part.narrow(0, row, 1).unwrap().contiguous().unwrap()),
                false => model.zero_state(1).unwrap(),
            };
            let (nats, _) =
                model.nats(&of(&window.inputs), &of(&window.targets), &state, &Noise::none()).unwrap();
            sum = (sum + nats.sum_all().unwrap()).unwrap();
        }
    }
    (sum / rows as f64).unwrap()
}

#[test]
fn masks_of_every_step_stay_with_their_steps() {
    // An input mask of every step reaches the same embedded token in a window with resets as in one without.
    let settings = [
        "train.dropout={kind='per-step',input=0.4,output=0.3}",
        "model.core={kind='lstm',layers=1,hidden_size=7}",
    ];
    let language = language(&settings);
    let line_end = language.tokenizer().line_end_id().unwrap();
    let stepper = language.stepper(None).unwrap();
    let window = language.batch(0, 1).unwrap();
    let noise = stepper.objective.noise(&window, 1).unwrap();
    let loss = stepper.objective.loss(&window, &stepper.carried, &noise).unwrap();
    let nats = loss.sums.nats.sum_all().unwrap().to_scalar::<f64>().unwrap();
    let mut state = stepper.carried.clone();
    let mut wanted = 0.0;
    for (step, row) in ids(&window).iter().enumerate() {
        let kept: Vec<f64> = row.iter().map(|&id| f64::from(u8::from(id != line_end))).collect();
        let kept = Tensor::from_vec(kept, (row.len(), 1), &Device::Cpu).unwrap();
        state = map(&state, |part| part.broadcast_mul(&kept).unwrap());
        let of = |all: &Tensor| all.narrow(0, step, 1).unwrap();
        let at_step = Noise {
            input: noise.first.input.iter().map(|mask| mask.as_ref().map(of)).collect(),
            output: noise.first.output.as_ref().map(of),
            ..Noise::none()
        };
        let (found, after) = stepper
            .objective
            .model
            .nats(&of(&window.inputs), &of(&window.targets), &state, &at_step)
            .unwrap();
        wanted += found.sum_all().unwrap().to_scalar::<f64>().unwrap();
        state = after.detach();
    }
    assert!((nats - wanted).abs() < 1e-9, "{nats} {wanted}");
}
