//! Checkpoints without a manifest: what can be read is, what does not fit is refused by name.

use super::{assert_refused, published, published_directory};
use crate::support::checkpoint_files::{files, weights};
use candle_core::{DType, Device, Tensor};
use rhn::checkpoint::Checkpoint;
use rhn::model::TensorSpec;
use rhn::storage::{MANIFEST, MODEL, save_tensors};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A checkpoint without a manifest, with some files replaced.
fn foreign(replaced: &[(&str, Vec<u8>)]) -> TempDir {
    let out = published_directory(1.0);
    fs::remove_file(out.path().join(MANIFEST)).unwrap();
    for (name, bytes) in replaced {
        fs::write(out.path().join(name), bytes).unwrap();
    }
    out
}

#[test]
fn another_programs_checkpoint_is_read_and_said_to_be_unverified() {
    let out = foreign(&[]);
    assert!(!Checkpoint::open(out.path()).unwrap().verified);
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        let stored =
            weights(1.0).into_iter().map(|(name, weight)| (name, weight.to_dtype(dtype).unwrap())).collect();
        assert_eq!(published(foreign(&[(MODEL, save_tensors(&stored).unwrap())]).path()).unwrap(), 1.0);
    }
}

#[test]
fn tensors_that_do_not_belong_are_refused_by_name() {
    let full = |value: f32, shape: &[usize]| Tensor::full(value, shape, &Device::Cpu).unwrap();
    let bad_element = |value: f32| {
        let mut bias = vec![1.0; 12];
        bias[7] = value;
        Tensor::from_vec(bias, (2, 6), &Device::Cpu).unwrap()
    };
    let too_large = (full(1.0, &[2, 6]).to_dtype(DType::F64).unwrap() * 1e300).unwrap();
    let cases = [
        ("core.0.bias", Some(full(1.0, &[3, 6])), "has shape [3, 6], config.json wants [2, 6]"),
        ("core.0.bias", None, "\"core.0.bias\" is missing"),
        ("core.1.bias", Some(full(1.0, &[2, 6])), "\"core.1.bias\" belongs to no model"),
        ("core.0.bias", Some(full(1.0, &[2, 6]).to_dtype(DType::U32).unwrap()), "is of u32, wanted f32"),
        ("core.0.bias", Some(bad_element(f32::NAN)), "\"core.0.bias\" is not finite at [1, 1]"),
        ("core.0.bias", Some(bad_element(f32::INFINITY)), "\"core.0.bias\" is not finite at [1, 1]"),
        ("core.0.bias", Some(too_large), "is not finite at [0, 0]"),
    ];
    for (name, tensor, wanted) in cases {
        let mut stored = weights(1.0);
        stored.remove(name);
        stored.extend(tensor.map(|tensor| (name.to_string(), tensor)));
        let out = foreign(&[(MODEL, save_tensors(&stored).unwrap())]);
        let error = published(out.path()).unwrap_err();
        assert!(error.to_string().contains(wanted) && error.to_string().contains(MODEL), "{error}");
        assert_eq!(error.exit_code(), 4);
    }
}

#[test]
fn a_spelling_is_kept_as_whole_numbers_and_must_name_characters() {
    let expected = BTreeMap::from([
        ("embedding.characters".to_string(), TensorSpec::weight(&[4, 2])),
        ("embedding.spelling".to_string(), TensorSpec::indices(&[2, 3], 4)),
    ]);
    let load = |spelled: Vec<i64>| {
        let characters = Tensor::ones((4, 2), DType::F32, &Device::Cpu).unwrap();
        let spelling = Tensor::from_vec(spelled, (2, 3), &Device::Cpu).unwrap();
        let stored = [("embedding.characters", characters), ("embedding.spelling", spelling)]
            .map(|(name, tensor)| (name.to_string(), tensor));
        let bytes = save_tensors(&stored.into()).unwrap();
        rhn::storage::load_weights(Path::new(MODEL), &bytes, &expected, DType::F32.into(), &Device::Cpu)
    };
    let read = load(vec![1, 2, 3, 0, 0, 1]).unwrap();
    assert_eq!(read["embedding.spelling"].to_vec2::<u32>().unwrap(), [[1, 2, 3], [0, 0, 1]]);
    for bad in [4, -1, i64::MAX] {
        let error = load(vec![1, 2, 3, 0, bad, 1]).unwrap_err().to_string();
        assert!(error.contains(&format!("is {bad} at [1, 1], wanted 0 or more and less than 4")), "{error}");
    }
}

#[test]
fn a_file_that_is_no_safetensors_file_is_refused() {
    let huge = [&(17u64 << 20).to_le_bytes()[..], b"{}"].concat();
    let beyond = [&100u64.to_le_bytes()[..], b"{}"].concat();
    let not_json = [&4u64.to_le_bytes()[..], b"nope"].concat();
    let overlap = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#;
    let overlap = [&(overlap.len() as u64).to_le_bytes()[..], overlap, &[0; 4]].concat();
    for bytes in [b"PK\x03\x04".to_vec(), huge, beyond, not_json, overlap, vec![0xff; 64]] {
        assert_refused(
            foreign(&[(MODEL, bytes)]).path(),
            "model.safetensors: is not a safetensors file",
            "foreign",
        );
    }
}

#[test]
fn a_config_that_is_not_understood_is_refused() {
    let config = |text: &str| foreign(&[("config.json", text.into())]);
    for (text, wanted) in [
        ("{", "is not JSON"),
        ("[]", "model_type is null"),
        (r#"{"model_type":"gpt2"}"#, r#"model_type is "gpt2", wanted "rhn""#),
        (r#"{"model_type":"rhn"}"#, "is not a model's configuration"),
        (r#"{"model_type":"rhn","vocab_size":-1}"#, "is not a model's configuration"),
        (&"[".repeat(100_000), "is not JSON"),
        (&" ".repeat(2 << 20), "has 2097152 bytes, at most 1048576"),
    ] {
        assert_refused(config(text).path(), wanted, wanted);
    }
    let zero = files(1.0).swap_remove(0).1;
    let zero = String::from_utf8(zero).unwrap().replace(r#""hidden_size":3"#, r#""hidden_size":0"#);
    assert_refused(config(&zero).path(), "hidden_size", "no units");
}

#[test]
fn a_tokenizer_of_another_size_is_refused() {
    let out = published_directory(1.0);
    let checkpoint = Checkpoint::open(out.path()).unwrap();
    checkpoint.check_vocabulary(5).unwrap();
    let error = checkpoint.check_vocabulary(6).unwrap_err().to_string();
    assert!(error.contains("vocab_size is 5") && error.contains("has a vocabulary of 6"), "{error}");
}
