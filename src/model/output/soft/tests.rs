//! The divergence and its gradient against plain operations, however many blocks a window is cut into.

use super::blocks::Layer;
use super::*;
use crate::model::output::log_softmax::log_softmax;
use candle_core::{DType, Device, Var};
use rhn_kernels::linear::Stored;
use rhn_kernels::precision::Precision;
use rhn_kernels::rng::Rng;
use std::sync::Arc;

const TIME: usize = 5;
const BATCH: usize = 2;
const HIDDEN: usize = 3;
const VOCABULARY: usize = 9;

fn random(name: &str, shape: &[usize], scale: f64) -> Tensor {
    let mut rng = Rng::keyed(3, name, 0);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| scale * (2.0 * rng.uniform() - 1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// A made-up teacher.
struct Given {
    log_q: Tensor,
    top: Option<usize>,
    at_once: usize,
}

impl SoftTargets for Given {
    fn at(&self, steps: Range<usize>) -> Result<Soft> {
        let log_q = self.log_q.narrow(0, steps.start * BATCH, steps.len() * BATCH)?;
        self.top.map_or_else(|| Ok(Soft::All(log_q.clone())), |count| Soft::top(&log_q, count))
    }

    fn steps_at_once(&self) -> usize {
        self.at_once
    }
}

fn log_q() -> Tensor {
    log_softmax(&random("teacher", &[TIME * BATCH, VOCABULARY], 3.0)).unwrap()
}

/// The KL of each row by its definition, with the history of plain operations; the rest of the top k are summed one by one.
fn by_definition(logits: &Tensor, top: Option<usize>, temperature: f64) -> Tensor {
    let log_p = log_softmax(&(logits / temperature).unwrap()).unwrap();
    let q = values(&log_q().exp().unwrap());
    let mut rows = Vec::new();
    for (row, q) in q.chunks(VOCABULARY).enumerate() {
        let p = log_p.get(row).unwrap().exp().unwrap();
        let mut order: Vec<usize> = (0..VOCABULARY).collect();
        order.sort_by(|&a, &b| q[b].total_cmp(&q[a]));
        let classes: Vec<Vec<usize>> = match top {
            None => order.into_iter().map(|id| vec![id]).collect(),
            Some(count) => {
                let rest = order.split_off(count);
                order.into_iter().map(|id| vec![id]).chain([rest]).collect()
            }
        };
        let term = |class: &Vec<usize>| {
            let q: f64 = class.iter().map(|&id| q[id]).sum();
            let p =
                class.iter().map(|&id| p.get(id).unwrap()).reduce(|sum, next| (sum + next).unwrap()).unwrap();
            ((p.log().unwrap() * -q).unwrap() + q * q.ln()).unwrap()
        };
        rows.push(classes.iter().map(term).reduce(|sum, next| (sum + next).unwrap()).unwrap());
    }
    Tensor::stack(&rows, 0).unwrap()
}

#[test]
fn divergence_and_gradients_are_those_of_the_definition_in_any_number_of_blocks() {
    let ys = Var::from_tensor(&random("ys", &[TIME, BATCH, HIDDEN], 2.0)).unwrap();
    let bias = Var::from_tensor(&random("bias", &[VOCABULARY], 2.0)).unwrap();
    let each = random("each", &[TIME, BATCH], 1.0); // how much each row counts
    for (stored, shape) in [(Stored::ByInput, [HIDDEN, VOCABULARY]), (Stored::ByOutput, [VOCABULARY, HIDDEN])]
    {
        let weight = Var::from_tensor(&random("weight", &shape, 2.0)).unwrap();
        for (top, temperature) in [(None, 1.0), (None, 2.5), (Some(1), 1.0), (Some(4), 0.7), (Some(8), 1.0)] {
            let run = |divergence: Tensor| {
                let loss = (&divergence * &each).unwrap().sum_all().unwrap();
                let grads = loss.backward().unwrap();
                let of = |var: &Var| values(grads.get(var).unwrap());
                [values(&divergence), of(&ys), of(&weight), of(&bias)].concat()
            };
            let by_input = match stored {
                Stored::ByInput => weight.as_tensor().clone(),
                Stored::ByOutput => weight.t().unwrap(),
            };
            let rows = ys.flatten(0, 1).unwrap();
            let logits = rows.matmul(&by_input).unwrap().broadcast_add(&bias).unwrap();
            let wanted = run(by_definition(&logits, top, temperature).reshape((TIME, BATCH)).unwrap());
            let check = |found: Vec<f64>, how: &str| {
                for (found, wanted) in found.iter().zip(&wanted) {
                    let far = (found - wanted).abs();
                    assert!(far < 1e-12 * (1.0 + wanted.abs()), "{how}, top {top:?}: {found} for {wanted}");
                }
            };
            let soft = |at_once| Given { log_q: log_q(), top, at_once };
            let kl = of_logits(&logits, &soft(TIME).at(0..TIME).unwrap(), temperature).unwrap();
            check(run(kl.reshape((TIME, BATCH)).unwrap()), "of logits");
            for at_once in [1, 2, TIME] {
                let layer = Layer { weight: &weight, stored, bias: &bias, precision: Precision::F64 };
                let kl = of_products(&layer, &ys, Arc::new(soft(at_once)), temperature).unwrap();
                check(run(kl), &format!("{at_once} steps at once"));
            }
        }
    }
}

#[test]
fn the_teacher_s_own_logits_have_no_divergence_and_no_gradient() {
    let logits = Var::from_tensor(&(log_q() + 5.0).unwrap()).unwrap(); // what is added to all is nothing
    for soft in [Soft::All(log_q()), Soft::top(&log_q(), 3).unwrap()] {
        let kl = of_logits(&logits, &soft, 1.0).unwrap();
        let grads = kl.sum_all().unwrap().backward().unwrap();
        let all = [values(&kl), values(grads.get(&logits).unwrap())].concat();
        assert!(all.iter().all(|value| value.abs() < 1e-14), "{all:?}");
    }
}

#[test]
fn the_top_and_the_rest_are_a_lower_bound_that_rises_with_k() {
    let logits = random("student", &[TIME * BATCH, VOCABULARY], 3.0);
    let sum = |soft: &Soft| values(&of_logits(&logits, soft, 1.0).unwrap()).iter().sum::<f64>();
    let bounds: Vec<f64> = (1..VOCABULARY).map(|count| sum(&Soft::top(&log_q(), count).unwrap())).collect();
    assert!(bounds.is_sorted() && bounds[0] > 0.0, "{bounds:?}");
    assert!((bounds[VOCABULARY - 2] - sum(&Soft::All(log_q()))).abs() < 1e-12); // the rest is one word
}

#[test]
fn the_most_probable_words_are_found_and_equal_ones_go_by_their_number() {
    let q = [[0.1, 0.4, 0.1, 0.3, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2]];
    let log_q = Tensor::new(&q, &Device::Cpu).unwrap().log().unwrap();
    let Soft::Top { ids, log_q: top, log_rest } = Soft::top(&log_q, 3).unwrap() else {
        panic!("three words")
    };
    assert_eq!(ids.to_vec2::<u32>().unwrap(), [[0, 1, 3], [0, 1, 2]]);
    let close =
        |found: Vec<f64>, wanted: &[f64]| found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-15);
    assert!(close(values(&top.exp().unwrap()), &[0.1, 0.4, 0.3, 0.2, 0.2, 0.2]));
    assert!(close(values(&log_rest.exp().unwrap()), &[0.2, 0.4]));
    assert!(Soft::top(&log_q, 5).is_err() && Soft::top(&log_q, 0).is_err());
}

#[test]
fn a_rest_of_no_probability_and_logits_far_apart_stay_finite() {
    let sure = Tensor::new(&[[0.0f32, -900.0, -950.0, -2000.0]], &Device::Cpu).unwrap();
    let log_q = log_softmax(&sure).unwrap();
    let logits =
        Var::from_tensor(&Tensor::new(&[[-300.0f32, 200.0, -300.0, 0.0]], &Device::Cpu).unwrap()).unwrap();
    for soft in [Soft::All(log_q.clone()), Soft::top(&log_q, 2).unwrap()] {
        let kl = of_logits(&logits, &soft, 1.0).unwrap();
        let grads = kl.sum_all().unwrap().backward().unwrap();
        assert!((values(&kl)[0] - 500.0).abs() < 1e-3, "{kl}");
        let grad = values(grads.get(&logits).unwrap());
        assert!(grad.iter().zip([-1.0, 1.0, 0.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{grad:?}");
    }
}
