//! The cells that there are, each with its scan. The code of all instruction sets is compiled once, with this package, and
//! not again with each that calls it: that is why what is generic below is a method of a cell here.

use super::cell::Pointwise;
use super::gru::Gru;
use super::hidden_mask::HiddenMask;
use super::hlstm::Hlstm;
use super::kurata::KurataLstm;
use super::layer;
use super::lstm::Lstm;
use super::op;
use super::prepared::{Packs, Prepared};
use super::rhn::Rhn;
use super::rhn_uncoupled::UncoupledRhn;
use crate::error::Result;
use crate::precision::Precision;
use candle_core::Tensor;

/// A recurrent cell with its scan.
pub trait Cell: Pointwise {
    /// As [`scan`].
    #[doc(hidden)]
    fn operate(
        window: [&Tensor; 3],
        state: &[Tensor],
        mask: &HiddenMask,
        precision: Precision,
    ) -> Result<(Tensor, Vec<Tensor>)>;

    /// As [`scan_of_input`].
    #[doc(hidden)]
    fn operate_on_input(
        operands: [&Tensor; 4],
        state: &[Tensor],
        mask: &HiddenMask,
        precision: Precision,
    ) -> Result<(Tensor, Vec<Tensor>)>;

    /// Packs contiguous recurrent weights.
    #[doc(hidden)]
    fn pack(recurrent: &Tensor, precision: Precision) -> Result<Packs>;
}

macro_rules! cells {
    ($($cell:ty),*) => {$(
        impl Cell for $cell {
            #[inline(never)]
            fn operate(
                window: [&Tensor; 3],
                state: &[Tensor],
                mask: &HiddenMask,
                precision: Precision,
            ) -> Result<(Tensor, Vec<Tensor>)> {
                op::operate::<Self>(window, state, mask, precision)
            }

            #[inline(never)]
            fn operate_on_input(
                operands: [&Tensor; 4],
                state: &[Tensor],
                mask: &HiddenMask,
                precision: Precision,
            ) -> Result<(Tensor, Vec<Tensor>)> {
                layer::operate_on_input::<Self>(operands, state, mask, precision)
            }

            #[inline(never)]
            fn pack(recurrent: &Tensor, precision: Precision) -> Result<Packs> {
                Packs::new::<Self>(recurrent, precision)
            }
        }
    )*};
}

cells!(Gru, Hlstm<false>, Hlstm<true>, KurataLstm, Lstm, Rhn, UncoupledRhn);

/// The outputs of a recurrence, `(time, batch, outputs · hidden)`, and its state after the last step, a part each
/// `(batch, hidden)`.
///
/// - `projected`: `(time, batch, inputs · hidden)`, the input's products with the weights of all gates, and whatever else
///   the cell takes from its input
/// - `recurrent`: `(depth, hidden, gates · hidden)`, the columns of one gate after the other; `bias`: `(depth, (gates +
///   unit weights) · hidden)`; of one sublayer both may lack their first dimension
/// - `state`: the parts of the state before the first step, `(batch, hidden)` each; their history is followed where they
///   have one, which truncated back-propagation has to take from them (`Tensor::detach`). The parts but the first that are
///   returned after the last step have none
/// - `mask`: dropout of the state inside the products
///
/// On the CPU, and in single precision on a GPU, kernels with a backward pass of their own do the work; elsewhere, and
/// for separate masks, [`super::reference::scan`] does, in full precision.
pub fn scan<C: Cell>(
    projected: &Tensor,
    recurrent: &Tensor,
    bias: &Tensor,
    state: &[Tensor],
    mask: &HiddenMask,
    precision: Precision,
) -> Result<(Tensor, Vec<Tensor>)> {
    C::operate([projected, recurrent, bias], state, mask, precision)
}

/// [`scan`] of the product of an input, `(time, batch, input)`, with its weight, `(input, inputs · hidden)`: both come first
/// in `operands`, the recurrent weights and the bias behind them.
pub fn scan_of_input<C: Cell>(
    operands: [&Tensor; 4],
    state: &[Tensor],
    mask: &HiddenMask,
    precision: Precision,
) -> Result<(Tensor, Vec<Tensor>)> {
    C::operate_on_input(operands, state, mask, precision)
}

impl Prepared {
    /// Packs the weights; shapes as in [`scan`].
    pub fn new<C: Cell>(recurrent: &Tensor, bias: &Tensor, precision: Precision) -> Result<Self> {
        let recurrent = op::of_sublayers(recurrent, 3)?.contiguous()?.detach();
        let bias = op::of_sublayers(bias, 2)?.contiguous()?.detach();
        let packed = C::pack(&recurrent, precision)?;
        Ok(Self::of_parts(packed, [recurrent, bias], [C::STATES, C::OUTPUTS], precision, C::operate))
    }
}
