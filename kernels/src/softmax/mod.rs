//! Softmax cross-entropy in nats with the output layer's product and bias, and its own gradient.
//!
//! The logits exist once and become their own gradient in place. Where they would fill the memory (large
//! vocabularies, long windows), they are made a part at a time, and again for the gradient. Of a large vocabulary they are made
//! some words at a time.

mod blocks;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod divergence;
mod op;
pub mod reference;
pub mod sampled;

pub use divergence::{divergence, log_softmax};

use crate::backend::Backend;
use crate::cpu::instruction_set::Computed;
use crate::cpu::operation;
use crate::cpu::real::{self, by_float};
use crate::error::Result;
use crate::linear::{Stored, linear};
use crate::precision::Precision;
use crate::softmax::cpu::Forward;
use crate::softmax::op::Nats;
use candle_core::{D, Result as CandleResult, Tensor};

/// Logits that are held at a time: 128 MiB of f32.
const LOGITS: usize = 1 << 25;

/// `−ln softmax(ys W + bias)[target]` of each row, in nats.
///
/// `ys`: `(…, hidden)`, a row for each of the dimensions before the last; `weight` as `stored` says; `bias`: `(vocabulary)`;
/// `targets`: `(rows)` of u32, each below the vocabulary's size. Returns `(rows)`.
pub fn nats(
    ys: &Tensor,
    weight: &Tensor,
    stored: Stored,
    bias: &Tensor,
    targets: &Tensor,
    precision: Precision,
) -> Result<Tensor> {
    if Backend::of(ys) != Backend::Cpu {
        let ys = ys.reshape(((), ys.dim(D::Minus1)?))?;
        return nats_elsewhere(&linear(&ys, weight, stored, precision)?, bias, targets);
    }
    let tracked = [ys, weight, bias].iter().any(|tensor| tensor.track_op());
    Ok(operation::apply(Nats::new(targets, stored, precision, LOGITS, tracked)?, [ys, weight, bias])?)
}

/// `−ln softmax(products + bias)[target]` of each row of products that exist; their history is not followed.
pub fn nats_of_products(products: &Tensor, bias: &Tensor, targets: &Tensor) -> Result<Tensor> {
    if Backend::of(products) != Backend::Cpu {
        return nats_elsewhere(&products.detach(), bias, targets);
    }
    let (rows, vocabulary) = products.dims2()?;
    let targets = targets.to_vec1::<u32>()?;
    check_targets(&targets, rows, vocabulary)?;
    by_float!(products.dtype(), T => {
        let mut nats = vec![T::default(); rows];
        real::with_elements([products, bias], |[logits, bias]| {
            T::with_kernel(false, Forward { logits, bias, targets: &targets, nats: &mut nats });
        })?;
        Ok(Tensor::from_vec(nats, rows, products.device())?)
    })
}

/// [`nats`] of products that nothing else uses, elsewhere than on the CPU; there a target is not checked.
fn nats_elsewhere(products: &Tensor, bias: &Tensor, targets: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if Backend::of(products) == Backend::Cuda {
        return Ok(crate::softmax::cuda::nats(products, bias, targets)?);
    }
    reference::nats(products, bias, targets)
}

pub(crate) fn check_targets(targets: &[u32], rows: usize, vocabulary: usize) -> CandleResult<()> {
    if let Some(target) = targets.iter().find(|&&target| target as usize >= vocabulary) {
        candle_core::bail!("target {target} is not below the vocabulary's size {vocabulary}");
    }
    if targets.len() != rows {
        candle_core::bail!("{} targets for {rows} rows", targets.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use candle_core::{DType, Device, Var};

    fn random(shape: &[usize], scale: f64) -> Var {
        let mut rng = Rng::keyed(5, "loss", shape.iter().sum::<usize>() as u64);
        let draw = |_| scale * (2.0 * rng.uniform() - 1.0);
        let values: Vec<f64> = (0..shape.iter().product()).map(draw).collect();
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn zeros(shape: &[usize]) -> Tensor {
        Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
    }

    fn full(ys: &Tensor, weight: &Tensor, bias: &Tensor, targets: &[u32]) -> Result<Tensor> {
        let targets = Tensor::new(targets, &Device::Cpu)?;
        nats(ys, weight, Stored::ByInput, bias, &targets, Precision::F32)
    }

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_vocabulary() {
        let found = full(&zeros(&[2, 3]), &zeros(&[3, 50]), &zeros(&[50]), &[3, 0]).unwrap();
        for nats in found.to_vec1::<f32>().unwrap() {
            assert!((nats - 50f32.ln()).abs() < 1e-6);
        }
    }

    #[test]
    fn loss_and_gradients_equal_the_reference_however_many_logits_are_held() {
        for (rows, hidden, vocabulary) in [(1, 1, 1), (3, 2, 16), (4, 5, 37), (2, 7, 300), (5, 3, 2500)] {
            for stored in [Stored::ByInput, Stored::ByOutput] {
                let by_input = stored == Stored::ByInput;
                let ys = random(&[rows, hidden], 3.0);
                let bias = random(&[vocabulary], 3.0);
                let weight = random(&if by_input { [hidden, vocabulary] } else { [vocabulary, hidden] }, 3.0);
                let targets: Vec<u32> = (0..rows).map(|row| (row * 7 % vocabulary) as u32).collect();
                let targets = Tensor::new(targets, &Device::Cpu).unwrap();
                let weights = Tensor::arange(1.0f64, 1.0 + rows as f64, &Device::Cpu).unwrap();
                let run = |loss: Tensor| {
                    let grads = (&loss * &weights).unwrap().sum_all().unwrap().backward().unwrap();
                    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                    let grad = |var: &Var| flat(grads.get(var).unwrap());
                    [flat(&loss), grad(&ys), grad(&weight), grad(&bias)].concat()
                };
                let plain = if by_input { weight.as_tensor().clone() } else { weight.t().unwrap() };
                let slow = run(reference::nats(&ys.matmul(&plain).unwrap(), &bias, &targets).unwrap());
                for most_logits in [1, 2 * vocabulary, 1 << 20] {
                    let full = Precision::F64;
                    let op = Nats::new(&targets, stored, full, most_logits, true).unwrap();
                    let loss = operation::apply(op, [&ys, &weight, &bias]);
                    for (fast, slow) in run(loss.unwrap()).iter().zip(&slow) {
                        assert!((fast - slow).abs() <= 1e-12 * (1.0 + slow.abs()), "{fast} for {slow}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_an_error() {
        assert!(full(&zeros(&[1, 2]), &zeros(&[2, 4]), &zeros(&[4]), &[4]).is_err());
    }

    #[test]
    fn infinite_logits_do_not_pass_as_numbers() {
        let ys = Tensor::new(&[[1f32]], &Device::Cpu).unwrap();
        let weight = Tensor::new(&[[f32::INFINITY, 0.0, f32::NAN]], &Device::Cpu).unwrap();
        let found = full(&ys, &weight, &zeros(&[3]), &[1]).unwrap();
        assert!(!found.to_vec1::<f32>().unwrap()[0].is_finite());
    }
}
