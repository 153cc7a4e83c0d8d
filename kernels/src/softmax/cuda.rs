//! Softmax cross-entropy of products on a GPU; in the backward pass the products become their own gradient.

use crate::cpu::real::by_float;
use crate::cuda::launch::{
    blocks, cover, dtype, elements, kernels, launch, size, tensor, uninitialized, with_elements,
};
use crate::gradients::hand_over;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Result, Shape, Tensor};
use std::sync::{Mutex, PoisonError};

/// Threads of a block that reads a row.
const ROW: usize = 256;

/// `−ln softmax(products + bias)[target]` of each row, in nats: `(rows)`. The products must have no other use: the
/// backward pass overwrites them. A target outside of the vocabulary costs NaN.
pub(crate) fn nats(products: &Tensor, bias: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let op = Nats { targets: targets.contiguous()?, lse: Mutex::new(None) };
    products.contiguous()?.apply_op2(&bias.contiguous()?, op)
}

struct Nats {
    /// `(rows)` of u32.
    targets: Tensor,
    /// The logarithm of each row's sum of exponentials, `(rows)`.
    lse: Mutex<Option<Tensor>>,
}

kernels!(NATS = "nats", GRAD = "nats_grad", SUM_ROWS = "sum_rows");

impl Nats {
    /// Overwrites the products with their gradient; returns the bias's.
    fn backward<T: Kernels>(
        &self,
        products: &Tensor,
        bias: &Tensor,
        lse: &Tensor,
        grad: &Tensor,
    ) -> Result<Tensor> {
        let (rows, vocabulary) = products.dims2()?;
        let device = products.device().as_cuda_device()?;
        let count = rows * vocabulary;
        let tensors = [products, bias, lse, &grad.contiguous()?];
        with_elements::<T, _, _>(tensors, |[products, bias, lse, grad]| {
            with_elements::<u32, _, _>([&self.targets], |[targets]| {
                launch!(device, "loss", T::GRAD, cover(count);
                    products, bias, targets, lse, grad, &size(vocabulary)?, &size(count)?)
            })
        })?;
        let mut sums = uninitialized::<T>(device, vocabulary)?;
        with_elements::<T, _, _>([products], |[products]| {
            let config = blocks(vocabulary.div_ceil(32), 256);
            launch!(device, "loss", T::SUM_ROWS, config; products, &size(rows)?, &size(vocabulary)?, &mut sums)
        })?;
        Ok(tensor(sums, vocabulary, device)) // in an order that never changes
    }
}

impl CustomOp2 for Nats {
    fn name(&self) -> &'static str {
        "softmax-cross-entropy"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("this loss is for a GPU")
    }

    fn cuda_fwd(
        &self,
        products: &CudaStorage,
        layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (rows, vocabulary) = layout.shape().dims2()?;
        if bias_layout.shape().dims1()? != vocabulary || self.targets.dims1()? != rows {
            candle_core::bail!(
                "{rows} rows and a vocabulary of {vocabulary} do not fit their bias or their targets"
            );
        }
        let device = &products.device;
        by_float!(dtype(products), T => {
            let mut nats = uninitialized::<T>(device, rows)?;
            let mut lse = uninitialized::<T>(device, rows)?;
            let products = elements::<T>(products, layout)?;
            let bias = elements::<T>(bias, bias_layout)?;
            with_elements::<u32, _, _>([&self.targets], |[targets]| {
                launch!(device, "loss", T::NATS, blocks(rows, ROW);
                    &products, &bias, targets, &size(vocabulary)?, &mut nats, &mut lse)
            })?;
            *self.lse.lock().unwrap_or_else(PoisonError::into_inner) = Some(tensor(lse, rows, device));
            Ok((CudaStorage::wrap_cuda_slice(nats, device.clone()), rows.into()))
        })
    }

    fn bwd(
        &self,
        products: &Tensor,
        bias: &Tensor,
        _nats: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let lse = self.lse.lock().unwrap_or_else(PoisonError::into_inner).take();
        let lse =
            lse.ok_or_else(|| candle_core::Error::Msg("the products were overwritten before".into()))?;
        let logits = products.detach();
        let bias_grad = by_float!(logits.dtype(), T => self.backward::<T>(&logits, bias, &lse, grad)?);
        Ok((Some(logits), hand_over(bias, bias_grad)?))
    }
}
