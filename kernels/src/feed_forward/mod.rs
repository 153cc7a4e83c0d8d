//! A stack of highway or plain layers of one width (Srivastava et al., 2015), forward and backward in one operation.
//!
//! A net of a hundred layers of fifty units is all latency if each layer is several operations. Here a thread takes
//! some of the rows through all layers, and nobody waits for another between two layers. [`Layer`] has the equations.

mod activated;
mod cpu;
mod cpu_backward;
mod layer;
pub mod reference;
mod tile;

pub use activated::activated;
pub use layer::{Activation, Layer, Mixing};

use crate::backend::Backend;
use crate::cpu::instruction_set::Computed;
use crate::cpu::real::{self, by_float};
use crate::error::Result;
use crate::gradients::hand_over;
use crate::saved::SavedForBackward;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result as CandleResult, Shape, Tensor, WithDType};
use cpu::{Forward, Record, Sizes};
use cpu_backward::Backward;

/// The last layer's values, `(rows, size)`.
///
/// - `xs`: `(rows, size)`
/// - `weights`: `(layers, size, gates · size)`, the columns of H, then of T, then of C; `bias`: `(layers, gates · size)`
///
/// On the CPU a kernel with a backward pass of its own does the work, elsewhere [`reference::feed_forward`]. Products are
/// in full precision: layers so narrow gain nothing by another.
pub fn feed_forward(xs: &Tensor, weights: &Tensor, bias: &Tensor, layer: Layer) -> Result<Tensor> {
    if Backend::of(xs) != Backend::Cpu {
        return reference::feed_forward(xs, weights, bias, layer);
    }
    let records = xs.track_op() || weights.track_op() || bias.track_op();
    let op = Stack { layer, records, saved: SavedForBackward::default() };
    Ok(xs.contiguous()?.apply_op3(&weights.contiguous()?, &bias.contiguous()?, op)?)
}

/// The candle operation; what its backward pass needs stays inside it.
struct Stack {
    layer: Layer,
    records: bool,
    saved: SavedForBackward,
}

impl Stack {
    /// Fails if the tensors' shapes do not fit together.
    fn sizes(&self, xs: &Shape, weights: &Shape, bias: &Shape) -> CandleResult<Sizes> {
        let (rows, size) = xs.dims2()?;
        let (layers, inner, width) = weights.dims3()?;
        let gates = self.layer.gates();
        if inner != size || width != gates * size || bias.dims2()? != (layers, width) {
            candle_core::bail!(
                "rows of {xs:?}, weights of {weights:?} and a bias of {bias:?} are no stack of layers with {gates} \
                 products"
            );
        }
        Ok(Sizes { layers, rows, size, gates })
    }

    fn grads<T: Computed>(&self, sizes: Sizes, weights: &Tensor, grad: &Tensor) -> CandleResult<[Tensor; 3]> {
        let record = self.saved.take::<Record<T>>()?;
        let Sizes { layers, rows, size, gates } = sizes;
        let [xs, weights, bias] = real::with_elements([weights, grad], |[weights, grad]| {
            T::with_kernel(false, Backward { record, weights, grad, sizes, layer: self.layer })
        })?;
        let device = grad.device();
        Ok([
            Tensor::from_vec(xs, (rows, size), device)?,
            Tensor::from_vec(weights, (layers, size, gates * size), device)?,
            Tensor::from_vec(bias, (layers, gates * size), device)?,
        ])
    }
}

impl CustomOp3 for Stack {
    fn name(&self) -> &'static str {
        "feed-forward"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        weights: &CpuStorage,
        weights_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let sizes = self.sizes(xs_layout.shape(), weights_layout.shape(), bias_layout.shape())?;
        let out = by_float!(xs.dtype(), T => {
            let forward = Forward {
                xs: real::elements::<T>(xs, xs_layout)?,
                weights: real::elements(weights, weights_layout)?,
                bias: real::elements(bias, bias_layout)?,
                sizes,
                layer: self.layer,
                records: self.records,
            };
            let (out, record) = T::with_kernel(false, forward);
            self.saved.keep(record);
            T::to_cpu_storage_owned(out)
        });
        Ok((out, (sizes.rows, sizes.size).into()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weights: &Tensor,
        bias: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = self.sizes(xs.shape(), weights.shape(), bias.shape())?;
        let grad = grad.contiguous()?;
        let [of_xs, of_weights, of_bias] =
            by_float!(grad.dtype(), T => self.grads::<T>(sizes, weights, &grad)?);
        Ok((hand_over(xs, of_xs)?, hand_over(weights, of_weights)?, hand_over(bias, of_bias)?))
    }
}
