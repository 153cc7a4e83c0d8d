//! A run of each format that there ever was is read, evaluated to the same number and gone on with; one of a later
//! format is refused and not gone back behind.

use crate::support::run::{PLAY, Place, stderr};
use std::fs;
use std::path::Path;

/// For each format: what `rhn eval --precision f64` said of the checkpoint in `tests/formats/` when it was made.
const NATS: [(&str, f64); 1] = [("1", NATS_1)];
const NATS_1: f64 = 2.525_535_799_172_553_6;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// The run of this format, in the directory `run`, beside its corpus.
fn place(format: &str) -> Place {
    let place = Place::new();
    place.write("corpus.txt", PLAY.repeat(12));
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(format), &place.path("run"));
    place
}

#[test]
fn a_checkpoint_of_each_format_is_evaluated_and_its_run_goes_on() {
    for (format, nats) in NATS {
        let place = place(format);
        let output = place.rhn("eval run --json --precision f64");
        let found: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
        assert!((found["nats_per_token"].as_f64().unwrap() - nats).abs() < 1e-9, "{format}: {found}");
        let output = place.rhn("train run/recipe.toml --out run --resume");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stderr(&output).contains("going on after step 50"), "{}", stderr(&output));
        assert_eq!(place.json("run/result.json")["steps"], 60);
    }
}

#[test]
fn a_state_of_a_later_format_is_refused_and_not_gone_back_behind() {
    for name in ["manifest.json", "state.json"] {
        let place = place("1");
        let newest = place.newest("run");
        let text = fs::read_to_string(newest.join(name)).unwrap();
        fs::write(newest.join(name), text.replace("\"format\": 1", "\"format\": 2")).unwrap();
        if name == "state.json" {
            sign_again(&newest, name);
        }
        let wanted = [name, "has format 2, this program reads 1", "update rhn"];
        place.fails("train run/recipe.toml --out run --resume", 4, &wanted);
        assert!(newest.exists());
    }
}

/// Puts the file's length and hash into the manifest, as one who wrote it would.
pub(crate) fn sign_again(directory: &Path, name: &str) {
    let path = directory.join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let bytes = fs::read(directory.join(name)).unwrap();
    manifest["files"][name] =
        serde_json::json!({"bytes": bytes.len(), "sha256": rhn::digest::sha256(&bytes)});
    fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
}
