//! Softmax cross-entropy in nats with the output layer's product and bias, and its own gradient.
//!
//! The logits exist once and become their own gradient in place. Where they would fill the memory (large
//! vocabularies, long windows), they are made a part at a time, and again for the gradient.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;
pub mod sampled;

use crate::backend::Backend;
use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::Computed;
use crate::cpu::operation::{self, Operation};
use crate::cpu::panels::View;
use crate::cpu::real::{self, by_float};
use crate::cpu::workspace::{self, Buffer};
use crate::error::Result;
use crate::linear::{Stored, linear};
use crate::precision::Precision;
use crate::softmax::cpu::{Backward, Forward};
use candle_core::{Result as CandleResult, Shape, Tensor};
use std::any::Any;
use std::sync::{Mutex, PoisonError};

/// Logits that are held at a time: 128 MiB of f32.
const LOGITS: usize = 1 << 25;

/// `−ln softmax(ys W + bias)[target]` of each row, in nats.
///
/// `ys`: `(rows, hidden)`; `weight` as `stored` says; `bias`: `(vocabulary)`; `targets`: `(rows)` of u32, each below
/// the vocabulary's size. Returns `(rows)`.
pub fn nats(
    ys: &Tensor,
    weight: &Tensor,
    stored: Stored,
    bias: &Tensor,
    targets: &Tensor,
    precision: Precision,
) -> Result<Tensor> {
    if Backend::of(ys) != Backend::Cpu {
        return nats_elsewhere(&linear(ys, weight, stored, precision)?, bias, targets);
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

fn check_targets(targets: &[u32], rows: usize, vocabulary: usize) -> CandleResult<()> {
    if let Some(target) = targets.iter().find(|&&target| target as usize >= vocabulary) {
        candle_core::bail!("target {target} is not below the vocabulary's size {vocabulary}");
    }
    if targets.len() != rows {
        candle_core::bail!("{} targets for {rows} rows", targets.len());
    }
    Ok(())
}

struct Nats {
    targets: Vec<u32>,
    stored: Stored,
    bf16: bool,
    most_logits: usize,
    tracked: bool,
    /// The logits of all rows, if they are few enough: a [`Buffer`] of the element type.
    kept: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The output layer's weights and sizes.
#[derive(Clone, Copy)]
struct Layer<'a, T> {
    weight: &'a [T],
    bias: &'a [T],
    stored: Stored,
    hidden: usize,
    bf16: bool,
}

impl<'a, T: Computed> Layer<'a, T> {
    /// `(hidden, vocabulary)`.
    fn view(&self) -> View<'a, T> {
        self.stored.view(self.weight, self.hidden, self.bias.len())
    }

    /// The products of some rows, the bias not yet added.
    fn products(&self, ys: &[T]) -> Buffer<T> {
        let rows = ys.len() / self.hidden;
        let mut logits = workspace::take(rows * self.bias.len());
        let target = Target::new(&mut logits, rows, self.bias.len());
        product(target, View::new(ys, rows, self.hidden), self.view(), false, self.bf16);
        logits
    }

    /// From the logits' gradients of some rows, those of the rows.
    fn ys_grad(&self, logits: &[T], ys_grad: &mut [T]) {
        let rows = ys_grad.len() / self.hidden;
        let logits = View::new(logits, rows, self.bias.len());
        let target = Target::new(ys_grad, rows, self.hidden);
        product(target, logits, self.view().t(), false, self.bf16);
    }

    /// From the logits' gradients of some rows, what is added to the weight's, or begins it.
    fn weight_grad(&self, ys: &[T], logits: &[T], weight_grad: &mut [T], begins: bool) {
        let rows = ys.len() / self.hidden;
        let logits = View::new(logits, rows, self.bias.len());
        let ys = View::new(ys, rows, self.hidden);
        self.stored.weight_grad(weight_grad, ys, logits, !begins, self.bf16);
    }
}

impl Nats {
    fn new(
        targets: &Tensor,
        stored: Stored,
        precision: Precision,
        most_logits: usize,
        tracked: bool,
    ) -> Result<Self> {
        let targets = targets.to_vec1()?;
        Ok(Self { targets, stored, bf16: precision.rounds(), most_logits, tracked, kept: Mutex::new(None) })
    }

    /// How many rows' logits are made at a time.
    fn rows_at_once(&self, vocabulary: usize) -> usize {
        (self.most_logits / vocabulary.max(1)).max(1)
    }

    fn layer<'a, T>(&self, weight: &'a [T], bias: &'a [T]) -> Layer<'a, T> {
        let hidden = weight.len() / bias.len().max(1);
        Layer { weight, bias, stored: self.stored, hidden, bf16: self.bf16 }
    }
}

impl Operation for Nats {
    const NAME: &'static str = "softmax-cross-entropy";

    fn forward<T: Computed>(
        &self,
        [ys, weight, bias]: [&[T]; 3],
        shapes: [&Shape; 3],
    ) -> CandleResult<(Vec<T>, Shape)> {
        let (rows, hidden) = shapes[0].dims2()?;
        let vocabulary = shapes[2].dims1()?;
        check_targets(&self.targets, rows, vocabulary)?;
        if weight.len() != hidden * vocabulary {
            let shape = shapes[1].dims();
            candle_core::bail!("a weight of {shape:?} for {hidden} units and a vocabulary of {vocabulary}");
        }
        let layer = self.layer(weight, bias);
        let mut nats = vec![T::zero(); rows];
        let at_once = self.rows_at_once(vocabulary);
        let parts = ys.chunks(at_once * hidden).zip(self.targets.chunks(at_once));
        for ((ys, targets), nats) in parts.zip(nats.chunks_mut(at_once)) {
            let logits = layer.products(ys);
            T::with_kernel(false, Forward { logits: &logits, bias, targets, nats });
            if self.tracked && rows <= at_once {
                *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(logits));
            }
        }
        Ok((nats, rows.into()))
    }

    fn backward<T: Computed>(&self, [ys, weight, bias]: [&[T]; 3], nats: &[T], grad: &[T]) -> [Vec<T>; 3] {
        let layer = self.layer(weight, bias);
        let mut weight_grad = vec![T::zero(); weight.len()];
        let [ys_grad, bias_grad] = self.walk_back(layer, ys, [nats, grad], |start, ys, logits| {
            layer.weight_grad(ys, logits, &mut weight_grad, start == 0);
        });
        [ys_grad, weight_grad, bias_grad]
    }

    fn inner(&self) -> Option<usize> {
        (!self.bf16).then_some(self.targets.len())
    }

    fn backward_in_parts<T: Computed>(
        &self,
        [ys, weight, bias]: [&[T]; 3],
        nats: &[T],
        grad: &[T],
    ) -> ([Vec<T>; 2], [Vec<T>; 2]) {
        let mut logits = Vec::with_capacity(self.targets.len() * bias.len());
        let add = |_, _: &[T], part: &[T]| logits.extend_from_slice(part);
        let grads = self.walk_back(self.layer(weight, bias), ys, [nats, grad], add);
        let ys = ys.to_vec();
        (grads, if self.stored == Stored::ByInput { [ys, logits] } else { [logits, ys] })
    }
}

