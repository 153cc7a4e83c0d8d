//! The function of a plain layer on its products, with the bias, in one operation forward and one back.
//!
//! It is for a net's first layer, whose few values are done by one thread sooner than others could be asked.

use super::layer::Activation;
use super::reference;
use crate::backend::Backend;
use crate::cpu::chunk::{CHUNK, Chunk, load, store};
use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::real::{self, Real, by_float};
use crate::cpu::tile::Kernel;
use crate::error::Result;
use crate::gradients::hand_over;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result as CandleResult, Shape, Tensor, WithDType};

/// f of `(rows, size)` products plus the bias `(size)`.
pub fn activated(products: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    if Backend::of(products) != Backend::Cpu {
        return reference::activated(&products.broadcast_add(bias)?, activation);
    }
    Ok(products.contiguous()?.apply_op2(&bias.contiguous()?, Activated(activation))?)
}

struct Activated(Activation);

struct Forward<'a, T> {
    products: &'a [T],
    bias: &'a [T],
    activation: Activation,
}

impl<T: Real> WithKernel<T> for Forward<'_, T> {
    type Output = Vec<T>;

    fn run<K: Kernel<Element = T>>(self) -> Vec<T> {
        let mut out = vec![T::zero(); self.products.len()];
        K::vectorized(
            #[inline(always)]
            || if K::FUSED { self.fill::<true>(&mut out) } else { self.fill::<false>(&mut out) },
        );
        out
    }
}

impl<T: Real> Forward<'_, T> {
    #[inline(always)]
    fn fill<const FUSED: bool>(&self, out: &mut [T]) {
        let size = self.bias.len();
        for (row, out) in self.products.chunks_exact(size).zip(out.chunks_exact_mut(size)) {
            for start in (0..size).step_by(CHUNK) {
                let width = CHUNK.min(size - start);
                let bias: Chunk<_> = load(self.bias, start, width);
                let mut chunk = load(row, start, width);
                chunk.iter_mut().zip(bias).for_each(|(z, bias)| *z += bias);
                self.activation.forward::<T, FUSED>(&mut chunk);
                store(&mut out[start..start + width], &chunk);
            }
        }
    }
}

struct Backward<'a, T> {
    out: &'a [T],
    grad: &'a [T],
    size: usize,
    activation: Activation,
}

impl<T: Real> WithKernel<T> for Backward<'_, T> {
    type Output = [Vec<T>; 2];

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        let mut products = vec![T::zero(); self.out.len()];
        let mut bias = vec![T::zero(); self.size];
        K::vectorized(
            #[inline(always)]
            || self.fill(&mut products, &mut bias),
        );
        [products, bias]
    }
}

impl<T: Real> Backward<'_, T> {
    #[inline(always)]
    fn fill(&self, products: &mut [T], bias: &mut [T]) {
        let size = self.size;
        let rows = self.out.chunks_exact(size).zip(self.grad.chunks_exact(size));
        for ((out, grad), products) in rows.zip(products.chunks_exact_mut(size)) {
            for start in (0..size).step_by(CHUNK) {
                let width = CHUNK.min(size - start);
                let mut chunk = load(out, start, width);
                self.activation.backward(&mut chunk, load(grad, start, width));
                store(&mut products[start..start + width], &chunk);
            }
            bias.iter_mut().zip(&*products).for_each(|(sum, &grad)| *sum += grad);
        }
    }
}

impl Activated {
    fn grads<T: Computed>(&self, out: &Tensor, grad: &Tensor) -> CandleResult<[Tensor; 2]> {
        let (rows, size) = out.dims2()?;
        let [products, bias] = real::with_elements([out, grad], |[out, grad]: [&[T]; 2]| {
            T::with_kernel(false, Backward { out, grad, size, activation: self.0 })
        })?;
        Ok([
            Tensor::from_vec(products, (rows, size), out.device())?,
            Tensor::from_vec(bias, size, out.device())?,
        ])
    }
}

impl CustomOp2 for Activated {
    fn name(&self) -> &'static str {
        "activated"
    }

    fn cpu_fwd(
        &self,
        products: &CpuStorage,
        layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (_, size) = layout.shape().dims2()?;
        if bias_layout.shape().dims1()? != size || size == 0 {
            candle_core::bail!("rows of {size} products do not fit a bias of {:?}", bias_layout.shape());
        }
        let out = by_float!(products.dtype(), T => {
            let products = real::elements::<T>(products, layout)?;
            let bias = real::elements(bias, bias_layout)?;
            let out = T::with_kernel(false, Forward { products, bias, activation: self.0 });
            T::to_cpu_storage_owned(out)
        });
        Ok((out, layout.shape().clone()))
    }

    fn bwd(
        &self,
        products: &Tensor,
        bias: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let [of_products, of_bias] = by_float!(grad.dtype(), T => self.grads::<T>(out, &grad)?);
        Ok((hand_over(products, of_products)?, hand_over(bias, of_bias)?))
    }
}
