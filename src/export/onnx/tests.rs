//! Where the weights are; what the graphs compute is in `tests/it/export`.

use super::super::subject::Subject;
use super::files;
use crate::checkpoint::{Checkpoint, publish};
use crate::config::Unit;
use crate::predict::tiny;
use crate::storage::{CONFIG, MODEL, TOKENIZER, save_tensors, to_json};

#[test]
fn large_weights_are_in_one_file_beside_both_graphs_and_small_ones_in_each() {
    let directory = tempfile::tempdir().unwrap();
    let tokenizer = tiny::tokenizer(Unit::Char, "abc\n");
    let (config, parameters) = tiny::parameters(tokenizer.vocab_size(), 0.5);
    let checkpoint = [
        (CONFIG, to_json(&config)),
        (MODEL, save_tensors(&parameters.tensors()).unwrap()),
        (TOKENIZER, tokenizer.to_json().into_bytes()),
    ];
    publish(directory.path(), &checkpoint).unwrap();
    let subject = Subject::new(&Checkpoint::open(directory.path()).unwrap()).unwrap();
    let inside = files(&subject, super::MOST_INSIDE).unwrap();
    let outside = files(&subject, 100).unwrap();
    let names =
        |files: &[(&str, Vec<u8>)]| files.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&inside), ["step.onnx", "sequence.onnx", "tokenizer.json", "README.md"]);
    assert_eq!(names(&outside)[4..], ["weights.bin"]);
    let weights: usize = parameters.tensors().values().map(|tensor| 4 * tensor.elem_count()).sum();
    assert!(outside[4].1.len() >= weights && outside[0].1.len() + weights < inside[0].1.len() + 1000);
    let bias = parameters.tensors()["output.bias"].to_dtype(candle_core::DType::F32).unwrap();
    let bias: Vec<u8> = bias.to_vec1::<f32>().unwrap().into_iter().flat_map(f32::to_le_bytes).collect();
    let holds = |bytes: &[u8]| bytes.windows(bias.len()).any(|found| found == bias);
    assert!([&inside[0].1, &inside[1].1, &outside[4].1].into_iter().all(|bytes| holds(bytes)));
    assert!(!holds(&outside[0].1) && !holds(&outside[1].1));
}
