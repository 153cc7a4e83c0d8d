//! The states that a resumed run continues from: two are kept, a damaged one is passed over and named.

use super::copy;
use crate::support::checkpoint_files::{Files, weights};
use candle_core::Device;
use rhn::checkpoint;
use rhn::storage::{MANIFEST, MODEL, OPTIMIZER, STATE, save_tensors};
use std::fs;
use std::path::Path;
use tempfile::{TempDir, tempdir};

fn state_files(step: u64) -> Files {
    let tensors = save_tensors(&weights(step as f32)).unwrap();
    vec![
        (MODEL, tensors.clone()),
        (OPTIMIZER, tensors),
        (STATE, format!(r#"{{"step":{step}}}"#).into_bytes()),
    ]
}

fn saved(steps: &[u64]) -> TempDir {
    let out = tempdir().unwrap();
    for &step in steps {
        checkpoint::save(out.path(), step, &state_files(step)).unwrap();
    }
    out
}

fn states(out: &Path) -> Vec<String> {
    let entries = fs::read_dir(out.join("state")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The step that a resumed run would continue from, and how many states it passed over.
fn restored(out: &Path) -> (u64, usize) {
    let found = checkpoint::load_newest(out, Ok).unwrap().unwrap();
    let json: serde_json::Value = found.state.json(STATE).unwrap();
    assert_eq!(json["step"], found.state.step);
    let tensors = found.state.tensors(OPTIMIZER, &Device::Cpu).unwrap();
    assert_eq!(tensors["output.bias"].to_vec1::<f32>().unwrap()[0], found.state.step as f32);
    (found.state.step, found.rejected.len())
}

#[test]
fn the_newest_two_training_states_stay() {
    let out = saved(&[1, 20, 300, 4000]);
    assert_eq!(states(out.path()), ["step-0000000300", "step-0000004000"]);
    assert_eq!(restored(out.path()), (4000, 0));
    assert!(checkpoint::load_newest(tempdir().unwrap().path(), Ok).unwrap().is_none());
}

#[test]
fn a_damaged_state_is_passed_over_and_named() {
    for name in [MODEL, OPTIMIZER, STATE, MANIFEST] {
        for damage in ["flip", "cut", "drop", "empty"] {
            let out = saved(&[10, 20]);
            let path = out.path().join("state/step-0000000020").join(name);
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            match damage {
                "flip" => bytes[middle] ^= 4,
                "cut" => bytes.truncate(middle),
                "empty" => bytes.clear(),
                _ => fs::remove_file(&path).unwrap(),
            }
            if damage != "drop" {
                fs::write(&path, bytes).unwrap();
            }
            assert_eq!(restored(out.path()), (10, 1), "{damage} {name}");
            let found = checkpoint::load_newest(out.path(), Ok).unwrap().unwrap();
            let reason = found.rejected[0].error.to_string();
            assert!(reason.contains("step-0000000020"), "{damage} {name}: {reason}");
        }
    }
}

#[test]
fn a_run_whose_states_are_all_damaged_does_not_start_afresh() {
    let out = saved(&[10, 20]);
    for step in ["step-0000000010", "step-0000000020"] {
        fs::write(out.path().join("state").join(step).join(MODEL), "").unwrap();
    }
    let error = checkpoint::load_newest(out.path(), Ok).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    let message = error.to_string();
    assert!(message.contains("step-0000000010") && message.contains("step-0000000020"), "{message}");
}

#[test]
fn a_state_half_written_or_half_removed_does_not_count() {
    let out = saved(&[10, 20]);
    let state = out.path().join("state");
    copy(&state.join("step-0000000020"), &state.join(".tmp-step-0000000030"));
    copy(&state.join("step-0000000020"), &state.join(".tmp-step-0000000005"));
    fs::remove_file(state.join(".tmp-step-0000000005").join(MANIFEST)).unwrap();
    assert_eq!(restored(out.path()), (20, 0));
    checkpoint::save(out.path(), 30, &state_files(30)).unwrap();
    assert_eq!(states(out.path()), ["step-0000000020", "step-0000000030"]);
}

#[test]
fn a_kill_before_the_old_state_is_removed_leaves_three_and_the_newest_counts() {
    let out = saved(&[10, 20]);
    let state = out.path().join("state");
    copy(saved(&[30]).path().join("state/step-0000000030").as_path(), &state.join("step-0000000030"));
    assert_eq!(restored(out.path()), (30, 0));
    checkpoint::save(out.path(), 40, &state_files(40)).unwrap();
    assert_eq!(states(out.path()), ["step-0000000030", "step-0000000040"]);
}

#[test]
fn saving_a_step_anew_replaces_it_and_keeps_the_one_before() {
    let out = saved(&[10, 20, 20]);
    assert_eq!(states(out.path()), ["step-0000000010", "step-0000000020.1"]);
    assert_eq!(restored(out.path()), (20, 0));
    checkpoint::save(out.path(), 20, &state_files(20)).unwrap();
    assert_eq!(states(out.path()), ["step-0000000010", "step-0000000020.2"]);
}

#[test]
fn after_a_fallback_the_damaged_later_state_goes_and_the_good_one_stays() {
    let out = saved(&[10, 20]);
    fs::write(out.path().join("state/step-0000000020").join(MODEL), "").unwrap();
    assert_eq!(restored(out.path()), (10, 1));
    checkpoint::save(out.path(), 15, &state_files(15)).unwrap();
    assert_eq!(states(out.path()), ["step-0000000010", "step-0000000015"]);
}
