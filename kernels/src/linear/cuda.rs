//! A product with weights on a GPU, and its gradient.

use super::{Linear, Stored};
use crate::cuda::gemm::{Factor, product, product_of};
use candle_core::{CudaStorage, Layout, Result, Shape, Tensor};

impl Linear {
    pub(super) fn forward_on_gpu(
        &self,
        (xs, xs_layout): (&CudaStorage, &Layout),
        (weight, weight_layout): (&CudaStorage, &Layout),
    ) -> Result<(CudaStorage, Shape)> {
        let weight = Factor::new(weight, weight_layout, self.stored == Stored::ByOutput);
        let (storage, shape) = product(Factor::new(xs, xs_layout, false), weight, self.precision)?;
        Ok((storage, shape.into()))
    }

    pub(super) fn grads_on_gpu(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; 2]> {
        let by_input = self.stored == Stored::ByInput;
        let product = |a, b| product_of(a, b, self.precision);
        let xs_grad = xs.track_op().then(|| product((grad, false), (weight, by_input)));
        let weight_grad = weight.track_op().then(|| match self.stored {
            Stored::ByInput => product((xs, true), (grad, false)),
            Stored::ByOutput => product((grad, true), (xs, false)),
        });
        Ok([xs_grad.transpose()?, weight_grad.transpose()?])
    }
}
