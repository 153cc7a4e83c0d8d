//! `train.evaluate_steps`: validation within an epoch, and the best model published there.

use crate::support::run;
use run::{Place, stdout};
use serde_json::Value;

fn steps(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["step"].as_u64().unwrap()).collect()
}

fn nats(event: &Value) -> f64 {
    event["valid_nats_per_token"].as_f64().unwrap()
}

#[test]
fn the_validation_split_is_measured_within_epochs_and_the_best_model_is_published() {
    let place = Place::new();
    // The rate grows by a factor of thirty an epoch: the best model is one within the second.
    let settings = "--set train.evaluate_steps=5 --set train.optimizer=sgd --set train.learning_rate=0.1 \
        --set train.schedule={kind=\"decay-per-epoch\",factor=0.03,constant_epochs=1}";
    let output = place.rhn(&format!("train tiny.toml --out run {settings}"));
    let per_epoch = place.events("run", "start")[0]["steps_per_epoch"].as_u64().unwrap();
    let within: Vec<u64> = (1..3 * per_epoch).filter(|step| step % 5 == 0 && step % per_epoch != 0).collect();
    let evaluations = place.events("run", "evaluation");
    assert_eq!(steps(&evaluations), within);
    let all = [evaluations, place.events("run", "epoch")].concat();
    let best = all.iter().min_by(|a, b| nats(a).total_cmp(&nats(b))).unwrap();
    assert_eq!((&best["event"], &best["best"]), (&"evaluation".into(), &true.into()), "{best}");
    let result = place.json("run/result.json");
    assert_eq!((&result["best_step"], &result["best_epoch"]), (&best["step"], &best["epoch"]));
    let valid = place.rhn("eval run --json --split valid --protocol batched");
    let valid: Value = serde_json::from_slice(&valid.stdout).unwrap();
    assert_eq!(valid["nats_per_token"], best["valid_nats_per_token"]);
    let row = format!("\n{:>5.2}  ", best["step"].as_f64().unwrap() / per_epoch as f64);
    assert!(stdout(&output).contains(&row), "no row {row:?} in {}", stdout(&output));
    let compared: Value =
        serde_json::from_slice(&place.rhn("compare run --measure nats --json").stdout).unwrap();
    assert_eq!(compared["runs"][0]["best_valid"], best["valid_nats_per_token"], "{compared}");
    let inspected: Value = serde_json::from_slice(&place.rhn("inspect run --json").stdout).unwrap();
    assert_eq!(inspected["best"]["step"], best["step"]);
}

#[test]
fn training_is_the_same_bits_with_and_without_validation_within_epochs() {
    let place = Place::new();
    place.train("--out without");
    place.train("--out with --set train.evaluate_steps=7");
    let last = |out: &str| place.fingerprint(out)[1..3].to_vec(); // weights, moments and carried state
    assert_eq!(last("without"), last("with"));
}

#[test]
fn a_run_stopped_before_at_and_after_an_evaluation_goes_on_to_the_same_rows() {
    let place = Place::new();
    let settings = "--set train.evaluate_steps=10 --set train.epochs=2 \
        --set train.schedule={kind=\"halve-on-plateau\",threshold=1e9,after_epochs=0}";
    place.train(&format!("--out whole {settings}"));
    let per_epoch = place.events("whole", "start")[0]["steps_per_epoch"].as_u64().unwrap();
    for stop in [5, 10, 29, 30, 30, per_epoch, per_epoch + 1, per_epoch + 9] {
        place.train(&format!("--out pieces {settings} --resume --max-steps {stop}"));
    }
    place.train(&format!("--out pieces {settings} --resume"));
    assert_eq!(place.fingerprint("whole"), place.fingerprint("pieces"));
    let evaluations =
        |out: &str| place.events(out, "evaluation").into_iter().map(run::without_clock).collect::<Vec<_>>();
    assert_eq!(evaluations("whole"), evaluations("pieces"));
}

#[test]
fn patience_counts_epochs_and_one_with_a_better_loss_within_it_is_a_better_one() {
    let place = Place::new();
    // A rate so small that single precision does not see it: the first evaluation stays the best.
    place.train(
        "--out run --set train.evaluate_steps=10 --set train.epochs=50 --set train.patience=2 --set train.learning_rate=1e-30",
    );
    assert_eq!(place.events("run", "epoch").len(), 3);
    let result = place.json("run/result.json");
    assert_eq!((&result["best_epoch"], &result["best_step"]), (&1.into(), &10.into()));
}

#[test]
fn a_run_killed_again_and_again_has_each_evaluation_once_and_ends_with_the_same_bits() {
    let place = Place::new();
    let settings = "--threads 1 --set train.evaluate_steps=3 --set train.save_minutes=0 --set train.epochs=2";
    place.train(&format!("--out whole {settings}"));
    for milliseconds in [60, 110, 150, 190, 240, 300] {
        let mut child = place.start(&format!("--out killed {settings} --resume"));
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.train(&format!("--out killed {settings} --resume"));
    assert_eq!(place.fingerprint("whole"), place.fingerprint("killed"));
    assert_eq!(steps(&place.events("whole", "evaluation")), steps(&place.events("killed", "evaluation")));
}
