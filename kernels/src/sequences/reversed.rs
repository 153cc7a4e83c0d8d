//! Each sequence from its end. Done twice it is what it was, so that the gradient is the gradient's, reversed.

use crate::backend::Backend;
use crate::cpu::real::{self, Real, by_float};
use crate::error::Result;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor, WithDType};

/// `xs`, `(time, batch, size)`, with the `lengths[row]` steps of each row in the opposite order; padding stays where it is.
///
/// # Panics
/// If there are not as many lengths as rows, or one is above `time`.
pub fn reversed(xs: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let (time, batch, _) = xs.dims3()?;
    assert!(lengths.len() == batch && lengths.iter().all(|&steps| steps <= time), "{lengths:?} in {xs:?}");
    if Backend::of(xs) == Backend::Cpu {
        return Ok(xs.contiguous()?.apply_op1(Reversed { lengths: lengths.to_vec() })?);
    }
    let places: Vec<u32> = places(time, lengths).map(|place| place as u32).collect();
    let places = Tensor::from_vec(places, time * batch, xs.device())?;
    Ok(xs.flatten(0, 1)?.index_select(&places, 0)?.reshape(xs.shape())?)
}

/// Where each step of each row comes from, as the number of a place in the order of time and batch row.
fn places(time: usize, lengths: &[usize]) -> impl Iterator<Item = usize> {
    let from = move |step: usize, row: usize| {
        let steps = lengths[row];
        (if step < steps { steps - 1 - step } else { step }) * lengths.len() + row
    };
    (0..time).flat_map(move |step| (0..lengths.len()).map(move |row| from(step, row)))
}

struct Reversed {
    lengths: Vec<usize>,
}

impl Reversed {
    fn moved<T: Real>(&self, xs: &[T], shape: &Shape) -> CandleResult<Vec<T>> {
        let (time, _, size) = shape.dims3()?;
        let mut out = Vec::with_capacity(xs.len());
        places(time, &self.lengths).for_each(|place| out.extend_from_slice(&xs[place * size..][..size]));
        Ok(out)
    }
}

impl CustomOp1 for Reversed {
    fn name(&self) -> &'static str {
        "reversed"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let shape = layout.shape();
        by_float!(xs.dtype(), T => {
            let out = self.moved::<T>(real::elements(xs, layout)?, shape)?;
            Ok((T::to_cpu_storage_owned(out), shape.clone()))
        })
    }

    fn bwd(&self, xs: &Tensor, _out: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let out = by_float!(grad.dtype(), T => {
            let out = real::with_elements([&grad], |[grad]| self.moved::<T>(grad, xs.shape()))??;
            Tensor::from_vec(out, xs.shape(), xs.device())?
        });
        Ok(Some(out))
    }
}

#[cfg(test)]
mod tests {
    use super::reversed;
    use candle_core::{Device, Tensor, Var};

    #[test]
    fn rows_are_reversed_within_their_lengths_and_gradients_are_too() {
        let xs = Tensor::arange(0f64, 9.0, &Device::Cpu).unwrap().reshape((3, 3, 1)).unwrap();
        let xs = Var::from_tensor(&xs).unwrap();
        let out = reversed(&xs, &[3, 1, 2]).unwrap();
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(flat(&out), [6.0, 1.0, 5.0, 3.0, 4.0, 2.0, 0.0, 7.0, 8.0]);
        let weights = Tensor::arange(0f64, 9.0, &Device::Cpu).unwrap().reshape((3, 3, 1)).unwrap();
        let grads = (out * weights).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(flat(grads.get(&xs).unwrap()), [6.0, 1.0, 5.0, 3.0, 4.0, 2.0, 0.0, 7.0, 8.0]);
        let plain = Tensor::arange(0i64, 9, &Device::Cpu).unwrap().reshape((3, 3, 1)).unwrap();
        let plain = reversed(&plain, &[3, 1, 2]).unwrap().flatten_all().unwrap().to_vec1::<i64>().unwrap();
        assert_eq!(plain, [6, 1, 5, 3, 4, 2, 0, 7, 8]);
    }

    #[test]
    #[should_panic(expected = "[4]")]
    fn a_length_past_the_window_is_no_length() {
        let xs = Tensor::zeros((3, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        let _ = reversed(&xs, &[4]);
    }
}
