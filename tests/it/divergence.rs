//! A loss that leaves its course without becoming NaN stops the run, is reported, or is answered by a rollback; a
//! healthy run never sees any of it.

use crate::support::run;
use rhn::train::divergence::Course;
use rhn::train::update::StepReport;
use run::{Place, states, stderr};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Six epochs that learn and ten whose rate grows by a factor of twenty each: 41 steps an epoch.
const EXPLODING: &str = "--threads 1 --set train.epochs=16 --set train.optimizer=sgd --set train.learning_rate=0.1 \
    --set train.max_grad_norm=1 --set train.schedule={kind=\"decay-per-epoch\",factor=0.05,constant_epochs=6}";

/// The end of the second window of 128 steps in which the loss is above a uniform guess.
const FOUND: u64 = 512;

fn divergences(place: &Place, out: &str) -> Vec<(u64, String)> {
    let events = place.events(out, "divergence").into_iter();
    events.map(|event| (event["step"].as_u64().unwrap(), event["action"].as_str().unwrap().into())).collect()
}

#[test]
fn a_run_whose_loss_explodes_is_saved_and_stopped_and_resumes_when_it_is_told_how() {
    let place = Place::new();
    let train = format!("train tiny.toml {EXPLODING}");
    let parts = [
        "step 512: the training loss has left its course",
        "the published model is the best, of epoch ",
        "train.learning_rate (it is 0.1)",
        "--set train.on_divergence=rollback",
    ];
    place.fails(&format!("{train} --out run"), 5, &parts);
    assert_eq!(divergences(&place, "run"), [(FOUND, "stop".to_string())]);
    assert!(place.newest("run").ends_with("step-0000000512"));
    let epochs = place.events("run", "epoch");
    let nats = |event: &Value| event["valid_nats_per_token"].as_f64().unwrap();
    let best = epochs.iter().map(nats).fold(f64::INFINITY, f64::min);
    let valid = place.rhn("eval run --json --split valid --protocol batched");
    assert_eq!(serde_json::from_slice::<Value>(&valid.stdout).unwrap()["nats_per_token"], best);
    // Without its best model it has none to go back to, and says that it was there.
    let lost = place.path("lost");
    assert!(place.program("cp").args(["-r", "run", "lost"]).status().unwrap().success());
    std::fs::remove_file(lost.join("model.safetensors")).unwrap();
    let rollback = format!("{train} --out lost --resume --set train.on_divergence=rollback");
    place.fails(
        &rollback,
        5,
        &["the best weights are lost, so there are none to go back to", "the best model is lost"],
    );
    assert!(!lost.join("model.safetensors").exists());
    // It does not go on by itself, and says so again.
    place.fails(&format!("{train} --out run --resume"), 5, &parts);
    assert_eq!(divergences(&place, "run").len(), 1);
    let warn = "--set train.on_divergence=warn";
    let message = place.train(&format!("--out run --resume {EXPLODING} {warn}"));
    assert!(message.contains("step 512: the training loss has left its course"), "{message}");
    place.train(&format!("--out warned {EXPLODING} {warn}"));
    assert_eq!(divergences(&place, "warned"), [(FOUND, "warn".to_string())]);
    assert_eq!(place.fingerprint("run"), place.fingerprint("warned"));
}

/// One epoch that learns, one with a rate of 10^37, after which no logit is finite, and one whose updates all overflow.
const OVERFLOWING: &str = "--threads 1 --set train.epochs=3 --set train.optimizer=sgd --set train.learning_rate=0.1 \
    --set train.max_grad_norm=0 --set train.schedule={kind=\"decay-per-epoch\",factor=1e-38,constant_epochs=1} \
    --on-non-finite skip --set train.max_skipped_steps=1000";

