//! Runs with teachers: what is refused, what is watched, what a resumed run needs, and what the student's checkpoint does not.

use crate::support::run;
use run::{PLAY, Place, stderr};
use std::fs;

/// A place with a trained model `teacher` and the settings of a student of it.
fn with_teacher() -> (Place, String) {
    let place = Place::new();
    place.train("--out teacher --set train.epochs=1 --set model.core.hidden_size=12");
    (place, taught_by("\"teacher\""))
}

fn taught_by(teacher: &str) -> String {
    format!("--set train.loss.kind=distill --set train.loss.teacher={teacher}")
}

#[track_caller]
fn assert_same_weights(place: &Place, one: &str, other: &str, same: bool) {
    let weights = |out: &str| fs::read(place.path(out).join("model.safetensors")).unwrap();
    assert_eq!(weights(one) == weights(other), same, "{one} and {other}");
}

#[test]
fn a_share_of_zero_is_the_plain_run_to_the_bit_and_evaluation_is_of_the_text() {
    let (place, taught) = with_teacher();
    place.train("--out plain --set train.epochs=1");
    place.train(&format!("--out none --set train.epochs=1 {taught} --set train.loss.alpha=0"));
    let message = place.train(&format!("--out student --set train.epochs=1 {taught}"));
    assert!(message.contains("teacher teacher: recurrent highway network"), "{message}");
    assert_same_weights(&place, "plain", "none", true);
    assert_same_weights(&place, "plain", "student", false);
    let first = |out: &str| place.events(out, "epoch")[0].clone();
    for key in ["train_nats_per_token", "valid_nats_per_token", "grad_norm"] {
        assert_eq!(first("plain")[key], first("none")[key], "{key}");
        assert_ne!(first("plain")[key], first("student")[key], "{key}");
    }
    let valid = place.json_of("eval student --split valid --protocol batched --json");
    let best = place.json("student/result.json")["valid_nats_per_token"].as_f64().unwrap();
    assert!((valid["nats_per_token"].as_f64().unwrap() - best).abs() < 1e-9);
}

#[test]
fn the_teacher_is_watched_as_it_reads_the_training_split_and_is_not_needed_later() {
    let (place, taught) = with_teacher();
    place.train(&format!("--out student --set train.epochs=2 {taught}"));
    // Its state is carried and reset where the student's is, and nothing is dropped in it.
    let own = place.json_of("eval teacher --split train --protocol batched --json")["nats_per_token"].clone();
    let epochs = place.events("student", "epoch");
    assert_eq!(epochs.len(), 2);
    for epoch in &epochs {
        let watched = epoch["teacher_nats_per_token"].as_f64().unwrap();
        assert!((watched - own.as_f64().unwrap()).abs() < 1e-6, "{watched} for {own}");
    }
    assert!(place.events("teacher", "epoch")[0].get("teacher_nats_per_token").is_none());
    fs::remove_dir_all(place.path("teacher")).unwrap();
    place.json_of("eval student --json");
    place.fails("train student --resume --set train.epochs=3", 4, &["teacher", "train.loss.teacher"]);
}

#[test]
fn students_of_several_teachers_with_masks_resume_exactly() {
    let (place, _) = with_teacher();
    let lstm = "--set model.core={kind=\"lstm\",layers=2,hidden_size=9}";
    place.train(&format!("--out other --max-steps 9 {lstm}"));
    let settings = format!(
        "{} --set train.loss.weights=[1.0,2.0] --set train.loss.temperature=2 --set train.loss.top_k=5 \
         --set train.loss.teacher_mc=2 --set train.window=variable --set train.state_reset=0.2 --set train.epochs=2",
        taught_by("[\"teacher\",\"other\"]")
    );
    place.train(&format!("--out whole {settings}"));
    let steps = place.json("whole/result.json")["steps"].as_u64().unwrap();
    for (index, stop) in [steps / 5, steps / 2, steps - 1].into_iter().enumerate() {
        let resume = if index == 0 { "" } else { "--resume" };
        place.train(&format!("--out pieces {settings} {resume} --max-steps {stop}"));
    }
    place.train(&format!("--out pieces {settings} --resume --threads 1"));
    for (whole, pieces) in place.fingerprint("whole").into_iter().zip(place.fingerprint("pieces")) {
        assert_eq!(whole, pieces);
    }
}

