//! A run that is stopped, killed or damaged at any moment goes on to the same bits as one that never was.

use crate::support::run;
use candle_core::{Device, Tensor};
use rhn::checkpoint;
use rhn::storage::{load_tensors, save_tensors};
use run::{Place, assert_fails, signal, states, stderr, stdout, wait_until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

const WORD_CNN: &str = "--set corpus.unit=word --set model.embedding={kind=\"char-cnn\",char_size=3,\
    filter_widths=[1,2],filter_counts=[3,4],highway_layers=1} --set model.core={kind=\"lstm\",layers=1,hidden_size=6} \
    --set train.dropout={kind=\"per-step\",input=0.2,output=0.2}";

/// The run to its end, and again in pieces that end after these fractions of an epoch; nothing may differ.
#[track_caller]
fn holds_in_pieces(settings: &str, stops: &[f64]) {
    let place = Place::new();
    place.train(&format!("--out whole {settings}"));
    let per_epoch = place.events("whole", "start")[0]["steps_per_epoch"].as_f64().unwrap();
    for stop in stops {
        let steps = (stop * per_epoch).round();
        place.train(&format!("--out pieces {settings} --resume --max-steps {steps}"));
        let position: Value =
            serde_json::from_slice(&fs::read(place.newest("pieces").join("state.json")).unwrap()).unwrap();
        assert_eq!(position["step"], steps as u64);
    }
    place.train(&format!("--out pieces {settings} --resume"));
    assert_same(&place, "whole", "pieces");
    let epochs: Vec<u64> =
        place.events("pieces", "epoch").iter().map(|event| event["epoch"].as_u64().unwrap()).collect();
    assert_eq!(epochs, (1..=epochs.len() as u64).collect::<Vec<_>>());
    assert_eq!(place.events("pieces", "start").len(), 1);
}

#[track_caller]
fn assert_same(place: &Place, one: &str, other: &str) {
    for (one, other) in place.fingerprint(one).into_iter().zip(place.fingerprint(other)) {
        assert_eq!(one, other);
    }
}

#[test]
fn sgd_with_a_rate_that_halves_on_a_plateau_resumes_exactly() {
    let settings = "--set train.optimizer=sgd --set train.learning_rate=0.5 --set train.weight_decay=1e-4 \
        --set train.schedule={kind=\"halve-on-plateau\",threshold=1e9,after_epochs=0}";
    holds_in_pieces(settings, &[0.5, 1.0, 1.3, 2.0, 2.9]);
}

/// As [`holds_in_pieces`], and one thread trains to the same bits as three.
#[track_caller]
fn holds_in_pieces_on_any_number_of_threads(settings: &str) {
    holds_in_pieces(settings, &[0.4, 1.0, 1.5]);
    let place = Place::new();
    place.train(&format!("--out one {settings} --threads 1 --max-steps 9"));
    place.train(&format!("--out three {settings} --threads 3 --max-steps 9"));
    assert_same(&place, "one", "three");
}

#[test]
fn rhns_that_share_gates_resume_exactly_on_any_number_of_threads() {
    for gates in ["transform", "both"] {
        holds_in_pieces_on_any_number_of_threads(&format!(
            "--set model.core.shared_gates={gates} --set model.core.layers=2 --set model.core.recurrence_depth=3 \
             --set train.epochs=2 --set train.dropout={{input=0.2,hidden=0.2}}"
        ));
    }
}

#[test]
fn highway_lstms_resume_exactly_on_any_number_of_threads() {
    for (variant, masks) in
        [("zhang", "depth=0.3,output=0.2"), ("depth-gated", "depth=0.3"), ("kurata", "hidden=0.2")]
    {
        let settings = format!(
            "--set model.core={{kind=\"hlstm\",layers=2,hidden_size=7,variant=\"{variant}\"}} --set train.epochs=2 \
             --set train.dropout={{{masks}}}"
        );
        holds_in_pieces_on_any_number_of_threads(&settings);
    }
}

#[test]
fn adam_with_a_cosine_and_a_state_carried_over_epochs_resumes_exactly() {
    let settings = "--set train.carry_state=true --set train.weight_decay=1e-4 \
        --set train.schedule={kind=\"cosine\",warmup_steps=50,final_fraction=0.1}";
    holds_in_pieces(settings, &[0.0, 0.4, 1.0, 1.5, 2.0]);
}

#[test]
fn means_of_the_weights_resume_exactly() {
    holds_in_pieces("--set train.averaging={kind=\"ema\",decay=0.9}", &[0.1, 1.0, 1.5]);
    holds_in_pieces(
        "--set train.optimizer=sgd --set train.learning_rate=8 --set train.epochs=5 --set train.on_divergence=warn \
         --set train.averaging={kind=\"nt-asgd\",non_monotone=1}",
        &[0.5, 2.0, 3.5, 4.0, 4.5],
    );
}

#[test]
fn all_that_can_be_added_to_training_resumes_exactly_on_any_number_of_threads() {
    let settings = "--set train.bptt_steps=8 --set train.window=variable --set train.state_reset=0.1 \
        --set train.activation={ar=2.0,tar=1.0} --set train.evaluate_steps=7 \
        --set train.schedule={kind=\"cosine\",warmup_steps=5,final_fraction=0.1} \
        --set train.dropout={word=0.1,embedding=0.1,input=0.3,hidden=0.2,output=0.3}";
    for second in ["{kappa=0.15}", "{kappa=0.25,variant=\"eld\"}", "{variant=\"pi\"}"] {
        holds_in_pieces_on_any_number_of_threads(&format!("{settings} --set train.fraternal={second}"));
    }
}

#[test]
fn a_mean_from_the_start_resumes_exactly_to_the_same_end() {
    let settings = "--set train.optimizer=sgd --set train.learning_rate=8 --set train.epochs=40 \
        --set train.on_divergence=warn --set train.averaging={kind=\"nt-asgd\",non_monotone=1,from_start=true}";
    holds_in_pieces(settings, &[0.5, 2.0, 2.5]);
}

#[test]
fn adamw_with_two_layers_and_every_variational_mask_resumes_exactly() {
    let settings = "--set train.optimizer=adamw --set train.weight_decay=0.1 --set model.core.layers=2 \
        --set train.dropout={word=0.1,input=0.3,between=0.2,hidden=0.2,output=0.3,separate_gate_masks=true} \
        --set train.schedule={kind=\"decay-per-epoch\",factor=2.0,constant_epochs=1}";
    holds_in_pieces(settings, &[0.7, 1.0, 1.1, 2.5]);
}

#[test]
fn masked_weights_resume_exactly_on_any_number_of_threads() {
    holds_in_pieces_on_any_number_of_threads(
        "--set train.epochs=2 --set model.core.layers=2 --set train.dropout={hidden=0.1,recurrent_weights=0.4}",
    );
}

#[test]
fn a_mogrifier_resumes_exactly_on_any_number_of_threads() {
    holds_in_pieces_on_any_number_of_threads(
        "--set train.epochs=2 --set model.core={kind=\"lstm\",layers=2,hidden_size=7,mogrifier={rounds=3}} \
         --set train.dropout={input=0.2,hidden=0.2}",
    );
}

#[test]
fn a_mixture_of_softmaxes_resumes_exactly_on_any_number_of_threads() {
    holds_in_pieces_on_any_number_of_threads(
        "--set model.embedding.size=3 --set model.output={kind=\"mixture\",components=3,tied=true} \
         --set train.epochs=2 --set train.dropout={output=0.2,components=0.3}",
    );
}

#[test]
fn letters_and_an_lstm_with_masks_at_every_step_resume_exactly() {
    holds_in_pieces(
        &format!("{WORD_CNN} --set train.optimizer=sgd --set train.learning_rate=0.5"),
        &[0.5, 1.6],
    );
    holds_in_pieces(&format!("{WORD_CNN} --set train.carry_state=true"), &[1.0, 1.6]);
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    let place = Place::new();
    let settings =
        "--set model.core.hidden_size=96 --set train.batch_size=8 --set train.bptt_steps=4 --max-steps 15";
    for threads in 1..=3 {
        place.train(&format!("--out run-{threads} --threads {threads} {settings}"));
    }
    assert_same(&place, "run-1", "run-2");
    assert_same(&place, "run-1", "run-3");
}

#[test]
#[cfg(unix)]
fn a_signal_saves_and_stops_with_a_code_of_its_own() {
    let place = Place::new();
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let settings = "--set train.epochs=1000000";
        let child = place.start(&format!("--out {name} {settings}"));
        wait_until("an epoch is done", || !place.events(name, "epoch").is_empty());
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(
            stdout(&output).ends_with(&format!("stopped by a signal; saved in {name}, --resume goes on\n"))
        );
        let steps = place.events(name, "stop")[0]["step"].as_u64().unwrap() + 31;
        place.train(&format!("--out {name} {settings} --resume --max-steps {steps}"));
        place.train(&format!("--out {name}-whole {settings} --max-steps {steps}"));
        assert_same(&place, name, &format!("{name}-whole"));
    }
}

