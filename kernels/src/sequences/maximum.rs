//! The largest number of each unit over the steps of a sequence.

use crate::backend::Backend;
use crate::cpu::real::{self, Real, by_float};
use crate::error::Result;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor, WithDType};
use std::sync::OnceLock;

/// The maximum of `xs`, `(time, batch, size)`, over the first `lengths[row]` steps of each row: `(batch, size)`. A gradient
/// goes to the step that it is from, of equal ones to the first. On the CPU the maximum is NaN where a number is.
///
/// # Panics
/// If there are not as many lengths as rows, or one is 0 or above `time`.
pub fn maximum(xs: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let (time, batch, _) = xs.dims3()?;
    let fits = lengths.len() == batch && lengths.iter().all(|&steps| (1..=time).contains(&steps));
    assert!(fits, "{lengths:?} in {xs:?}");
    if Backend::of(xs) == Backend::Cpu {
        let op = Maximum { lengths: lengths.to_vec(), steps: OnceLock::new() };
        return Ok(xs.contiguous()?.apply_op1(op)?);
    }
    plain(xs, lengths)
}

/// The same in candle's operations.
fn plain(xs: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let time = xs.dim(0)?;
    let inside = |step: usize| lengths.iter().map(move |&steps| u8::from(step < steps));
    let inside: Vec<u8> = (0..time).flat_map(inside).collect();
    let inside = Tensor::from_vec(inside, (time, lengths.len(), 1), xs.device())?;
    let lowest = Tensor::new(f64::NEG_INFINITY, xs.device())?.to_dtype(xs.dtype())?;
    let seen =
        inside.broadcast_as(xs.shape())?.where_cond(&xs.detach(), &lowest.broadcast_as(xs.shape())?)?;
    Ok(xs.gather(&seen.argmax_keepdim(0)?, 0)?.squeeze(0)?)
}

struct Maximum {
    lengths: Vec<usize>,
    /// The step of each maximum, `(batch, size)`.
    steps: OnceLock<Vec<u32>>,
}

impl Maximum {
    fn forward<T: Real>(&self, xs: &[T], size: usize) -> (Vec<T>, Vec<u32>) {
        let batch = self.lengths.len();
        let mut best = xs[..batch * size].to_vec();
        let mut steps = vec![0; batch * size];
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        for step in 1..longest {
            for (row, _) in self.lengths.iter().enumerate().filter(|&(_, &length)| step < length) {
                let xs = &xs[(step * batch + row) * size..][..size];
                let best = best[row * size..][..size].iter_mut();
                for ((&x, best), at) in xs.iter().zip(best).zip(&mut steps[row * size..][..size]) {
                    // A NaN is kept, and takes the place of any number.
                    let is_larger = x > *best || (x.is_nan() && !best.is_nan());
                    *best = if is_larger { x } else { *best };
                    *at = if is_larger { step as u32 } else { *at };
                }
            }
        }
        (best, steps)
    }

    fn backward<T: Real>(&self, grad: &[T], time: usize, size: usize) -> Vec<T> {
        let steps = self.steps.get().expect("the forward pass left them");
        let mut out = vec![T::zero(); time * grad.len()];
        for (place, (&step, &grad)) in steps.iter().zip(grad).enumerate() {
            out[step as usize * self.lengths.len() * size + place] = grad;
        }
        out
    }
}

impl CustomOp1 for Maximum {
    fn name(&self) -> &'static str {
        "maximum"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (_, batch, size) = layout.shape().dims3()?;
        by_float!(xs.dtype(), T => {
            let (best, steps) = self.forward::<T>(real::elements(xs, layout)?, size);
            self.steps.set(steps).expect("the operation runs once");
            Ok((T::to_cpu_storage_owned(best), (batch, size).into()))
        })
    }

    fn bwd(&self, xs: &Tensor, _out: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let (time, _, size) = xs.dims3()?;
        let grad = grad.contiguous()?;
        let out = by_float!(grad.dtype(), T => {
            let out = real::with_elements([&grad], |[grad]| self.backward::<T>(grad, time, size))?;
            Tensor::from_vec(out, xs.shape(), xs.device())?
        });
        Ok(Some(out))
    }
}

#[cfg(test)]
mod tests {
    use super::{maximum, plain};
    use candle_core::{Device, Tensor, Var};

    #[test]
    fn value_and_gradient_are_those_of_candles_operations() {
        let values: Vec<f64> = (0..4 * 3 * 5).map(|i| f64::from(i * 37 % 23) - 11.0).collect();
        let xs = Var::from_vec(values, (4, 3, 5), &Device::Cpu).unwrap();
        let weights = Tensor::arange(1f64, 16.0, &Device::Cpu).unwrap().reshape((3, 5)).unwrap();
        let run = |out: Tensor| {
            let grads = (&out * &weights).unwrap().sum_all().unwrap().backward().unwrap();
            [&out, grads.get(&xs).unwrap()]
                .map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap())
        };
        for lengths in [[4, 4, 4], [1, 2, 4], [3, 1, 1]] {
            assert_eq!(
                run(maximum(&xs, &lengths).unwrap()),
                run(plain(&xs, &lengths).unwrap()),
                "{lengths:?}"
            );
        }
    }

    #[test]
    fn of_equal_numbers_the_first_learns_and_padding_never_does() {
        let xs = Var::new(&[[[2f32, -1.0]], [[2.0, 3.0]], [[9.0, 9.0]]], &Device::Cpu).unwrap();
        let out = maximum(&xs, &[2]).unwrap();
        assert_eq!(out.to_vec2::<f32>().unwrap(), [[2.0, 3.0]]);
        let grads = out.sum_all().unwrap().backward().unwrap();
        let found = grads.get(&xs).unwrap().to_vec3::<f32>().unwrap();
        assert_eq!(found, [[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]]);
    }

    #[test]
    fn what_is_no_number_stays_so() {
        let xs = Tensor::new(&[[[1f32, f32::NAN]], [[f32::NAN, 2.0]]], &Device::Cpu).unwrap();
        assert!(maximum(&xs, &[2]).unwrap().to_vec2::<f32>().unwrap()[0].iter().all(|x| x.is_nan()));
    }
}
