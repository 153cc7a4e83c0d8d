//! Blocks of words against all logits at once.

use super::{Blocks, FEW};
use crate::cpu::operation;
use crate::cpu::pool::with_threads;
use crate::linear::Stored;
use crate::precision::Precision;
use crate::rng::Rng;
use crate::softmax::op::{LARGE, Nats};
use crate::softmax::{nats, reference};
use candle_core::{DType, Device, Tensor, Var};

fn random(name: &str, shape: &[usize], scale: f64) -> Var {
    let mut rng = Rng::keyed(5, name, 0);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| scale * (2.0 * rng.uniform() - 1.0)).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Targets in the first word, in the last one and between.
fn targets(rows: usize, vocabulary: usize) -> Tensor {
    let last = vocabulary - 1;
    let targets: Vec<u32> =
        (0..rows).map(|row| if row == 1 { last } else { row * 7 % vocabulary } as u32).collect();
    Tensor::new(targets, &Device::Cpu).unwrap()
}

fn grads(loss: &Tensor, of: [&Var; 3]) -> Vec<f64> {
    let weights = Tensor::arange(1.0, 1.0 + loss.dims()[0] as f64, &Device::Cpu).unwrap();
    let weights = weights.to_dtype(loss.dtype()).unwrap();
    let grads = (loss * weights).unwrap().sum_all().unwrap().backward().unwrap();
    of.into_iter().flat_map(|var| flat(grads.get(var).unwrap())).collect()
}

#[test]
fn loss_and_gradients_are_those_of_all_logits_at_once_kept_or_made_again() {
    for (rows, hidden, vocabulary) in [(2, 1, 5), (3, 2, 64), (4, 70, 41), (7, 9, 300)] {
        let ys = random("ys", &[rows, hidden], 2.0);
        let weight = random("weight", &[vocabulary, hidden], 2.0);
        let bias = random("bias", &[vocabulary], 2.0);
        let targets = targets(rows, vocabulary);
        let products = ys.matmul(&weight.t().unwrap()).unwrap();
        let slow = reference::nats(&products, &bias, &targets).unwrap();
        let wanted = [flat(&slow), grads(&slow, [&ys, &weight, &bias])].concat();
        for most in [0, FEW] {
            for fewest in [1, 4, 16] {
                let mut op = Nats::new(&targets, Stored::ByOutput, Precision::F64, most, true).unwrap();
                op.large = 1;
                op.blocks = Blocks { logits: 5 * rows, fewest };
                let fast = operation::apply(op, [&ys, &weight, &bias]).unwrap();
                let found = [flat(&fast), grads(&fast, [&ys, &weight, &bias])].concat();
                for (found, wanted) in found.iter().zip(&wanted) {
                    assert!((found - wanted).abs() <= 1e-12 * (1.0 + wanted.abs()), "{found} for {wanted}");
                }
                // What was kept is used up: a second time the logits are made again.
                assert_eq!(grads(&fast, [&ys, &weight, &bias]), found[rows..], "the second time");
            }
        }
    }
}

#[test]
fn a_large_vocabulary_has_the_same_bits_with_any_number_of_threads() {
    let rows = 3;
    let hidden = 5;
    let vocabulary = LARGE + 37;
    let cast = |var: Var| Var::from_tensor(&var.to_dtype(DType::F32).unwrap()).unwrap();
    let ys = cast(random("ys", &[rows, hidden], 2.0));
    let weight = cast(random("weight", &[vocabulary, hidden], 1.0));
    let bias = cast(random("bias", &[vocabulary], 1.0));
    let targets = targets(rows, vocabulary);
    let run = |threads| {
        with_threads(threads, || {
            let loss = nats(&ys, &weight, Stored::ByOutput, &bias, &targets, Precision::F32).unwrap();
            [flat(&loss), grads(&loss, [&ys, &weight, &bias])].concat()
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
    let slow = reference::nats(&ys.matmul(&weight.t().unwrap()).unwrap(), &bias, &targets).unwrap();
    for (found, wanted) in one.iter().zip(flat(&slow)) {
        assert!((found - wanted).abs() < 1e-5, "{found} for {wanted}");
    }
}

#[test]
fn a_logit_that_is_no_number_or_infinite_does_not_pass_as_one() {
    for wrong in [f64::NAN, f64::INFINITY] {
        for at in [0, 6] {
            let mut values = vec![0.5; 7];
            values[at] = wrong;
            let weight = Tensor::from_vec(values, (7, 1), &Device::Cpu).unwrap();
            let ys = Tensor::ones((1, 1), DType::F64, &Device::Cpu).unwrap();
            let bias = Tensor::zeros(7, DType::F64, &Device::Cpu).unwrap();
            let targets = Tensor::new(&[3u32], &Device::Cpu).unwrap();
            let mut op = Nats::new(&targets, Stored::ByOutput, Precision::F64, FEW, false).unwrap();
            op.large = 1;
            op.blocks = Blocks { logits: 2, fewest: 2 };
            let found = operation::apply(op, [&ys, &weight, &bias]).unwrap();
            assert!(!flat(&found)[0].is_finite(), "{wrong} at {at}");
        }
    }
}
