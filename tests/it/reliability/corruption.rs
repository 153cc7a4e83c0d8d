//! Damage of every kind to a real run: found before anything is used, the file named, exit code 4.

use super::formats::sign_again;
use crate::support::run::{Place, states};
use candle_core::{Device, Tensor};

use rhn::error::{Error, Result};
use rhn::predict::Loaded;
use rhn::storage::{load_tensors, save_tensors};
use rhn::train::resume::Resumed;
use rhn_kernels::precision::Precision;
use rhn_kernels::rng::Rng;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

/// What other commands read.
const PUBLISHED: [&str; 5] =
    ["config.json", "manifest.json", "model.safetensors", "recipe.toml", "tokenizer.json"];

/// A run that was stopped with two states.
fn damaged() -> Place {
    let place = Place::new();
    for steps in [20, 40] {
        place.train(&format!("--out run --resume --max-steps {steps}"));
    }
    place
}

/// Reads all that `eval`, `sample` and `score` use.
fn read_published(out: &Path) -> Result<()> {
    Loaded::open(out.to_str().unwrap(), Precision::F32, &Device::Cpu)?.recipe().map(drop)
}

/// The step that a resumed run would go on from, and what is said of states that were passed over.
fn read_states(out: &Path) -> Result<(u64, String)> {
    let told = RefCell::new(String::new());
    let resumed = Resumed::find(out, |text| told.borrow_mut().push_str(text))?.expect("a state");
    Ok((resumed.position.step, told.into_inner()))
}

/// A file of a run, and whether the published model's readers or a resumed run would meet its damage.
struct File {
    path: PathBuf,
    of_state: bool,
}

fn files(out: &Path) -> Vec<File> {
    let newest = states(out).pop().unwrap();
    let published = PUBLISHED.map(|name| File { path: out.join(name), of_state: false });
    let state = fs::read_dir(newest).unwrap();
    let state = state.map(|entry| File { path: entry.unwrap().path(), of_state: true });
    let mut all: Vec<File> = published.into_iter().chain(state).collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(all.len(), 5 + 7);
    all
}

impl File {
    #[track_caller]
    fn assert_refused(&self, result: Result<()>, case: &str) {
        let name = self.path.file_name().unwrap().to_str().unwrap();
        let error = result.expect_err(&format!("{name}, {case}: unnoticed"));
        assert_eq!(error.exit_code(), 4, "{case}: {error}");
        let text = error.to_string();
        assert!(text.contains(name), "{name}, {case}: {error}");
    }

    /// The damage is found: what is published is refused, a state is passed over by name (one that claims to be of a
    /// later format stops the resume).
    #[track_caller]
    fn assert_found(&self, out: &Path, case: &str) {
        if !self.of_state {
            return self.assert_refused(read_published(out), case);
        }
        match read_states(out) {
            Ok((step, told)) => {
                let name = self.path.file_name().unwrap().to_str().unwrap();
                assert!(
                    step == 20 && told.contains(name),
                    "{case}: {} at {step}: {told:?}",
                    self.path.display()
                );
            }
            Err(error @ Error::Newer { .. }) => self.assert_refused(Err(error), case),
            Err(error) => panic!("{case}: {error}"),
        }
    }

    /// With these bytes in its place; the old ones come back after.
    #[track_caller]
    fn assert_found_with(&self, out: &Path, bytes: &[u8], case: &str) {
        let whole = fs::read(&self.path).unwrap();
        fs::write(&self.path, bytes).unwrap();
        self.assert_found(out, case);
        fs::write(&self.path, whole).unwrap();
    }
}

fn flip_bits(count: usize) {
    let place = damaged();
    let (out, mut draw) = (place.path("run"), Rng::keyed(1, "flips", 0));
    let files = files(&out);
    for flip in 0..count {
        let file = &files[flip % files.len()];
        let mut bytes = fs::read(&file.path).unwrap();
        let bit = (draw.uniform() * (bytes.len() * 8) as f64) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        file.assert_found_with(&out, &bytes, &format!("bit {bit}"));
    }
    read_published(&out).unwrap();
    assert_eq!(read_states(&out).unwrap(), (40, String::new()));
}

#[test]
fn two_hundred_flipped_bits_are_all_found() {
    flip_bits(200);
}

#[test]
#[ignore = "long: twelve thousand bits"]
fn twelve_thousand_flipped_bits_are_all_found() {
    flip_bits(12_000);
}

