//! Rows of a table by their numbers on a GPU; the table's gradient is summed in the order of the positions.

use crate::cpu::real::by_float;
use crate::cuda::launch::{
    cover, dtype, elements, grid, kernels, launch, size, tensor, uninitialized, with_elements,
};
use crate::gradients::hand_over;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// Rows of `table` `(rows, width)`: `(ids, width)`. Row `blank` receives no gradient; a number that the table lacks
/// gives NaN.
pub(crate) fn lookup(table: &Tensor, ids: &Tensor, blank: Option<u32>) -> Result<Tensor> {
    table.contiguous()?.apply_op1(Lookup { ids: ids.flatten_all()?.contiguous()?, blank })
}

struct Lookup {
    /// `(count)` of u32.
    ids: Tensor,
    blank: Option<u32>,
}

kernels!(LOOKUP = "lookup", GRAD = "lookup_grad");

impl CustomOp1 for Lookup {
    fn name(&self) -> &'static str {
        "lookup"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("this look-up is for a GPU")
    }

    fn cuda_fwd(&self, table: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let count = self.ids.dims1()?;
        let device = &table.device;
        by_float!(dtype(table), T => {
            let values = elements::<T>(table, layout)?;
            let mut out = uninitialized::<T>(device, count * width)?;
            with_elements::<u32, _, _>([&self.ids], |[ids]| {
                launch!(device, "embedding", T::LOOKUP, cover(count * width);
                    &values, ids, &size(rows)?, &size(width)?, &size(count)?, &mut out)
            })?;
            Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), (count, width).into()))
        })
    }

    fn bwd(&self, table: &Tensor, _rows: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (rows, width) = table.dims2()?;
        let count = self.ids.dims1()?;
        let device = table.device().as_cuda_device()?;
        // Narrow tables (characters) need no more than a warp for their columns.
        let threads = width.next_multiple_of(32).min(256);
        let config = grid([count, width.div_ceil(threads)], threads);
        let blank = self.blank.unwrap_or(u32::MAX);
        by_float!(table.dtype(), T => {
            let mut out = device.alloc_zeros::<T>(rows * width)?;
            with_elements::<T, _, _>([&grad], |[grads]| {
                with_elements::<u32, _, _>([&self.ids], |[ids]| {
                    launch!(device, "embedding", T::GRAD, config;
                        grads, ids, &size(rows)?, &blank, &size(width)?, &size(count)?, &mut out)
                })
            })?;
            hand_over(table, tensor(out, (rows, width), device))
        })
    }
}
