//! The mixture against its definition.

use super::*;
use candle_core::{D, DType, Device, Var};
use rhn_kernels::precision::Precision;
use rhn_kernels::rng::Rng;

const HIDDEN: usize = 3;
const SIZE: usize = 2;
const COMPONENTS: usize = 3;
const WORDS: usize = 5;

fn random(name: &str, shape: &[usize]) -> Var {
    let mut rng = Rng::keyed(3, name, 0);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| 2.0 * rng.uniform() - 1.0).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn weights() -> [Var; 5] {
    [
        random("components", &[HIDDEN, COMPONENTS * SIZE]),
        random("components.bias", &[COMPONENTS * SIZE]),
        random("prior", &[HIDDEN, COMPONENTS]),
        random("words", &[SIZE, WORDS]),
        random("bias", &[WORDS]),
    ]
}

fn mixture(weights: &[Var; 5]) -> Mixture {
    let tensors = weights.each_ref().map(|var| var.as_tensor().clone());
    Mixture { layer: Layer::new(tensors, Stored::ByInput, Precision::F64).unwrap(), cost: 0 }
}

/// p as the paper writes it: probabilities are added up, no logarithm before the end.
fn probabilities([w, b, prior, words, bias]: [&Tensor; 5], ys: &Tensor, mask: &Tensor) -> Tensor {
    let softmax = |x: Tensor| {
        let e = x.exp().unwrap();
        e.broadcast_div(&e.sum_keepdim(D::Minus1).unwrap()).unwrap()
    };
    let pi = softmax(ys.matmul(prior).unwrap());
    let us = (ys.matmul(w).unwrap().broadcast_add(b).unwrap().tanh().unwrap() * mask).unwrap();
    let of = |k: usize| {
        let u = us.narrow(1, k * SIZE, SIZE).unwrap().contiguous().unwrap();
        let p = softmax(u.matmul(words).unwrap().broadcast_add(bias).unwrap());
        p.broadcast_mul(&pi.narrow(1, k, 1).unwrap()).unwrap()
    };
    (1..COMPONENTS).map(of).fold(of(0), |sum, p| (sum + p).unwrap())
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_near(found: &[f64], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-12, "{found} for {wanted}");
    }
}

/// Six rows are three blocks, since each has the logits of three components.
#[test]
fn loss_and_gradients_are_those_of_the_summed_probabilities() {
    let [time, batch] = [2, 3];
    let weights = weights();
    let mixture = mixture(&weights);
    let ys = random("ys", &[time, batch, HIDDEN]);
    let targets = Tensor::new(&[[4u32, 0, 1], [1, 1, 3]], &Device::Cpu).unwrap();
    let of_rows = random("mask", &[batch, COMPONENTS * SIZE]).as_detached_tensor();
    let of_steps = random("mask", &[time, batch, COMPONENTS * SIZE]).as_detached_tensor();
    let scale = Tensor::arange(1.0, 7.0, &Device::Cpu).unwrap();
    for mask in [of_rows, of_steps] {
        let noise = Noise { components: Some(mask.clone()), ..Noise::none() };
        let mask = mask.broadcast_as((time, batch, COMPONENTS * SIZE)).unwrap().flatten(0, 1).unwrap();
        let tensors = weights.each_ref().map(|var| var.as_tensor());
        let p = probabilities(tensors, &ys.flatten(0, 1).unwrap(), &mask);
        let wanted = p.gather(&targets.reshape((6, 1)).unwrap(), 1).unwrap().squeeze(1).unwrap();
        let wanted = wanted.log().unwrap().neg().unwrap();
        let found = mixture.nats(&ys, &targets, &noise).unwrap();
        assert_eq!(found.dims(), [time, batch]);
        assert_near(&flat(&found), &flat(&wanted));
        let gradients = |nats: &Tensor| {
            let loss = (nats.flatten_all().unwrap() * &scale).unwrap().sum_all().unwrap();
            let store = loss.backward().unwrap();
            weights.iter().chain([&ys]).flat_map(|var| flat(store.get(var).unwrap())).collect::<Vec<_>>()
        };
        assert_near(&gradients(&found), &gradients(&wanted));
        let log_p = mixture.logits(&ys, &noise).unwrap();
        assert_near(&flat(&log_p), &flat(&p.log().unwrap()));
        let frozen = mixture.frozen().unwrap().unwrap();
        assert_near(&flat(&frozen.nats(&ys, &targets, &noise).unwrap()), &flat(&wanted));
        assert_near(&flat(&frozen.logits(&ys, &noise).unwrap()), &flat(&p.log().unwrap()));
    }
}

/// p of a component is exact where e^x would overflow or be 0: the largest logit is about ± 2000.
#[test]
fn huge_logits_do_not_overflow() {
    let weights = weights();
    weights[3].set(&(weights[3].as_tensor() * 1e3).unwrap()).unwrap();
    let ys = random("ys", &[2, 1, HIDDEN]);
    let log_p = mixture(&weights).logits(&ys, &Noise::none()).unwrap();
    let sums = log_p.exp().unwrap().sum(D::Minus1).unwrap();
    assert_near(&flat(&sums), &[1.0, 1.0]);
    assert!(flat(&log_p).iter().all(|log_p| log_p.is_finite()));
    assert_eq!(log_p.dtype(), DType::F64);
}

/// Each time step has its own mask, whichever steps are read with it.
#[test]
fn at_a_temperature_a_window_in_parts_has_the_nats_of_the_whole() {
    let mixture = mixture(&weights());
    let [time, batch] = [5, 2];
    let ys = random("ys", &[time, batch, HIDDEN]);
    let targets = Tensor::arange(0u32, 10, &Device::Cpu).unwrap().reshape((time, batch)).unwrap();
    let targets = (targets.to_dtype(DType::F64).unwrap() / 2.5).unwrap().to_dtype(DType::U32).unwrap();
    let of_rows = random("mask", &[batch, COMPONENTS * SIZE]).as_detached_tensor();
    let of_steps = random("mask", &[time, batch, COMPONENTS * SIZE]).as_detached_tensor();
    for mask in [of_rows, of_steps] {
        let noise = Noise { components: Some(mask), ..Noise::none() };
        let read = |at_once| {
            flat(
                &crate::model::output::nats_of_steps(&mixture, [&ys, &targets], &noise, 2.0, at_once)
                    .unwrap(),
            )
        };
        let whole = read(time);
        [1, 2, 3].into_iter().for_each(|at_once| assert_near(&read(at_once), &whole));
    }
}