/// Cuts every file at every `stride`-th length, and at those where something begins or ends.
fn truncate(stride: usize) -> usize {
    let place = damaged();
    let (out, mut cuts) = (place.path("run"), 0);
    for file in files(&out) {
        let whole = fs::read(&file.path).unwrap();
        let length = whole.len();
        let end = length - usize::from(file.path.ends_with("manifest.json")); // its last line end means nothing
        let edges = [1, 7, 8, 9, length / 2, length - 2, length - 1];
        for cut in (0..length).step_by(stride).chain(edges).filter(|&cut| cut < end) {
            file.assert_found_with(&out, &whole[..cut], &format!("cut to {cut} of {length} bytes"));
            cuts += 1;
        }
        let longer = [&whole[..], b"\0"].concat();
        file.assert_found_with(&out, &longer, "with a byte more");
    }
    cuts
}

#[test]
fn files_cut_at_lengths_of_every_class_are_found() {
    truncate(397);
}

#[test]
#[ignore = "long: every length of every file"]
fn files_cut_at_every_length_are_found() {
    println!("{} lengths", truncate(1));
}

#[test]
fn missing_empty_swapped_and_foreign_files_are_found() {
    let place = damaged();
    let out = place.path("run");
    let all = files(&out);
    for (file, other) in all.iter().zip(all.iter().cycle().skip(1)) {
        let name = file.path.file_name().unwrap();
        file.assert_found_with(&out, b"", "empty");
        let swapped = fs::read(&other.path).unwrap();
        if swapped != fs::read(&file.path).unwrap() {
            file.assert_found_with(&out, &swapped, "another file's content");
        }
        if file.of_state || name != "manifest.json" {
            let whole = fs::read(&file.path).unwrap();
            fs::remove_file(&file.path).unwrap();
            file.assert_found(&out, "missing");
            fs::write(&file.path, whole).unwrap();
        }
    }
    for extra in ["extra.safetensors", "config.json.bak", "state/step-extra", "state/readme"] {
        place.write(&format!("run/{extra}"), "not of this run");
    }
    read_published(&out).unwrap(); // nobody asked for them
    assert_eq!(read_states(&out).unwrap(), (40, String::new()));
}

#[test]
fn a_checkpoint_without_its_manifest_is_said_to_be_unverified() {
    let place = damaged();
    fs::remove_file(place.path("run/manifest.json")).unwrap();
    let output = place.rhn("eval run --json");
    assert!(crate::support::run::stderr(&output).contains("no manifest; the files could not be verified"));
}

/// Replaces a tensor, or leaves it out, in a file whose manifest then agrees.
pub(crate) fn replace_tensor(directory: &Path, name: &str, tensor: Option<Tensor>) {
    let path = directory.join(rhn::storage::MODEL);
    let mut tensors = load_tensors(&path, &fs::read(&path).unwrap(), &Device::Cpu).unwrap();
    tensors.remove(name);
    tensors.extend(tensor.map(|tensor| (name.to_string(), tensor)));
    fs::write(&path, save_tensors(&tensors).unwrap()).unwrap();
    sign_again(directory, rhn::storage::MODEL);
}

#[test]
fn weights_that_no_run_wrote_are_refused_by_every_command_though_the_manifest_agrees() {
    let full = |value: f32, shape: &[usize]| Some(Tensor::full(value, shape, &Device::Cpu).unwrap());
    for (tensor, what) in [
        (full(f32::NAN, &[2, 16]), "not finite"),
        (full(f32::INFINITY, &[2, 16]), "not finite"),
        (full(0.0, &[2, 15]), "has shape [2, 15], config.json wants [2, 16]"),
        (None, "is missing"),
    ] {
        let place = damaged();
        let newest = place.newest("run");
        for directory in [&place.path("run"), &newest] {
            replace_tensor(directory, "core.0.bias", tensor.clone());
        }
        let parts = ["model.safetensors", "core.0.bias", what];
        for command in ["eval run", "sample run", "score run", "train tiny.toml --out other --init-from run"]
        {
            place.fails(command, 4, &parts);
        }
        let (step, told) = read_states(&place.path("run")).unwrap();
        assert!(step == 20 && parts.iter().all(|part| told.contains(part)), "{told}");
    }
}