#[test]
fn a_resumed_run_keeps_its_teacher_wherever_that_lies_and_refuses_another() {
    let (place, taught) = with_teacher();
    place.train(&format!("--out student {taught} --max-steps 3"));
    place.train("--out other --max-steps 1 --set model.core.hidden_size=12 --set train.seed=2");
    place.fails(
        &format!("train tiny.toml --out student --resume {}", taught_by("\"other\"")),
        2,
        &["--resume: the run was taught by weights with SHA-256", "train.loss.teacher has"],
    );
    fs::rename(place.path("teacher"), place.path("moved")).unwrap();
    place.train(&format!("--out student --resume {} --max-steps 6", taught_by("\"moved\"")));
    place.fails("train tiny.toml --out student --resume", 2, &["train.loss.kind was"]);
}

#[test]
fn what_cannot_teach_is_refused_before_there_is_a_directory() {
    let (place, taught) = with_teacher();
    place.write("other.txt", format!("{}!\n", PLAY).repeat(12));
    place.train("--out longer --corpus other.txt --max-steps 1");
    place.train("--out words --set corpus.unit=word --max-steps 1");
    place.train("--out still --set train.dropout={} --max-steps 1");
    let fails = |settings: &str, code: i32, parts: &[&str]| {
        place.fails(&format!("train tiny.toml --out run {settings}"), code, parts);
    };
    fails(&taught_by("\"nowhere\""), 4, &["nowhere", "train.loss.teacher"]);
    fails(
        &taught_by("\"longer\""),
        4,
        &[
            "longer: the teacher has another vocabulary",
            "tokens by char",
            "there and",
            "longer/tokenizer.json",
        ],
    );
    fails(&taught_by("\"words\""), 4, &["words: the teacher has another vocabulary", "by word", "by char"]);
    fails("--set train.loss.kind=distill", 2, &["train.loss.teacher = CHECKPOINT, or --init-from"]);
    fails(&taught_by("[]"), 2, &["train.loss.teacher is an empty list"]);
    fails(&taught_by("3"), 2, &["a checkpoint's name, or a list of names"]);
    let still = taught_by("\"still\"");
    fails(
        &format!("{still} --set train.loss.teacher_mc=3"),
        4,
        &["its recipe has no dropout", "teacher_mc = 3"],
    );
    for (setting, part) in [
        ("alpha=1.5", "train.loss.alpha is 1.5, wanted a share of 0 to 1"),
        ("temperature=0", "train.loss.temperature is 0, wanted a number above 0"),
        ("weights=[1.0,2.0]", "2 numbers for 1 teachers"),
        ("weights=[0.0]", "weights has 0, wanted numbers above 0"),
        ("top=3", "unknown field `top`"),
    ] {
        fails(&format!("{taught} --set train.loss.{setting}"), 2, &[part]);
    }
    fails(&format!("{taught} --set train.fraternal.kappa=0.1"), 2, &["not for one run"]);
    place.fails(&format!("train mnist-highway --out run {taught}"), 2, &["train.loss is for text"]);
    assert!(!place.path("run").exists());
    // With the teacher's vocabulary, symbols that it lacks are unknown.
    place.train(&format!(
        "--out short {taught} --corpus other.txt --set corpus.tokenizer=teacher/tokenizer.json --max-steps 2"
    ));
}

#[test]
fn a_teacher_that_is_worse_than_its_student_is_pointed_out() {
    let (place, _) = with_teacher();
    place.train("--out beginner --max-steps 2");
    for (teacher, warnings) in [("teacher", 0), ("beginner", 1)] {
        let other = taught_by(&format!("\"{teacher}\""));
        let output = place.rhn(&format!("train tiny.toml --out of-{teacher} {other} --set train.epochs=1"));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let rows = run::stdout(&output);
        assert_eq!(rows.lines().filter(|line| line.trim_start().starts_with("teach")).count(), 1, "{rows}");
        assert_eq!(rows.matches("worse than the student").count(), warnings, "{rows}");
    }
}
