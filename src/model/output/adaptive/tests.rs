//! An adaptive softmax against its definition.

use super::Adaptive;
use crate::model::builder::{Builder, Source};
use crate::model::clusters::AdaptiveShape;
use crate::model::layers::Output;
use crate::model::noise::Noise;
use crate::model::output::OutputSizes;
use candle_core::{D, DType, Device, Tensor, Var};
use rhn_kernels::precision::Precision;
use rhn_kernels::rng::Rng;
use std::cell::RefCell;
use std::collections::BTreeMap;

const SIZES: OutputSizes = OutputSizes { hidden: 8, embedding: 8, vocabulary: 20 };

fn random(purpose: &str, shape: &[usize]) -> Var {
    let mut rng = Rng::keyed(1, purpose, 0);
    let values = (0..shape.iter().product()).map(|_| 2.0 * rng.uniform() - 1.0);
    Var::from_vec(values.collect::<Vec<f64>>(), shape, &Device::Cpu).unwrap()
}

/// Clusters of 4, 5 and 11 words, with a bias.
fn weights() -> BTreeMap<String, Var> {
    let shapes: [(&str, &[usize]); 6] = [
        ("output.head.weight", &[6, 8]),
        ("output.head.bias", &[6]),
        ("output.tail.0.0.weight", &[4, 8]),
        ("output.tail.0.1.weight", &[5, 4]),
        ("output.tail.1.0.weight", &[2, 8]),
        ("output.tail.1.1.weight", &[11, 2]),
    ];
    shapes.iter().map(|(name, shape)| (name.to_string(), random(name, shape))).collect()
}

fn layer(weights: &BTreeMap<String, Var>, precision: Precision) -> Adaptive {
    let tensor = |(name, var): (&String, &Var)| {
        let tensor = var.as_tensor().clone();
        let same = tensor.dtype() == precision.dtype();
        (name.clone(), if same { tensor } else { tensor.to_dtype(precision.dtype()).unwrap() })
    };
    let tensors: BTreeMap<String, Tensor> = weights.iter().map(tensor).collect();
    let asked = RefCell::default();
    let shape = AdaptiveShape { cutoffs: vec![4, 9], div_value: 2.0, head_bias: true };
    let source = Source::Take(&tensors);
    Adaptive::build(&shape, SIZES, None, &Builder::new(&source, precision, &Device::Cpu, &asked)).unwrap()
}

/// The slow twin: ln p of every word in plain tensor operations, of which the targets' are taken.
fn slow_nats(layer: &Adaptive, ys: &Tensor, targets: &Tensor) -> Tensor {
    let log_probs = layer.logits(ys, &Noise::none()).unwrap();
    let taken = log_probs.gather(&targets.unsqueeze(2).unwrap(), 2).unwrap();
    taken.squeeze(2).unwrap().neg().unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(found: &Tensor, wanted: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(found.dims(), wanted.dims(), "{what}");
    for (found, wanted) in values(found).iter().zip(values(wanted)) {
        assert!((found - wanted).abs() <= tolerance * (1.0 + wanted.abs()), "{what}: {found} for {wanted}");
    }
}

#[test]
fn loss_and_gradients_are_those_of_all_log_probabilities() {
    let weights = weights();
    let layer = layer(&weights, Precision::F64);
    let ys = random("ys", &[3, 4, 8]);
    let targets: Vec<u32> = vec![0, 19, 4, 8, 3, 9, 10, 1, 5, 18, 2, 7]; // every cluster, both ends of each
    let targets = Tensor::from_vec(targets, (3, 4), &Device::Cpu).unwrap();
    let fast = layer.nats(&ys, &targets, &Noise::none()).unwrap();
    let slow = slow_nats(&layer, &ys, &targets);
    assert_close(&fast, &slow, 1e-13, "nats");
    let factors = Tensor::arange(1.0f64, 13.0, &Device::Cpu).unwrap().reshape((3, 4)).unwrap();
    let grads = |nats: &Tensor| (nats * &factors).unwrap().sum_all().unwrap().backward().unwrap();
    let [fast, slow] = [grads(&fast), grads(&slow)];
    for (name, var) in weights.iter().map(|(name, var)| (name.as_str(), var)).chain([("ys", &ys)]) {
        assert_close(fast.get(var).unwrap(), slow.get(var).unwrap(), 1e-12, name);
    }
}

#[test]
fn the_probabilities_of_all_words_sum_to_one() {
    let layer = layer(&weights(), Precision::F64);
    let sums = layer.logits(&random("ys", &[2, 1, 8]), &Noise::none()).unwrap();
    for sum in values(&sums.exp().unwrap().sum(D::Minus1).unwrap()) {
        assert!((sum - 1.0).abs() < 1e-14);
    }
}

#[test]
fn a_tail_that_no_target_is_in_has_no_gradient() {
    let weights = weights();
    let layer = layer(&weights, Precision::F64);
    let targets = Tensor::new(&[[3u32, 10]], &Device::Cpu).unwrap();
    let nats = layer.nats(&random("ys", &[1, 2, 8]), &targets, &Noise::none()).unwrap();
    let grads = nats.sum_all().unwrap().backward().unwrap();
    let has = |name: &str| grads.get(&weights[name]).is_some();
    assert!(!has("output.tail.0.0.weight") && !has("output.tail.0.1.weight"));
    assert!(has("output.head.weight") && has("output.tail.1.0.weight") && has("output.tail.1.1.weight"));
}

#[test]
fn frozen_and_a_token_at_a_time_it_is_the_same_distribution() {
    let layer = layer(&weights(), Precision::F32);
    let ys = random("ys", &[2, 3, 8]).to_dtype(DType::F32).unwrap();
    let wanted = layer.logits(&ys, &Noise::none()).unwrap();
    let frozen = layer.frozen().unwrap().unwrap();
    assert_close(&frozen.logits(&ys, &Noise::none()).unwrap(), &wanted, 1e-6, "frozen");
    let targets = Tensor::new(&[[0u32, 19, 4], [8, 3, 9]], &Device::Cpu).unwrap();
    let nats = frozen.nats(&ys, &targets, &Noise::none()).unwrap();
    assert_close(&nats, &slow_nats(&layer, &ys, &targets), 1e-6, "nats");
    let mut rows = frozen.rows().unwrap().unwrap();
    let mut logits = vec![1.0; 3];
    for (ys, wanted) in ys
        .reshape((6, 8))
        .unwrap()
        .to_vec2()
        .unwrap()
        .iter()
        .zip(wanted.reshape((6, 20)).unwrap().to_vec2::<f32>().unwrap())
    {
        rows.logits(ys, &mut logits);
        assert_eq!(logits.len(), 20);
        for (found, wanted) in logits.iter().zip(wanted) {
            assert!((found - f64::from(wanted)).abs() < 1e-6);
        }
    }
}

#[test]
fn a_target_outside_the_vocabulary_is_an_error() {
    let targets = Tensor::new(&[[20u32]], &Device::Cpu).unwrap();
    let layer = layer(&weights(), Precision::F64);
    assert!(layer.nats(&random("ys", &[1, 1, 8]), &targets, &Noise::none()).is_err());
}
