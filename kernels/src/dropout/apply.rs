//! A dropout mask on a tensor. Candle's own product would make a gradient of the mask too, for which nobody asks.

use crate::backend::Backend;
use crate::cpu::pool;
use crate::cpu::real::{self, Real, by_float};
use crate::cpu::shared::Shared;
use crate::error::Result;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor, WithDType};

/// `xs` times `mask`, which has no history: of the shape of `xs`, or of its last dimensions, or with a last dimension of 1.
pub fn dropped(xs: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let Some(spread) = Spread::of(xs.dims(), mask.dims()).filter(|_| Backend::of(xs) == Backend::Cpu) else {
        return Ok(xs.broadcast_mul(mask)?);
    };
    Ok(xs.contiguous()?.apply_op1(Dropped { mask: mask.detach().contiguous()?, spread })?)
}

/// What of the mask a row of the tensor is multiplied by; rows have the size of the last dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    /// A row of the mask, which has so many: they come again and again.
    Rows(usize),
    /// One number.
    Numbers,
}

impl Spread {
    fn of(xs: &[usize], mask: &[usize]) -> Option<Self> {
        let (width, rows) = xs.split_last()?;
        let (of_mask, rows_of_mask) = mask.split_last()?;
        if xs.ends_with(mask) {
            return Some(Self::Rows(rows_of_mask.iter().product()));
        }
        (*of_mask == 1 && *width > 1 && rows == rows_of_mask).then_some(Self::Numbers)
    }
}

struct Dropped {
    mask: Tensor,
    spread: Spread,
}

impl Dropped {
    fn product<T: Real>(&self, xs: &[T], mask: &[T], width: usize) -> Vec<T> {
        let mut out = vec![T::zero(); xs.len()];
        let shared = Shared::new(&mut out);
        pool::run(|worker| {
            for row in worker.share(xs.len() / width.max(1)) {
                let xs = &xs[row * width..][..width];
                // SAFETY: each row is one worker's.
                let out = unsafe { shared.part(row * width, width) };
                match self.spread {
                    Spread::Rows(rows) => {
                        let mask = &mask[row % rows * width..][..width];
                        out.iter_mut().zip(xs.iter().zip(mask)).for_each(|(out, (&x, &m))| *out = x * m);
                    }
                    Spread::Numbers => {
                        let m = mask[row];
                        out.iter_mut().zip(xs).for_each(|(out, &x)| *out = x * m);
                    }
                }
            }
        });
        out
    }
}

impl CustomOp1 for Dropped {
    fn name(&self) -> &'static str {
        "dropped"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let shape = layout.shape();
        let width = shape.dims().last().copied().unwrap_or(1);
        by_float!(xs.dtype(), T => {
            let xs = real::elements::<T>(xs, layout)?;
            let out = real::with_elements([&self.mask], |[mask]| self.product(xs, mask, width))?;
            Ok((T::to_cpu_storage_owned(out), shape.clone()))
        })
    }

    fn bwd(&self, xs: &Tensor, _out: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let width = xs.dims().last().copied().unwrap_or(1);
        let out = by_float!(grad.dtype(), T => {
            let out = real::with_elements([&grad, &self.mask], |[grad, mask]| self.product::<T>(grad, mask, width))?;
            Tensor::from_vec(out, xs.shape(), xs.device())?
        });
        Ok(Some(out))
    }
}

#[cfg(test)]
mod tests {
    use super::{Spread, dropped};
    use candle_core::{Device, Tensor, Var};

    #[test]
    fn value_and_gradient_are_those_of_candles_product() {
        let values = |shape: &[usize], scale: f64| {
            let count = shape.iter().product::<usize>() as i64;
            let values: Vec<f64> = (0..count).map(|i| scale * ((i * 7 % 11) as f64 - 5.0)).collect();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        let xs = Var::from_tensor(&values(&[3, 2, 4], 0.5)).unwrap();
        let weights = values(&[3, 2, 4], 0.25);
        for shape in [&[3, 2, 4][..], &[2, 4], &[4], &[3, 2, 1], &[2, 1], &[3, 1, 4], &[1]] {
            let mask = values(shape, 1.0);
            let run = |out: Tensor| {
                let grads = (&out * &weights).unwrap().sum_all().unwrap().backward().unwrap();
                [&out, grads.get(&xs).unwrap()].map(|tensor| tensor.to_vec3::<f64>().unwrap())
            };
            assert_eq!(run(dropped(&xs, &mask).unwrap()), run(xs.broadcast_mul(&mask).unwrap()), "{shape:?}");
        }
        assert!(dropped(&xs, &values(&[3, 4], 1.0)).is_err());
    }

    #[test]
    fn how_a_mask_is_spread_follows_from_its_shape() {
        assert_eq!(Spread::of(&[3, 2, 4], &[2, 4]), Some(Spread::Rows(2)));
        assert_eq!(Spread::of(&[3, 2, 4], &[4]), Some(Spread::Rows(1)));
        assert_eq!(Spread::of(&[3, 2, 4], &[3, 2, 1]), Some(Spread::Numbers));
        for other in [&[2, 1][..], &[3, 1, 4], &[1], &[]] {
            assert_eq!(Spread::of(&[3, 2, 4], other), None, "{other:?}");
        }
    }
}
