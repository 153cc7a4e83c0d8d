use super::{RunHistory, distinguish};
use crate::storage::METRICS;
use serde_json::{Value, json};
use std::path::Path;

pub(in crate::study) fn start(seed: u64) -> Value {
    json!({"event": "start", "step": 0, "corpus": "ptb", "corpus_sha256": "ab", "parameters": 1000, "version": "1",
           "recipe": {"corpus": {"unit": "word"}, "train": {"epochs": 3, "seed": seed}}})
}

pub(in crate::study) fn epoch(number: u64, nats: f64) -> Value {
    json!({"event": "epoch", "epoch": number, "step": 10 * number, "tokens": 700 * number, "seconds": 60.0 * number as f64,
           "train_nats_per_token": nats + 0.5, "valid_nats_per_token": nats, "valid_bits_per_char": nats / 4.0,
           "tokens_per_second": 1500.0})
}

pub(in crate::study) fn result(nats: f64) -> Value {
    json!({"event": "result", "nats_per_token": nats, "bits_per_char": nats / 4.0, "seconds_total": 200.0})
}

pub(in crate::study) fn read(name: &str, events: &[Value]) -> RunHistory {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join(name), events);
    RunHistory::read(&folder.path().join(name)).unwrap()
}

fn write(directory: &Path, events: &[Value]) {
    std::fs::create_dir_all(directory).unwrap();
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    std::fs::write(directory.join(METRICS), lines).unwrap();
}

#[test]
fn a_run_is_finished_once_its_result_is_the_last_word() {
    let mut events = vec![start(1), epoch(1, 5.0), epoch(2, 4.5), epoch(3, 4.6)];
    assert!(read("run", &events).result.is_none());
    events.push(result(4.4));
    let run = read("run", &events);
    assert_eq!((run.name.as_str(), run.best().unwrap().epoch, run.epochs_asked()), ("run", 2, Some(3)));
    assert_eq!(run.result.unwrap().test.nats_per_token, Some(4.4));
    let mut resume = start(1); // for more epochs
    resume["event"] = "resume".into();
    events.push(resume);
    assert!(read("run", &events).result.is_none());
}

#[test]
fn bits_over_text_that_was_not_predicted_are_forgotten() {
    let mut old = result(4.4);
    old["oov_tokens"] = 3.into();
    let run = read("run", &[start(1), epoch(1, 5.0), old.clone()]);
    let test = run.result.unwrap().test;
    assert_eq!((test.bits_per_char, run.epochs[0].valid_bits_per_char), (None, None));
    assert!(test.bits_per_char_absent.is_some());
    old["words"] = 9.into(); // an honest one
    assert!(read("run", &[start(1), epoch(1, 5.0), old]).result.unwrap().test.bits_per_char.is_some());
}

#[test]
fn a_test_figure_that_does_not_compare_with_others_is_refused_by_its_protocol() {
    for (protocol, compares) in
        [("stream", true), ("dynamic", false), ("cache", false), ("dynamic+cache", false), ("mc", false)]
    {
        let mut found = result(4.4);
        found["protocol"] = protocol.into();
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[start(1), epoch(1, 5.0), found]);
        match RunHistory::read(folder.path()) {
            Ok(_) => assert!(compares, "{protocol}"),
            Err(error) => {
                assert!(!compares && error.to_string().contains(&format!("{protocol:?}")), "{error}")
            }
        }
    }
}

#[test]
fn an_epoch_that_was_lived_twice_counts_once() {
    let run = read("run", &[start(1), epoch(1, 5.0), epoch(2, 4.0), epoch(2, 4.5)]);
    assert_eq!(run.epochs.iter().map(|epoch| epoch.epoch).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(run.best().unwrap().valid_nats_per_token, Some(4.5));
}

#[test]
fn the_best_row_may_be_one_within_an_epoch() {
    let mut within = epoch(2, 3.5);
    within["event"] = "evaluation".into();
    within["step"] = 15.into();
    let run = read("run", &[start(1), epoch(1, 5.0), within.clone(), within, epoch(2, 4.0)]);
    assert_eq!(run.rows().iter().map(|row| row.step).collect::<Vec<_>>(), [10, 15, 20]);
    let best = run.best().unwrap();
    assert_eq!((best.epoch, best.step, run.epochs.len()), (2, 15, 2));
}

#[test]
fn a_loss_that_was_not_finite_is_not_the_best() {
    let mut broken = epoch(2, 1.0);
    broken["valid_nats_per_token"] = Value::Null; // as JSON has it
    assert_eq!(read("run", &[start(1), epoch(1, 5.0), broken]).best().unwrap().epoch, 1);
}

#[test]
fn runs_of_the_same_name_are_distinguished_by_their_paths() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a/run", "b/run", "c/other"].map(|name| folder.path().join(name));
    paths.iter().for_each(|path| write(path, &[start(1)]));
    let mut runs = paths.map(|path| RunHistory::read(&path).unwrap());
    distinguish(&mut runs);
    assert_eq!(runs.each_ref().map(|run| run.name.as_str()), ["a/run", "b/run", "other"]);
}
