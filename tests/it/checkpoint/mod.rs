//! Promises of a checkpoint on disk: a kill leaves the old or the new one, damage is found and the file named.

mod damage;
mod foreign;
mod interruption;
mod training_state;

use crate::support::checkpoint_files;
use candle_core::{DType, Device};
use checkpoint_files::{expected, files, weights};
use rhn::checkpoint::{self, Checkpoint};
use rhn::storage::save_tensors;
use std::fs;
use std::path::Path;
use tempfile::{TempDir, tempdir};

/// The value that all weights of the published model have.
pub(crate) fn published(out: &Path) -> rhn::error::Result<f32> {
    let checkpoint = Checkpoint::open(out)?;
    let weights = checkpoint.weights(&expected(), DType::F32, &Device::Cpu)?;
    let value = weights["output.bias"].to_vec1::<f32>()?[0];
    assert_eq!(checkpoint.recipe.unwrap_or_default(), format!("# value {value}\n"), "files of two versions");
    assert_eq!(checkpoint.tokenizer, format!(r#"{{"version":"1.0","value":{value}}}"#).into_bytes());
    Ok(value)
}

pub(crate) fn published_directory(value: f32) -> TempDir {
    let out = tempdir().unwrap();
    checkpoint::publish(out.path(), &files(value)).unwrap();
    out
}

/// Refused, with the file's name.
pub(crate) fn assert_refused(out: &Path, name: &str, case: &str) {
    let error = published(out).expect_err(case);
    assert_eq!(error.exit_code(), 4, "{case}: {error}");
    assert!(error.to_string().contains(name), "{case}: {error}");
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

pub(crate) fn listing(directory: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        found.push((entry.path().display().to_string(), entry.metadata().unwrap().len()));
        if entry.path().is_dir() {
            found.extend(listing(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn what_was_published_is_read_back_bit_for_bit() {
    let out = published_directory(1.5);
    let checkpoint = Checkpoint::open(out.path()).unwrap();
    assert!(checkpoint.verified);
    assert_eq!(checkpoint.config.vocab_size, 5);
    let read = checkpoint.weights(&expected(), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(save_tensors(&read).unwrap(), save_tensors(&weights(1.5)).unwrap());
    checkpoint::publish(out.path(), &files(2.5)).unwrap();
    assert_eq!(published(out.path()).unwrap(), 2.5);
    let hidden = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    assert!(!fs::read_dir(out.path()).unwrap().any(|entry| hidden(&entry.unwrap())));
}

#[test]
fn equal_tensors_give_equal_bytes() {
    assert_eq!(save_tensors(&weights(1.0)).unwrap(), save_tensors(&weights(1.0)).unwrap());
    let bytes = save_tensors(&weights(1.0)).unwrap();
    let header = String::from_utf8_lossy(&bytes[8..60]).into_owned();
    assert!(header.starts_with(r#"{"__metadata__":{"format":"pt"},"core.0.bias""#), "{header}");
}