#[test]
fn a_validation_that_is_not_finite_is_answered_by_a_rollback_and_the_run_resumes_exactly() {
    let place = Place::new();
    let train = format!("train tiny.toml {OVERFLOWING}");
    let advice = "with --resume, --set train.on_divergence=rollback goes back to the best weights";
    place.fails(
        &format!("{train} --out stopped"),
        5,
        &["step 82: validation: the model gives a token", advice],
    );
    let rollback = "--set train.on_divergence=rollback";
    let none = format!("{train} --out none {rollback} --set train.max_rollbacks=0");
    place.fails(&none, 5, &["step 82: validation: the model gives a token"]);
    place.train(&format!("--out stopped --resume {OVERFLOWING} {rollback}"));
    assert_eq!(divergences(&place, "stopped"), [(82, "rollback".to_string())]);
    place.train(&format!("--out whole {OVERFLOWING} {rollback}"));
    assert_eq!(place.fingerprint("whole"), place.fingerprint("stopped"));
    let epochs = place.events("whole", "epoch");
    let valid: Vec<f64> =
        epochs.iter().map(|epoch| epoch["valid_nats_per_token"].as_f64().unwrap()).collect();
    assert_eq!((valid.len(), valid[0]), (2, valid[1])); // no epoch without its validation; then the best weights again
}

#[test]
fn a_rollback_goes_back_to_the_best_weights_at_half_the_rate_and_resumes_exactly() {
    let place = Place::new();
    let settings = format!("{EXPLODING} --set train.on_divergence=rollback");
    let message = place.train(&format!("--out whole {settings}"));
    assert!(message.contains("back to the best weights, at half the rate"), "{message}");
    assert_eq!(divergences(&place, "whole"), [(FOUND, "rollback".to_string())]);
    let rates: Vec<f64> =
        place.events("whole", "epoch").iter().map(|epoch| epoch["learning_rate"].as_f64().unwrap()).collect();
    assert!((rates[12] / rates[11] - 10.0).abs() < 1e-9, "{rates:?}"); // twenty times as much, and half of it
    for stop in [300, FOUND - 1, FOUND, FOUND + 1, 600] {
        place.train(&format!("--out pieces {settings} --resume --max-steps {stop}"));
    }
    place.train(&format!("--out pieces {settings} --resume"));
    assert_eq!(place.fingerprint("whole"), place.fingerprint("pieces"));
    assert_eq!(divergences(&place, "pieces"), divergences(&place, "whole"));
    // A run that was stopped first and is told to go back then does the same.
    place.fails(&format!("train tiny.toml --out stopped {EXPLODING}"), 5, &["step 512"]);
    place.train(&format!("--out stopped {settings} --resume"));
    assert_eq!(place.fingerprint("whole"), place.fingerprint("stopped"));
}

#[test]
fn the_weights_after_a_rollback_are_the_best_ones() {
    let place = Place::new();
    place.train(&format!("--out run {EXPLODING} --set train.on_divergence=rollback --max-steps {FOUND}"));
    let weights = |path: PathBuf| std::fs::read(path.join("model.safetensors")).unwrap();
    assert!(weights(place.path("run")) == weights(place.newest("run")));
}

#[test]
fn what_is_found_at_an_epoch_s_end_stops_warns_and_rolls_back_exactly_too() {
    let place = Place::new();
    place.train("--out begun --max-steps 50");
    forget_to_have_been_worse(&place.path("begun"), &place.newest("begun"));
    for out in ["warned", "stopped-warned", "rolled", "stopped-rolled"] {
        copy(&place.path("begun"), &place.path(out));
    }
    for (answer, out) in [("warn", "warned"), ("rollback", "rolled")] {
        let stopped = format!("stopped-{out}");
        let parts = ["step 82: training has lost what it had learned", "-10.00 at best"];
        place.fails(&format!("train tiny.toml --resume --out {stopped}"), 5, &parts);
        let answered = format!("--resume --set train.on_divergence={answer} --out");
        place.train(&format!("{answered} {out} --max-steps 82"));
        place.train(&format!("{answered} {out}"));
        place.train(&format!("{answered} {stopped}"));
        assert_eq!(divergences(&place, out), [(82, answer.to_string())]);
        assert_eq!(place.fingerprint(out), place.fingerprint(&stopped));
    }
    assert_ne!(place.fingerprint("warned"), place.fingerprint("rolled"));
}

