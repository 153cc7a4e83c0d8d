//! Softmax cross-entropy in nats with the output's bias, and its own gradient: two passes over the products
//! forward, one backward, and no copy of them with the bias added.

use super::real::{self, Real};
use super::reference;
use crate::error::Result;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result as CandleResult, Shape, Tensor};
use pulp::Arch;
use rayon::prelude::*;

/// `−ln softmax(products + bias)[target]` of each row, in nats.
///
/// `products`: `(rows, vocabulary)`; `bias`: `(vocabulary)`; `targets`: `(rows)` of u32, each below the vocabulary's
/// size. Returns `(rows)`.
pub fn nats(products: &Tensor, bias: &Tensor, targets: &Tensor) -> Result<Tensor> {
    if products.device().is_cpu() && matches!(products.dtype(), DType::F32 | DType::F64) {
        return Ok(products.contiguous()?.apply_op3(&bias.contiguous()?, &targets.contiguous()?, Nats)?);
    }
    reference::nats(products, bias, targets)
}

struct Nats;

impl CustomOp3 for Nats {
    fn name(&self) -> &'static str {
        "softmax-cross-entropy"
    }

    fn cpu_fwd(
        &self,
        products: &CpuStorage,
        products_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
        targets: &CpuStorage,
        targets_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (rows, vocabulary) = products_layout.shape().dims2()?;
        let targets = targets_of(targets, targets_layout, vocabulary)?;
        macro_rules! run {
            ($kind:ident) => {{
                let products = real::elements(products, products_layout)?;
                CpuStorage::$kind(forward(products, real::elements(bias, bias_layout)?, targets))
            }};
        }
        let storage = match products {
            CpuStorage::F64(_) => run!(F64),
            _ => run!(F32),
        };
        Ok((storage, rows.into()))
    }

    fn bwd(
        &self,
        products: &Tensor,
        bias: &Tensor,
        targets: &Tensor,
        nats: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let targets = targets.to_vec1::<u32>()?;
        let (products, bias) = match products.dtype() {
            DType::F64 => backward::<f64>(products, bias, &targets, nats, grad)?,
            _ => backward::<f32>(products, bias, &targets, nats, grad)?,
        };
        Ok((Some(products), Some(bias), None))
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

fn forward<T: Real>(products: &[T], bias: &[T], targets: &[u32]) -> Vec<T> {
    let arch = Arch::new();
    let row = |(row, &target): (&[T], &u32)| {
        let normaliser = arch.dispatch(|| log_sum_exp(row, bias));
        normaliser - (row[target as usize] + bias[target as usize])
    };
    products.par_chunks_exact(bias.len().max(1)).zip(targets).map(row).collect()
}

/// `ln Σ e^(x + b)`, safe from overflow. Sixteen sums run side by side, whatever the instruction set.
#[inline(always)]
fn log_sum_exp<T: Real>(row: &[T], bias: &[T]) -> T {
    const LANES: usize = 16;
    let (chunks, rest) = row.as_chunks::<LANES>();
    let (bias_chunks, bias_rest) = bias.as_chunks::<LANES>();
    let mut highest = [T::neg_infinity(); LANES];
    for (chunk, bias) in chunks.iter().zip(bias_chunks) {
        for i in 0..LANES {
            let x = chunk[i] + bias[i];
            highest[i] = if x > highest[i] { x } else { highest[i] };
        }
    }
    let rest = || rest.iter().zip(bias_rest).map(|(&x, &b)| x + b);
    let highest = highest.into_iter().chain(rest()).fold(T::neg_infinity(), |a, b| if b > a { b } else { a });
    let mut sums = [T::zero(); LANES];
    for (chunk, bias) in chunks.iter().zip(bias_chunks) {
        for i in 0..LANES {
            sums[i] += (chunk[i] + bias[i] - highest).fast_exp();
        }
    }
    let sum: T = sums.into_iter().chain(rest().map(|x| (x - highest).fast_exp())).sum();
    highest + sum.ln()
}

/// `(softmax − onehot) · grad` and its sum over the rows; the normaliser is read off the forward pass's result.
fn backward<T: Real>(
    products: &Tensor,
    bias: &Tensor,
    targets: &[u32],
    nats: &Tensor,
    grad: &Tensor,
) -> CandleResult<(Tensor, Tensor)> {
    let (nats, grad, bias) = (nats.to_vec1::<T>()?, grad.to_vec1::<T>()?, bias.to_vec1::<T>()?);
    let (rows, vocabulary) = products.dims2()?;
    let mut out = vec![T::zero(); rows * vocabulary];
    let arch = Arch::new();
    real::with_elements::<T, _>(products, |values| {
        let lines = out.par_chunks_exact_mut(vocabulary).zip(values.par_chunks_exact(vocabulary));
        lines.enumerate().for_each(|(i, (out, row))| {
            let target = targets[i] as usize;
            let normaliser = nats[i] + row[target] + bias[target];
            arch.dispatch(|| {
                for (out, (&x, &b)) in out.iter_mut().zip(row.iter().zip(&bias)) {
                    *out = (x + b - normaliser).fast_exp() * grad[i];
                }
            });
            out[target] -= grad[i];
        });
        Ok(())
    })?;
    let sums = column_sums(&out, vocabulary);
    let device = products.device();
    Ok((Tensor::from_vec(out, (rows, vocabulary), device)?, Tensor::from_vec(sums, vocabulary, device)?))
}

/// Each column's sum, its rows added in order.
fn column_sums<T: Real>(values: &[T], columns: usize) -> Vec<T> {
    const STRIPE: usize = 1 << 10;
    let mut sums = vec![T::zero(); columns];
    let arch = Arch::new();
    sums.par_chunks_mut(STRIPE).enumerate().for_each(|(stripe, sums)| {
        arch.dispatch(|| {
            for row in values.chunks_exact(columns) {
                let row = &row[stripe * STRIPE..][..sums.len()];
                sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += value);
            }
        });
    });
    sums
}

