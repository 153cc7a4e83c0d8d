//! The weights of a recurrent layer for single time steps in tensor operations, whose history is followed from step to step.

use crate::error::Result;
use candle_core::{D, Tensor};
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::HiddenMask;

/// A layer's weights with a window's masks.
pub(super) struct StepWeights {
    input: Tensor,
    sublayers: Vec<Sublayer>,
    precision: Precision,
}

/// The recurrent products of a sublayer.
struct Sublayer {
    /// Columns that have a mask of the state in common, `(hidden, ·)`, and the mask.
    products: Vec<(Tensor, Option<Tensor>)>,
    bias: Tensor,
}

impl StepWeights {
    /// `recurrent` is `(depth, hidden, gates · hidden)`, `bias` `(depth, gates · hidden)`; of one sublayer both may lack their
    /// first dimension.
    pub(super) fn new(
        input: Tensor,
        recurrent: &Tensor,
        bias: &Tensor,
        mask: &HiddenMask,
        precision: Precision,
    ) -> Result<Self> {
        let with_depth = |tensor: &Tensor, rank: usize| match tensor.rank() < rank {
            true => tensor.unsqueeze(0),
            false => Ok(tensor.clone()),
        };
        let recurrent = with_depth(recurrent, 3)?;
        let bias = with_depth(bias, 2)?;
        let (depth, hidden, width) = recurrent.dims3()?;
        let sublayer = |index: usize| -> Result<Sublayer> {
            let weight = recurrent.get(index)?;
            let columns = |start, count| weight.narrow(1, start, count)?.contiguous();
            let products = match mask {
                HiddenMask::None => vec![(weight, None)],
                HiddenMask::Shared(mask) => vec![(weight, Some(mask.clone()))],
                HiddenMask::Separate { h, t } => vec![
                    (columns(0, hidden)?, Some(h.clone())),
                    (columns(hidden, width - hidden)?, Some(t.clone())),
                ],
            };
            Ok(Sublayer { products, bias: bias.get(index)? })
        };
        Ok(Self { input, sublayers: (0..depth).map(sublayer).collect::<Result<_>>()?, precision })
    }

    /// Sublayers of a time step.
    pub(super) fn depth(&self) -> usize {
        self.sublayers.len()
    }

    /// The input's products, `(batch, input)` to `(batch, gates · hidden)`.
    pub(super) fn projected(&self, x: &Tensor) -> Result<Tensor> {
        Ok(linear(x, &self.input, Stored::ByInput, self.precision)?)
    }

    /// A sublayer's products with the state and its biases, `(batch, hidden)` to `(batch, gates · hidden)`.
    pub(super) fn products(&self, sublayer: usize, state: &Tensor) -> Result<Tensor> {
        let Sublayer { products, bias } = &self.sublayers[sublayer];
        let product = |(weight, mask): &(Tensor, Option<Tensor>)| -> Result<Tensor> {
            let state = mask.as_ref().map_or(Ok(state.clone()), |mask| state * mask)?;
            Ok(linear(&state, weight, Stored::ByInput, self.precision)?)
        };
        let products = products.iter().map(product).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&products, D::Minus1)?.broadcast_add(bias)?)
    }
}