/// Saves the state once more, as one whose losses were at −10 nats before.
fn forget_to_have_been_worse(out: &Path, state: &Path) {
    let names =
        ["config.json", "model.safetensors", "tokenizer.json", "recipe.toml", "optimizer.safetensors"];
    let mut files = names.map(|name| (name, std::fs::read(state.join(name)).unwrap())).to_vec();
    let mut position: Value =
        serde_json::from_slice(&std::fs::read(state.join("state.json")).unwrap()).unwrap();
    position["best"]["valid_nats_per_token"] = (-10.0).into();
    position["course"]["least_period"] = (-10.0).into();
    position["course"]["period"]["steps"] = 256.into();
    files.push(("state.json", serde_json::to_vec(&position).unwrap()));
    rhn::checkpoint::save(out, 50, &files).unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn rollbacks_are_bounded_and_need_a_validation_to_go_back_to() {
    let place = Place::new();
    let train = format!("train tiny.toml {EXPLODING} --set train.on_divergence=rollback");
    let bounded = format!("{train} --out bounded --set train.max_rollbacks=0");
    place.fails(&bounded, 5, &["train.max_rollbacks is 0 and 0 were made"]);
    let first = "train tiny.toml --out first --set train.on_divergence=rollback --set train.optimizer=sgd \
        --set train.learning_rate=1000 --set train.max_grad_norm=1 --set train.batch_size=1 --set train.bptt_steps=1";
    place.fails(first, 5, &["step 256", "no validation came before", "train.evaluate_steps"]);
    assert!(!states(&place.path("first")).is_empty());
    let goes_on = place.rhn("train first --resume --set train.on_divergence=warn --max-steps 260"); // by its directory
    assert_eq!(goes_on.status.code(), Some(0), "{}", stderr(&goes_on));
}

#[test]
fn another_answer_than_the_three_is_refused() {
    let output = Place::new().rhn("train tiny.toml --out run --set train.on_divergence=skip");
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("unknown variant `skip`") && message.contains("rollback"), "{message}");
}

/// The logs of real runs that come with the program.
fn kept_logs() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runs = std::fs::read_dir(root.join("reproduction/runs")).unwrap();
    let mut logs: Vec<PathBuf> = runs.map(|entry| entry.unwrap().path().join("metrics.jsonl")).collect();
    logs.push(root.join("checkpoints/shakespeare/metrics.jsonl"));
    logs.retain(|log| log.exists());
    logs
}

/// The steps at which a run with this log is found to diverge: each `step` event stands for the hundred steps before it.
fn alarms(log: &Path, spoil: impl Fn(u64, f64, f64) -> f64) -> Vec<u64> {
    let mut course = Course::default();
    let mut found = Vec::new();
    let mut uniform = f64::NAN;
    let mut best: Option<f64> = None;
    let mut steps = 0;
    let text = std::fs::read_to_string(log).unwrap();
    for event in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let step = event["step"].as_u64().unwrap_or(0);
        match event["event"].as_str().unwrap() {
            "start" | "resume" => {
                let usual = if event["recipe"]["corpus"]["unit"] == "word" { 10_000.0 } else { 50.0 };
                uniform = event["vocab_size"].as_f64().filter(|&size| size > 0.0).unwrap_or(usual).ln();
            }
            "step" => {
                let nats = spoil(step, event["train_nats_per_token"].as_f64().unwrap(), uniform);
                while steps < step {
                    let report = StepReport {
                        step: steps,
                        rate: 1.0,
                        tokens: 10,
                        nats: 10.0 * nats,
                        grad_norm: 1.0,
                        teacher_nats: None,
                    };
                    steps += 1;
                    course.observe_step(&report, uniform);
                    course.end_window(steps, uniform);
                }
            }
            "epoch" => {
                let nats = spoil(step, event["valid_nats_per_token"].as_f64().unwrap(), uniform);
                course.end_epoch(nats, best, uniform);
                best = Some(best.map_or(nats, |best| best.min(nats)));
            }
            _ => {}
        }
        found.extend(course.alarm.take().map(|_| step));
    }
    assert!(steps > 300, "{} has no steps", log.display());
    found
}

#[test]
fn no_real_run_that_comes_with_the_program_is_found_to_diverge_and_each_would_be() {
    let logs = kept_logs();
    assert!(logs.len() >= 3, "{logs:?}");
    for log in logs {
        assert_eq!(alarms(&log, |_, nats, _| nats), [0u64; 0], "{}", log.display());
        let text = std::fs::read_to_string(&log).unwrap();
        let last =
            text.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64());
        let half = last.max().unwrap() / 2;
        let exploded = |step: u64, nats: f64, uniform: f64| if step > half { uniform + 1.0 } else { nats };
        let found = alarms(&log, exploded);
        assert!(found.len() == 1 && found[0] > half, "{}: {found:?}, half is {half}", log.display());
    }
}