#[test]
#[cfg(unix)]
fn a_signal_during_validation_leaves_it_to_the_resumed_run() {
    let place = Place::new();
    for (split, plays) in [("train", 2), ("valid", 600), ("test", 1)] {
        place.write(&format!("splits/{split}.txt"), run::PLAY.repeat(plays));
    }
    let settings = "--corpus splits --set train.epochs=1 --set train.save_minutes=0";
    place.train(&format!("--out whole {settings}"));
    let windows = place.events("whole", "start")[0]["steps_per_epoch"].as_u64().unwrap();
    let child = place.start(&format!("--out stopped {settings}"));
    let last = place.path("stopped").join(format!("state/step-{windows:010}"));
    wait_until("the last window is trained", || last.exists());
    signal(&child, "INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    let position = fs::read(place.newest("stopped").join("state.json")).unwrap();
    let position: Value = serde_json::from_slice(&position).unwrap();
    assert_eq!((&position["window"], &position["epoch"]), (&windows.into(), &0.into()));
    place.train(&format!("--out stopped {settings} --resume"));
    assert_same(&place, "whole", "stopped");
}

#[test]
#[cfg(unix)]
fn a_signal_during_the_test_leaves_it_to_the_resumed_run() {
    let place = Place::new();
    for (split, plays) in [("train", 2), ("valid", 1), ("test", 10_000)] {
        place.write(&format!("splits/{split}.txt"), run::PLAY.repeat(plays));
    }
    let settings = "--corpus splits --set train.epochs=1";
    let child = place.start(&format!("--out run {settings}"));
    wait_until("the training is over", || {
        states(&place.path("run")).iter().any(|state| state.ends_with("step-0000000008.1"))
    });
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stdout(&output).ends_with("saved in run, --resume tests\n"), "{}", stdout(&output));
    assert!(!place.path("run/result.json").exists());
    place.train(&format!("--out run {settings} --resume"));
    assert_eq!(place.json("run/result.json")["tokens"], 440_000 - 1);
}

