//! Softmax cross-entropy in nats, with its own gradient: two passes over the logits forward, one backward.

use super::real::{self, Real};
use super::reference;
use crate::error::Result;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result as CandleResult, Shape, Tensor};
use pulp::Arch;
use rayon::prelude::*;

/// `−ln softmax(logits)[target]` of each row, in nats.
///
/// `logits`: `(rows, vocabulary)`; `targets`: `(rows)` of u32, each below the vocabulary's size. Returns `(rows)`.
pub fn nats(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    if logits.device().is_cpu() && matches!(logits.dtype(), DType::F32 | DType::F64) {
        return Ok(logits.contiguous()?.apply_op2(&targets.contiguous()?, Nats)?);
    }
    reference::nats(logits, targets)
}

struct Nats;

impl CustomOp2 for Nats {
    fn name(&self) -> &'static str {
        "softmax-cross-entropy"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        logits_layout: &Layout,
        targets: &CpuStorage,
        targets_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (rows, vocabulary) = logits_layout.shape().dims2()?;
        let targets = targets_of(targets, targets_layout, vocabulary)?;
        let storage = match logits {
            CpuStorage::F64(_) => CpuStorage::F64(forward(real::elements(logits, logits_layout)?, targets)),
            _ => CpuStorage::F32(forward(real::elements(logits, logits_layout)?, targets)),
        };
        Ok((storage, rows.into()))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        nats: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let targets = targets.to_vec1::<u32>()?;
        let grad = match logits.dtype() {
            DType::F64 => backward::<f64>(logits, &targets, nats, grad)?,
            _ => backward::<f32>(logits, &targets, nats, grad)?,
        };
        Ok((Some(grad), None))
    }
}

fn targets_of<'a>(storage: &'a CpuStorage, layout: &Layout, vocabulary: usize) -> CandleResult<&'a [u32]> {
    let (start, end) = layout.contiguous_offsets().expect("made contiguous by the caller");
    let targets = &storage.as_slice::<u32>()?[start..end];
    match targets.iter().find(|&&target| target as usize >= vocabulary) {
        Some(target) => candle_core::bail!("target {target} is not below the vocabulary's size {vocabulary}"),
        None => Ok(targets),
    }
}

fn forward<T: Real>(logits: &[T], targets: &[u32]) -> Vec<T> {
    let arch = Arch::new();
    let vocabulary = logits.len() / targets.len().max(1);
    let row = |(row, &target): (&[T], &u32)| arch.dispatch(|| log_sum_exp(row)) - row[target as usize];
    logits.par_chunks_exact(vocabulary.max(1)).zip(targets).map(row).collect()
}

/// `ln Σ e^x`, safe from overflow. Sixteen sums run side by side, whatever the instruction set.
#[inline(always)]
fn log_sum_exp<T: Real>(row: &[T]) -> T {
    const LANES: usize = 16;
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut highest = [T::neg_infinity(); LANES];
    for chunk in chunks {
        for i in 0..LANES {
            highest[i] = if chunk[i] > highest[i] { chunk[i] } else { highest[i] };
        }
    }
    let highest = highest.iter().chain(rest).fold(T::neg_infinity(), |a, &b| if b > a { b } else { a });
    let mut sums = [T::zero(); LANES];
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += (chunk[i] - highest).fast_exp();
        }
    }
    let sum: T = sums.into_iter().chain(rest.iter().map(|&x| (x - highest).fast_exp())).sum();
    highest + sum.ln()
}

/// `(softmax − onehot) · grad`; the normaliser is read off the forward pass's result.
fn backward<T: Real>(logits: &Tensor, targets: &[u32], nats: &Tensor, grad: &Tensor) -> CandleResult<Tensor> {
    let (nats, grad) = (nats.to_vec1::<T>()?, grad.to_vec1::<T>()?);
    let (rows, vocabulary) = logits.dims2()?;
    let (storage, layout) = logits.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("the loss's kernel is for the CPU")
    };
    let logits_of = real::elements::<T>(storage, layout)?;
    let mut out = vec![T::zero(); rows * vocabulary];
    let arch = Arch::new();
    let lines = out.par_chunks_exact_mut(vocabulary).zip(logits_of.par_chunks_exact(vocabulary));
    lines.enumerate().for_each(|(i, (out, row))| {
        let target = targets[i] as usize;
        let normaliser = nats[i] + row[target];
        arch.dispatch(|| {
            for (out, &x) in out.iter_mut().zip(row) {
                *out = (x - normaliser).fast_exp() * grad[i];
            }
        });
        out[target] -= grad[i];
    });
    Tensor::from_vec(out, (rows, vocabulary), logits.device())
}

#[cfg(test)]
mod tests {
    use super::nats;
    use crate::ops::reference;
    use crate::rng::Rng;
    use candle_core::{Device, Tensor, Var};

    fn logits(rows: usize, vocabulary: usize) -> Var {
        let mut rng = Rng::keyed(5, "loss", 0);
        let values: Vec<f64> = (0..rows * vocabulary).map(|_| 30.0 * rng.uniform() - 15.0).collect();
        Var::from_vec(values, (rows, vocabulary), &Device::Cpu).unwrap()
    }

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_vocabulary() {
        let targets = Tensor::new(&[3u32, 0], &Device::Cpu).unwrap();
        let found =
            nats(&Tensor::zeros((2, 50), candle_core::DType::F32, &Device::Cpu).unwrap(), &targets).unwrap();
        for nats in found.to_vec1::<f32>().unwrap() {
            assert!((nats - 50f32.ln()).abs() < 1e-6);
        }
    }

    #[test]
    fn loss_and_gradient_equal_the_oracle() {
        for (rows, vocabulary) in [(1, 1), (3, 16), (4, 37), (2, 300)] {
            let logits = logits(rows, vocabulary);
            let targets: Vec<u32> = (0..rows).map(|row| (row * 7 % vocabulary) as u32).collect();
            let targets = Tensor::new(targets, &Device::Cpu).unwrap();
            let weights = Tensor::arange(1.0f64, 1.0 + rows as f64, &Device::Cpu).unwrap();
            let run = |loss: Tensor| {
                let grads = (&loss * &weights).unwrap().sum_all().unwrap().backward().unwrap();
                (
                    loss.to_vec1::<f64>().unwrap(),
                    grads.get(&logits).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap(),
                )
            };
            let fast = run(nats(&logits, &targets).unwrap());
            let slow = run(reference::nats(&logits, &targets).unwrap());
            for (fast, slow) in fast.0.iter().chain(&fast.1).zip(slow.0.iter().chain(&slow.1)) {
                assert!((fast - slow).abs() <= 1e-12 * (1.0 + slow.abs()), "{fast} for {slow}");
            }
        }
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_an_error() {
        let targets = Tensor::new(&[4u32], &Device::Cpu).unwrap();
        assert!(nats(&logits(1, 4), &targets).is_err());
    }

    #[test]
    fn infinite_logits_do_not_pass_as_numbers() {
        let logits = Tensor::new(&[[f32::INFINITY, 0.0, f32::NAN]], &Device::Cpu).unwrap();
        let found = nats(&logits, &Tensor::new(&[1u32], &Device::Cpu).unwrap()).unwrap();
        assert!(!found.to_vec1::<f32>().unwrap()[0].is_finite());
    }
}
