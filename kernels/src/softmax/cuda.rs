//! Softmax cross-entropy of products on a GPU; in the backward pass the products become their own gradient.

use crate::cuda::launch::{
    blocks, cover, dtype, elements, launch, size, tensor, uninitialized, with_elements,
};
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, DType, Layout, Result, Shape, Tensor};
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

/// The kernels of an element type.
trait Kernels: CudaDType + DeviceRepr {
    const NATS: &'static str;
    const GRAD: &'static str;
    const SUM_ROWS: &'static str;
}

impl Kernels for f32 {
    const NATS: &'static str = "nats_f32";
    const GRAD: &'static str = "nats_grad_f32";
    const SUM_ROWS: &'static str = "sum_rows_f32";
}

impl Kernels for f64 {
    const NATS: &'static str = "nats_f64";
    const GRAD: &'static str = "nats_grad_f64";
    const SUM_ROWS: &'static str = "sum_rows_f64";
}

impl Nats {
    fn forward<T: Kernels>(
        &self,
        (products, layout): (&CudaStorage, &Layout),
        (bias, bias_layout): (&CudaStorage, &Layout),
    ) -> Result<CudaStorage> {
        let (rows, types) = layout.shape().dims2()?;
        if bias_layout.shape().dims1()? != types || self.targets.dims1()? != rows {
            candle_core::bail!("{rows} rows of {types} types do not fit their bias or their targets");
        }
        let device = &products.device;
        let mut nats = uninitialized::<T>(device, rows)?;
        let mut lse = uninitialized::<T>(device, rows)?;
        let products = elements::<T>(products, layout)?;
        let bias = elements::<T>(bias, bias_layout)?;
        with_elements::<u32, _>(&self.targets, |targets| {
            let config = blocks(rows, ROW);
            let types = size(types)?;
            launch!(device, "loss", T::NATS, config, &products, &bias, targets, &types, &mut nats, &mut lse)
        })?;
        *self.lse.lock().unwrap_or_else(PoisonError::into_inner) = Some(tensor(lse, rows, device));
        Ok(CudaStorage::wrap_cuda_slice(nats, device.clone()))
    }

    /// Overwrites the products with their gradient; returns the bias's.
    fn backward<T: Kernels>(
        &self,
        products: &Tensor,
        bias: &Tensor,
        lse: &Tensor,
        grad: &Tensor,
    ) -> Result<Tensor> {
        let (rows, types) = products.dims2()?;
        let device = products.device().as_cuda_device()?;
        let config = cover(rows * types);
        let count = size(rows * types)?;
        let types = size(types)?;
        with_elements::<T, _>(products, |products| {
            with_elements::<T, _>(bias, |bias| {
                with_elements::<T, _>(lse, |lse| {
                    with_elements::<T, _>(&grad.contiguous()?, |grad| {
                        with_elements::<u32, _>(&self.targets, |targets| {
                            launch!(
                                device,
                                "loss",
                                T::GRAD,
                                config,
                                products,
                                bias,
                                targets,
                                lse,
                                grad,
                                &types,
                                &count
                            )
                        })
                    })
                })
            })
        })?;
        sum_rows::<T>(products)
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
        let (rows, _) = layout.shape().dims2()?;
        let nats = match dtype(products) {
            DType::F64 => self.forward::<f64>((products, layout), (bias, bias_layout))?,
            _ => self.forward::<f32>((products, layout), (bias, bias_layout))?,
        };
        Ok((nats, rows.into()))
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
        let bias_grad = match logits.dtype() {
            DType::F64 => self.backward::<f64>(&logits, bias, &lse, grad)?,
            _ => self.backward::<f32>(&logits, bias, &lse, grad)?,
        };
        Ok((Some(logits), Some(bias_grad)))
    }
}

/// Sums over the rows of `(rows, columns)`, in an order that never changes.
fn sum_rows<T: Kernels>(values: &Tensor) -> Result<Tensor> {
    let (rows, columns) = values.dims2()?;
    let device = values.device().as_cuda_device()?;
    let mut sums = uninitialized::<T>(device, columns)?;
    with_elements::<T, _>(values, |values| {
        let config = blocks(columns.div_ceil(32), 256);
        let rows = size(rows)?;
        let columns = size(columns)?;
        launch!(device, "loss", T::SUM_ROWS, config, values, &rows, &columns, &mut sums)
    })?;
    Ok(tensor(sums, columns, device))
}