#[cfg(test)]
mod tests {
    use super::nats;
    use crate::ops::reference;
    use crate::rng::Rng;
    use candle_core::{DType, Device, Tensor, Var};

    fn random(shape: &[usize]) -> Var {
        let mut rng = Rng::keyed(5, "loss", shape.len() as u64);
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| 30.0 * rng.uniform() - 15.0).collect();
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_vocabulary() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let targets = Tensor::new(&[3u32, 0], &Device::Cpu).unwrap();
        let found = nats(&zeros(&[2, 50]), &zeros(&[50]), &targets).unwrap();
        for nats in found.to_vec1::<f32>().unwrap() {
            assert!((nats - 50f32.ln()).abs() < 1e-6);
        }
    }

    #[test]
    fn loss_and_gradients_equal_the_oracle() {
        for (rows, vocabulary) in [(1, 1), (3, 16), (4, 37), (2, 300), (3, 2500)] {
            let (products, bias) = (random(&[rows, vocabulary]), random(&[vocabulary]));
            let targets: Vec<u32> = (0..rows).map(|row| (row * 7 % vocabulary) as u32).collect();
            let targets = Tensor::new(targets, &Device::Cpu).unwrap();
            let weights = Tensor::arange(1.0f64, 1.0 + rows as f64, &Device::Cpu).unwrap();
            let run = |loss: Tensor| {
                let grads = (&loss * &weights).unwrap().sum_all().unwrap().backward().unwrap();
                let grad =
                    |var: &Var| grads.get(var).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
                [loss.to_vec1::<f64>().unwrap(), grad(&products), grad(&bias)].concat()
            };
            let fast = run(nats(&products, &bias, &targets).unwrap());
            let slow = run(reference::nats(&products, &bias, &targets).unwrap());
            assert_eq!(fast.len(), slow.len());
            for (fast, slow) in fast.iter().zip(&slow) {
                assert!((fast - slow).abs() <= 1e-12 * (1.0 + slow.abs()), "{fast} for {slow}");
            }
        }
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_an_error() {
        let targets = Tensor::new(&[4u32], &Device::Cpu).unwrap();
        assert!(nats(&random(&[1, 4]), &random(&[4]), &targets).is_err());
    }

    #[test]
    fn infinite_logits_do_not_pass_as_numbers() {
        let products = Tensor::new(&[[f32::INFINITY, 0.0, f32::NAN]], &Device::Cpu).unwrap();
        let bias = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        let found = nats(&products, &bias, &Tensor::new(&[1u32], &Device::Cpu).unwrap()).unwrap();
        assert!(!found.to_vec1::<f32>().unwrap()[0].is_finite());
    }
}
