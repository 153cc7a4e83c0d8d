//! Nothing lost, nothing wrong in silence: faults of the disk, kills, damage, signals, numbers, odd texts.
//!
//! Each test has a quick form; the long one is run by hand: `cargo test --test it reliability -- --ignored`.

mod corruption;
#[cfg(debug_assertions)] // a build for release has no faults
mod faults;
mod formats;
mod kills;
mod numbers;
#[cfg(unix)]
mod signals;
#[cfg(target_os = "linux")]
mod soak;
mod texts;

use crate::support::run;
use run::{Place, states};
use std::fs;
use std::path::{Path, PathBuf};

/// A run of a few steps that saves at each of them, validates twice and tests.
pub(crate) const SHORT: &str =
    "--set train.epochs=2 --set train.bptt_steps=30 --set train.save_minutes=0 --threads 1";

#[track_caller]
pub(crate) fn assert_same(place: &Place, one: &str, other: &str) {
    for (one, other) in place.fingerprint(one).into_iter().zip(place.fingerprint(other)) {
        assert_eq!(one, other);
    }
}

/// What a write, a publication or a save leaves that did not come to its end.
pub(crate) fn orphans(out: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = [out.to_path_buf(), out.join("state")]
        .iter()
        .flat_map(|directory| fs::read_dir(directory).into_iter().flatten())
        .map(|entry| entry.unwrap().path())
        .collect();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    all.retain(|path| name(path).starts_with('.') || name(path).ends_with(".tmp"));
    all
}

/// A finished run holds its files, its states and nothing else. A third state is what a kill leaves that came just
/// before the oldest was to go, if nothing was saved after it.
#[track_caller]
pub(crate) fn assert_tidy(place: &Place, out: &str) {
    assert_eq!(orphans(&place.path(out)), Vec::<PathBuf>::new());
    assert!(states(&place.path(out)).len() <= 3);
    for kind in ["start", "result"] {
        assert_eq!(place.events(out, kind).len(), 1, "{kind} of {out}");
    }
}
