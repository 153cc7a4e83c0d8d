//! A product with weights on a GPU, and its gradient.

use crate::cuda::gemm::{Factor, product, product_of};
use crate::linear::stored::Stored;
use crate::precision::Precision;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Result, Shape, Tensor};

/// `xs W`: `(rows, input)` to `(rows, output)`.
pub(crate) fn linear(xs: &Tensor, weight: &Tensor, stored: Stored, precision: Precision) -> Result<Tensor> {
    xs.contiguous()?.apply_op2(&weight.contiguous()?, Linear { stored, precision })
}

struct Linear {
    stored: Stored,
    precision: Precision,
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("this product is for a GPU")
    }

    fn cuda_fwd(
        &self,
        xs: &CudaStorage,
        xs_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let weight = Factor::new(weight, weight_layout).transposed_if(self.stored == Stored::ByOutput);
        let (storage, shape) = product(Factor::new(xs, xs_layout), weight, self.precision)?;
        Ok((storage, shape.into()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let by_input = self.stored == Stored::ByInput;
        let wanted = |tensor: &Tensor, grad: &dyn Fn() -> Result<Tensor>| {
            if tensor.track_op() { grad().map(Some) } else { Ok(None) }
        };
        let xs_grad = wanted(xs, &|| product_of((&grad, false), (weight, by_input), self.precision))?;
        let weight_grad = wanted(weight, &|| match self.stored {
            Stored::ByInput => product_of((xs, true), (&grad, false), self.precision),
            Stored::ByOutput => product_of((&grad, true), (xs, false), self.precision),
        })?;
        Ok((xs_grad, weight_grad))
    }
}