#[test]
fn a_run_killed_again_and_again_ends_with_the_same_bits() {
    let place = Place::new();
    let settings = "--set train.save_minutes=0 --set train.epochs=2 --set train.bptt_steps=20";
    place.train(&format!("--out whole {settings}"));
    for milliseconds in [30, 80, 130, 170, 250] {
        let mut child = place.start(&format!("--out killed {settings} --resume"));
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.train(&format!("--out killed {settings} --resume"));
    assert_same(&place, "whole", "killed");
}

#[test]
fn a_run_killed_before_it_saved_anything_begins_anew_with_fresh_metrics() {
    let place = Place::new();
    place.train("--out whole");
    place.write(
        "killed/metrics.jsonl",
        "{\"event\":\"start\",\"step\":0}\n{\"event\":\"epoch\",\"epoch\":1,\"step\":9}\n{\"ev",
    );
    let message = place.train("--out killed --resume");
    assert!(message.contains("no saved training state; beginning at the first step"), "{message}");
    assert_same(&place, "whole", "killed");
    assert_eq!(place.events("killed", "start").len(), 1);
}

#[test]
fn a_run_named_by_its_directory_goes_on_with_the_settings_that_it_has() {
    let place = Place::new();
    let settings = "--set train.epochs=2 --set model.core.hidden_size=12 --set train.seed=7";
    place.train(&format!("--out whole {settings}"));
    place.train(&format!("--out runs/stopped {settings} --max-steps 5"));
    place.fails("train runs/stopped", 2, &["runs/stopped", "a run is there already", "--resume goes on"]);
    let output = place.rhn("train runs/stopped --resume");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_same(&place, "whole", "runs/stopped");
    assert!(!place.path("checkpoints").exists());
}

#[test]
fn a_finished_run_stays_as_it_is_when_it_is_resumed() {
    let place = Place::new();
    place.train("--out run");
    let files = || {
        ["result.json", "metrics.jsonl", "model.safetensors"]
            .map(|name| fs::read(place.path("run").join(name)).unwrap())
    };
    let before = files();
    assert!(place.train("--out run --resume").contains("the run was finished before"));
    assert_eq!(before, files());
    fs::remove_file(place.path("run/result.json")).unwrap(); // as if killed while testing
    place.train("--out run --resume");
    let result: Value = serde_json::from_slice(&before[0]).unwrap();
    assert_eq!(run::without_clock(place.json("run/result.json")), run::without_clock(result));
    place.train("--out run --resume --set train.epochs=4"); // and more epochs go on
    place.train("--out four --set train.epochs=4");
    assert_same(&place, "run", "four");
    // A model that is no longer whole comes back if the last weights are it; else nothing is said but what is wrong with it.
    let [best, steps] = ["best_step", "steps"].map(|key| place.json("run/result.json")[key].clone());
    let published = fs::read(place.path("run/model.safetensors")).unwrap();
    place.write("run/model.safetensors", "nothing");
    if best == steps {
        place.train("--out run --resume --set train.epochs=4");
        assert!(fs::read(place.path("run/model.safetensors")).unwrap() == published);
    } else {
        place.fails("train tiny.toml --out run --resume --set train.epochs=4", 4, &["run/model.safetensors"]);
    }
}

#[test]
fn settings_that_matter_may_not_change_and_the_difference_is_shown() {
    let place = Place::new();
    place.train("--out run --max-steps 3");
    let resume = "train tiny.toml --out run --resume";
    for (setting, parts) in [
        ("--set train.batch_size=3", &["train.batch_size was 2, is 3"] as &[&str]),
        (
            "--set model.core.hidden_size=9 --set train.seed=2",
            &["hidden_size was 8, is 9", "train.seed was 1, is 2"],
        ),
        (
            "--set train.schedule={kind=\"cosine\",warmup_steps=2}",
            &["train.schedule.warmup_steps was unset, is 2"],
        ),
        ("--precision f64", &["--precision f32, this is f64"]),
    ] {
        place.fails(&format!("{resume} {setting}"), 2, &[&["--resume"], parts].concat());
    }
    place.train("--out run --resume --max-steps 6 --set train.patience=2 --set train.save_minutes=1");
}

#[test]
fn another_text_is_refused_and_the_same_one_elsewhere_is_not() {
    let place = Place::new();
    place.train("--out run --max-steps 3");
    place.write("other.txt", run::PLAY.repeat(13));
    place.write("moved/corpus.txt", run::PLAY.repeat(12));
    place.fails("train tiny.toml --out run --resume --corpus other.txt", 3, &["SHA-256", "other.txt"]);
    // What is named now lies where its name says, and is not looked for beside the run.
    place.write("runs/only-there.txt", run::PLAY);
    place.train("--out runs/run --max-steps 3");
    place.fails(
        "train runs/run --resume --corpus only-there.txt",
        3,
        &["only-there.txt: no corpus of this name"],
    );
    place.write("short.txt", run::PLAY.repeat(2));
    place.fails("train runs/run --resume --corpus short.txt", 3, &["another text than the run's"]);
    fs::rename(place.path("corpus.txt"), place.path("kept.txt")).unwrap();
    place.fails(
        "eval runs/run",
        3,
        &["corpus.txt", "the run in runs/run was trained on it", "--corpus PATH"],
    );
    fs::rename(place.path("kept.txt"), place.path("corpus.txt")).unwrap();
    place.train("--out run --resume --corpus moved/corpus.txt");
    place.train("--out whole");
    let weights = |out: &str| place.fingerprint(out)[..3].to_vec(); // the result has the corpus's new name
    assert_eq!(weights("whole"), weights("run"));
}

#[test]
fn a_damaged_state_is_passed_over_by_name_and_the_run_ends_the_same() {
    let place = Place::new();
    place.train("--out whole");
    for steps in [10, 20] {
        place.train(&format!("--out run --resume --max-steps {steps}"));
    }
    flip_last_byte(&place.newest("run").join("optimizer.safetensors"));
    let message = place.train("--out run --resume");
    for part in ["passed over", "step-0000000020", "optimizer.safetensors", "going on after step 10"] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
    assert_same(&place, "whole", "run");
    states(&place.path("run")).iter().for_each(|state| flip_last_byte(&state.join("model.safetensors")));
    place.fails(
        "train tiny.toml --out run --resume",
        4,
        &["no training state is whole", "model.safetensors"],
    );
}

fn flip_last_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_model_without_a_training_state_is_not_trained_over() {
    let place = Place::new();
    place.train("--out run --max-steps 3");
    fs::remove_dir_all(place.path("run/state")).unwrap();
    let before = fs::read(place.path("run/model.safetensors")).unwrap();
    place.fails("train tiny.toml --out run --resume", 4, &["no training state", "--init-from"]);
    assert_eq!(before, fs::read(place.path("run/model.safetensors")).unwrap());
}

#[test]
fn files_that_are_no_run_s_are_not_resumed_over() {
    let place = Place::new();
    place.write("notes/recipe.toml", "flour, water, salt\n");
    place.write("notes/metrics.jsonl", "my notes\n");
    place.fails("train tiny.toml --out notes --resume", 2, &["has a recipe.toml and no run"]);
    place.fails("train tiny.toml --out notes", 2, &["has a recipe.toml and no run"]);
    assert_eq!(fs::read_to_string(place.path("notes/recipe.toml")).unwrap(), "flour, water, salt\n");
}

#[test]
fn a_finished_run_whose_model_is_gone_goes_on_to_the_best_of_what_follows() {
    let place = Place::new();
    place.train("--out run --set train.epochs=1");
    fs::remove_file(place.path("run/model.safetensors")).unwrap();
    // Its last weights are its best ones, which come back with the numbers that they had.
    let result = place.json("run/result.json")["nats_per_token"].clone();
    let output = place.rhn("train run --resume");
    assert!(
        output.status.success() && stderr(&output).contains("best weights so far are lost"),
        "{}",
        stderr(&output)
    );
    assert_eq!(place.json("run/result.json")["nats_per_token"], result);
    assert_eq!(place.json_of("eval run --json")["nats_per_token"], result);
    fs::remove_file(place.path("run/model.safetensors")).unwrap();
    let said = stderr(&place.rhn("train run --resume --set train.epochs=3"));
    assert!(said.contains("The best weights so far are lost"), "{said}");
    assert_eq!(place.events("run", "epoch").len(), 3);
    assert!(place.json_of("eval run --json")["nats_per_token"].is_f64());
}

#[test]
fn numbers_that_are_not_finite_in_a_state_are_refused_by_name() {
    let place = Place::new();
    for (file, tensor) in [
        (rhn::storage::MODEL, "core.0.bias"),
        (rhn::storage::OPTIMIZER, "moments.core.0.bias"),
        (rhn::storage::OPTIMIZER, "state.0.0"),
    ] {
        let out = format!("run-{tensor}");
        place.train(&format!("--out {out} --max-steps 3"));
        let published = fs::read(place.path(&out).join(rhn::storage::MODEL)).unwrap();
        poison(&place.path(&out), &place.newest(&out), file, tensor);
        place.fails(&format!("train tiny.toml --out {out} --resume"), 4, &[file, tensor, "not finite"]);
        assert_eq!(published, fs::read(place.path(&out).join(rhn::storage::MODEL)).unwrap());
    }
}

/// Saves the state once more, whole but with a NaN in one tensor.
fn poison(out: &Path, state: &Path, file: &str, tensor: &str) {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for entry in fs::read_dir(state).unwrap().map(|entry| entry.unwrap()) {
        files.insert(entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    }
    files.remove(rhn::storage::MANIFEST);
    let mut tensors = load_tensors(Path::new(file), &files[file], &Device::Cpu).unwrap();
    let found = tensors.get_mut(tensor).unwrap();
    let mut values: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
    *values.last_mut().unwrap() = f32::NAN;
    *found = Tensor::from_vec(values, found.dims(), &Device::Cpu).unwrap();
    files.insert(file.into(), save_tensors(&tensors).unwrap());
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    checkpoint::save(out, 3, &files).unwrap();
}

#[test]
fn a_diverged_but_finite_run_can_be_saved_and_resumed() {
    let place = Place::new();
    let settings = "--set train.optimizer=sgd --set train.learning_rate=1e3 --set train.max_grad_norm=0 --set train.epochs=2 \
        --set train.schedule={kind=\"halve-on-plateau\",after_epochs=0}";
    place.train(&format!("--out whole {settings}"));
    assert!(place.events("whole", "epoch")[0]["valid_nats_per_token"].as_f64().unwrap() > 710.0);
    let steps = place.events("whole", "start")[0]["steps_per_epoch"].as_u64().unwrap() + 3;
    place.train(&format!("--out pieces {settings} --max-steps {steps}"));
    place.train(&format!("--out pieces {settings} --resume"));
    assert_same(&place, "whole", "pieces");
}

#[test]
fn two_runs_do_not_share_a_directory() {
    let place = Place::new();
    let mut first = place.start("--out run --set train.epochs=1000000");
    wait_until("the first run has begun", || !place.events("run", "start").is_empty());
    for resume in ["", "--resume"] {
        let holder = format!("in use by process {}", first.id());
        assert_fails(&place.rhn(&format!("train tiny.toml --out run {resume}")), 6, &[&holder]);
    }
    first.kill().unwrap();
    first.wait().unwrap();
}