impl Nats {
    /// The gradients of the rows and of the bias; `each` gets the number of the first row of some, those rows, and the
    /// gradients of their logits.
    fn walk_back<T: Computed>(
        &self,
        layer: Layer<'_, T>,
        ys: &[T],
        [nats, grad]: [&[T]; 2],
        mut each: impl FnMut(usize, &[T], &[T]),
    ) -> [Vec<T>; 2] {
        let Layer { hidden, bias, .. } = layer;
        let [mut ys_grad, mut bias_grad] = [ys, bias].map(|values| vec![T::zero(); values.len()]);
        let at_once = self.rows_at_once(bias.len());
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut kept = kept.and_then(|kept| kept.downcast::<Buffer<T>>().ok());
        for start in (0..self.targets.len()).step_by(at_once) {
            let rows = start..self.targets.len().min(start + at_once);
            let values = rows.start * hidden..rows.end * hidden;
            let part = &ys[values.clone()];
            let mut logits = kept.take().map_or_else(|| layer.products(part), |kept| *kept);
            let work = Backward {
                logits: &mut logits,
                bias,
                targets: &self.targets[rows.clone()],
                nats: &nats[rows.clone()],
                grad: &grad[rows.clone()],
                sums: &mut bias_grad,
            };
            T::with_kernel(false, work);
            layer.ys_grad(&logits, &mut ys_grad[values]);
            each(start, part, &logits);
        }
        [ys_grad, bias_grad]
    }
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
