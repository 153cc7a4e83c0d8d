//! Truncated, flipped, dropped, emptied and swapped files are refused by name.

use super::{assert_refused, copy, listing, published, published_directory};
use crate::support::checkpoint_files::files;
use rhn::checkpoint::Checkpoint;
use rhn::storage::MANIFEST;
use rhn_kernels::rng::Rng;
use std::fs;
use std::path::Path;
use tempfile::tempdir;

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let whole = published_directory(1.0);
    for (name, bytes) in files(1.0) {
        let length = bytes.len();
        for cut in [0, 1, 7, 8, 9, length / 2, length - 8, length - 1].into_iter().filter(|&cut| cut < length)
        {
            let out = tempdir().unwrap();
            copy(whole.path(), out.path());
            fs::write(out.path().join(name), &bytes[..cut]).unwrap();
            assert_refused(out.path(), name, &format!("{name} cut to {cut} of {length} bytes"));
        }
        fs::write(whole.path().join(name), [&bytes[..], b"\0"].concat()).unwrap();
        assert_refused(whole.path(), name, &format!("{name} with a byte more"));
        fs::write(whole.path().join(name), &bytes).unwrap();
    }
    let manifest = fs::read(whole.path().join(MANIFEST)).unwrap();
    for cut in 0..manifest.len() - 2 {
        fs::write(whole.path().join(MANIFEST), &manifest[..cut]).unwrap();
        assert_refused(whole.path(), MANIFEST, &format!("manifest cut to {cut} bytes"));
    }
}

#[test]
fn two_hundred_flipped_bits_are_all_found() {
    let whole = published_directory(1.0);
    let mut draw = Rng::keyed(1, "flips", 0);
    let names: Vec<&str> = files(1.0).iter().map(|(name, _)| *name).chain([MANIFEST]).collect();
    for flip in 0..200 {
        let name = names[flip % names.len()];
        let path = whole.path().join(name);
        let bytes = fs::read(&path).unwrap();
        let bit = (draw.uniform() * (bytes.len() * 8) as f64) as usize;
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        // A bit of the manifest's white space may change nothing; then what is read must still be right.
        match published(whole.path()) {
            Ok(value) => assert!(name == MANIFEST && value == 1.0, "bit {bit} of {name} went unnoticed"),
            Err(error) => assert_eq!(error.exit_code(), 4, "bit {bit} of {name}: {error}"),
        }
        fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn dropped_emptied_and_swapped_files_are_refused() {
    let whole = published_directory(1.0);
    for (name, bytes) in files(1.0) {
        let path = whole.path().join(name);
        fs::remove_file(&path).unwrap();
        assert_refused(whole.path(), name, "dropped");
        fs::create_dir(&path).unwrap();
        assert_refused(whole.path(), name, "a directory");
        fs::remove_dir(&path).unwrap();
        let other = files(2.0).into_iter().find(|(other, _)| *other == name).unwrap().1;
        fs::write(&path, &other).unwrap();
        if other != bytes {
            assert_refused(whole.path(), name, "of another version");
        }
        fs::write(&path, &bytes).unwrap();
    }
    let (config, tokenizer) = (whole.path().join("config.json"), whole.path().join("tokenizer.json"));
    let aside = whole.path().join("aside");
    for (from, to) in [(&config, &aside), (&tokenizer, &config), (&aside, &tokenizer)] {
        fs::rename(from, to).unwrap();
    }
    assert_refused(whole.path(), "config.json", "swapped");
}

#[test]
fn a_path_that_is_no_checkpoint_is_told_apart() {
    let out = tempdir().unwrap();
    let message = |path: &Path| Checkpoint::open(path).unwrap_err().to_string();
    assert!(message(&out.path().join("absent")).contains("`rhn train` makes a checkpoint"));
    assert!(message(out.path()).contains("config.json: is missing"));
    fs::write(out.path().join("file"), "x").unwrap();
    assert!(message(&out.path().join("file")).contains("is a file; a checkpoint is a directory"));
}

#[cfg(unix)]
#[test]
fn a_checkpoint_of_symbolic_links_is_read() {
    let (whole, out) = (published_directory(1.0), tempdir().unwrap());
    for (name, _) in listing(whole.path()) {
        std::os::unix::fs::symlink(&name, out.path().join(Path::new(&name).file_name().unwrap())).unwrap();
    }
    assert_eq!(published(out.path()).unwrap(), 1.0);
    fs::remove_file(whole.path().join(MANIFEST)).unwrap();
    assert_refused(out.path(), MANIFEST, "a manifest that is a dangling link is not none");
}