#[test]
fn a_wrong_size_of_the_vocabulary_is_refused_though_the_manifest_agrees() {
    for (change, wanted) in
        [("\"vocab_size\": 19", "vocab_size is 19"), ("\"vocab_size\": 0", "a vocabulary of 0")]
    {
        let place = damaged();
        let config = place.path("run/config.json");
        let text = fs::read_to_string(&config).unwrap();
        assert!(text.contains("\"vocab_size\": 18"), "{text}");
        fs::write(&config, text.replace("\"vocab_size\": 18", change)).unwrap();
        sign_again(&place.path("run"), "config.json");
        for command in ["eval run", "sample run", "score run"] {
            place.fails(command, 4, &["config.json", wanted]);
        }
    }
}

#[test]
fn a_state_that_is_whole_but_not_understood_is_passed_over_by_name() {
    for (name, content) in [
        ("state.json", r#"{"format":1,"epoch":"first"}"#),
        ("recipe.toml", "[train]\nepochs = 3\n"),
        ("tokenizer.json", "{}"),
        ("config.json", r#"{"model_type":"rhn","vocab_size":18}"#),
        ("optimizer.safetensors", "no tensors"),
    ] {
        let place = damaged();
        let newest = place.newest("run");
        fs::write(newest.join(name), content).unwrap();
        sign_again(&newest, name);
        let message = place.train("--out run --resume");
        for part in ["passed over", "step-0000000040", name, "going on after step 20"] {
            assert!(message.contains(part), "no {part:?} in {message}");
        }
    }
}

/// The best weights are lost; a run that goes on says so at once, publishes those that it has, and ends with the best of them and
/// of what follows.
#[test]
fn a_run_whose_published_model_is_lost_publishes_the_best_of_what_follows() {
    for name in ["model.safetensors", "tokenizer.json", "config.json", "manifest.json"] {
        let place = Place::new();
        place.train("--out run --max-steps 60 --set train.patience=9");
        match name {
            "manifest.json" => fs::remove_file(place.path("run/manifest.json")).unwrap(),
            name => place.write(&format!("run/{name}"), "{}"),
        }
        let said = place.train("--out run --resume --set train.patience=9 --max-steps 61");
        assert!(said.contains(name) && said.contains("the best is published"), "{name}: {said}");
        // The validation before the loss was of a model that nobody has; that of the one that is there counts.
        let measured = &place.events("run", "evaluation")[0];
        assert_eq!((&measured["step"], &measured["epoch"]), (&60.into(), &2.into()));
        assert_eq!(place.events("run", "resume")[0]["lost_best"], true);
        let inspected = place.json_of("inspect run --json");
        assert_eq!(inspected["best"]["step"], 60, "{name}");
        let compared = place.json_of("compare run --json --measure nats");
        assert_eq!(compared["runs"][0]["best_valid"], measured["valid_nats_per_token"], "{name}");
        let said = place.train("--out run --resume --set train.patience=9");
        assert!(!said.contains("lost"), "{name}: {said}");
        let result = place.json("run/result.json");
        assert!(result["best_step"].as_u64().unwrap() >= 60, "{name}: {result}");
        assert_eq!(place.json_of("eval run --json")["nats_per_token"], result["nats_per_token"]);
    }
}

/// Lost after its last epoch, the model is that of the state.
#[test]
fn a_run_whose_published_model_is_lost_at_its_end_publishes_its_last_weights() {
    let place = Place::new();
    place.train("--out run");
    let wanted = place.json("run/result.json");
    fs::remove_file(place.path("run/result.json")).unwrap();
    fs::remove_file(place.path("run/model.safetensors")).unwrap();
    let said = place.train("--out run --resume");
    assert!(said.contains("model.safetensors") && said.contains("is published"), "{said}");
    let result = place.json("run/result.json");
    assert_eq!((&result["best_epoch"], &result["best_step"]), (&3.into(), &wanted["steps"]));
    assert_eq!(place.json_of("eval run --json")["nats_per_token"], result["nats_per_token"]);
}

#[test]
fn damaged_events_are_named_when_a_run_goes_on() {
    let place = Place::new();
    place.train("--out run --max-steps 20");
    place.write("run/metrics.jsonl", "garbage\n");
    let said = place.train("--out run --resume");
    assert!(
        said.contains("metrics.jsonl: line 1: is no event") && said.contains("until that line is removed"),
        "{said}"
    );
}
