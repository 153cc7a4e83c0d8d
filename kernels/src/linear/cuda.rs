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
        let product = |a, b| product_of(a, b, self.precision);
        let xs_grad = xs.track_op().then(|| product((&grad, false), (weight, by_input)));
        let weight_grad = weight.track_op().then(|| match self.stored {
            Stored::ByInput => product((xs, true), (&grad, false)),
            Stored::ByOutput => product((&grad, true), (xs, false)),
        });
        Ok((xs_grad.transpose()?, weight_grad.transpose()?))
    }
}
