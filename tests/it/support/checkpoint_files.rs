//! A tiny checkpoint to write, break and read.

use candle_core::{Device, Tensor};
use rhn::model::TensorSpec;
use rhn::storage::{CONFIG, MODEL, RECIPE, TOKENIZER, save_tensors};
use std::collections::BTreeMap;

pub(crate) type Files = Vec<(&'static str, Vec<u8>)>;

/// The names and shapes of a word RHN with V = 5, H = 3, L = 2, tied.
pub(crate) fn expected() -> BTreeMap<String, TensorSpec> {
    let shapes: [(&str, &[usize]); 5] = [
        ("embedding.weight", &[5, 3]),
        ("core.0.input.weight", &[3, 6]),
        ("core.0.recurrent.weight", &[2, 3, 6]),
        ("core.0.bias", &[2, 6]),
        ("output.bias", &[5]),
    ];
    shapes.iter().map(|(name, shape)| (name.to_string(), TensorSpec::weight(shape))).collect()
}

/// Weights that all are `value`.
pub(crate) fn weights(value: f32) -> BTreeMap<String, Tensor> {
    let full = |shape: Vec<usize>| Tensor::full(value, shape, &Device::Cpu).unwrap();
    expected().into_iter().map(|(name, spec)| (name, full(spec.shape))).collect()
}

/// The published files of a model whose weights all are `value`.
pub(crate) fn files(value: f32) -> Files {
    let config = r#"{"model_type":"rhn","vocab_size":5,"embedding":{"kind":"word"},
        "core":{"kind":"rhn","layers":1,"hidden_size":3,"recurrence_depth":2,"transform_bias":-2.0},
        "output":{"tied":true}}"#;
    vec![
        (CONFIG, config.into()),
        (MODEL, save_tensors(&weights(value)).unwrap()),
        (TOKENIZER, format!(r#"{{"version":"1.0","value":{value}}}"#).into_bytes()),
        (RECIPE, format!("# value {value}\n").into_bytes()),
    ]
}
