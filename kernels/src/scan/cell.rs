//! What a recurrence defines: its cell. The scan does everything else.
//!
//! A cell is one file: its reference, a step in plain tensor operations, and its pointwise part, what happens between
//! the products for a vector of units of one batch row. On a GPU the pointwise part is `<name>.cuh`, listed in `steps.cu`.

use crate::cpu::chunk::Chunk;
use crate::cpu::real::Real;
use crate::error::Result;
use candle_core::Tensor;

/// The most gates, inputs, and values saved for the backward pass, of any cell.
pub const MOST_VALUES: usize = 6;

/// The most vectors of weights that any cell has beside its products and biases.
pub const MOST_UNIT_WEIGHTS: usize = 4;

/// The most parts of any cell's state.
pub const MOST_STATES: usize = 2;

/// One chunk for each gate or saved value; those past a cell's own number are zero and unused.
pub type Values<T, const N: usize> = [Chunk<T, N>; MOST_VALUES];

/// One chunk for each part of the state; those past a cell's own number are zero and unused.
pub type States<T, const N: usize> = [Chunk<T, N>; MOST_STATES];

/// One chunk for each vector of weights that acts unit by unit; those past a cell's own number are zero and unused.
pub type UnitWeights<T, const N: usize> = [Chunk<T, N>; MOST_UNIT_WEIGHTS];

/// What a cell itself is: its reference and its pointwise part. Its gates all come from one product with its state.
///
/// The first part of the state enters the product and is the layer's output; the others are only used unit by unit, and
/// are outputs too if the cell says so.
pub trait Pointwise: Send + Sync + 'static {
    /// The name in kernels and messages.
    const NAME: &'static str;

    /// Columns of the recurrent weights, in units of the hidden size.
    const GATES: usize;

    /// Parts of the state.
    const STATES: usize;

    /// Values that the input brings for each unit: the first are added to the gates' products, what further ones mean is
    /// the cell's affair.
    const INPUTS: usize = Self::GATES;

    /// Vectors of weights that act unit by unit, such as peepholes: rows of the bias past those of the gates.
    const UNIT_WEIGHTS: usize = 0;

    /// Parts of the state, from the first on, that are returned for every time step.
    const OUTPUTS: usize = 1;

    /// Whether there is `<name>.cuh`; a cell without one is computed on a GPU by its reference.
    const ON_GPU: bool = true;

    /// Values that a step keeps for the backward pass; at least as many as there are gates.
    const SAVED: usize = Self::GATES;

    /// Where among the saved values the backward pass leaves the gradient of each of the input's values. It leaves that
    /// of each gate's product in the first `GATES` values, which for most cells are the same numbers.
    const PROJECTED: [usize; MOST_VALUES] = [0, 1, 2, 3, 4, 5];

    /// Whether the state's first part also reaches the next step unit by unit, past the product.
    const CARRIES_OUTPUT: bool;

    /// Whether [`Pointwise::state_again`] gives the states of a window from what was saved of it, so that a long one need
    /// not keep them.
    const STATE_FROM_SAVED: bool = false;

    /// From the products with the bias, and the first sublayer's projected input, to the values to be saved; `state`
    /// becomes that after the step. `FUSED` multiply-adds are for processors that have them.
    fn forward<T: Real, const N: usize, const FUSED: bool>(
        products: Values<T, N>,
        projected: Option<Values<T, N>>,
        weights: &UnitWeights<T, N>,
        state: &mut States<T, N>,
    ) -> Values<T, N>;

    /// From the saved values of a step and the state before it to that after it, in the bits of [`Pointwise::forward`]; of
    /// cells that say so with [`Pointwise::STATE_FROM_SAVED`].
    fn state_again<T: Real, const N: usize>(_saved: &Values<T, N>, _state: &mut States<T, N>) {
        unreachable!("{} keeps the states of a window", Self::NAME)
    }

    /// From the gradient of the state after the step and the state before it to the gradient of what is carried to the
    /// step before unit by unit. `saved` becomes the gradients of the products and of the projected input, `weights`
    /// their own gradients. `first` says whether this is the first sublayer.
    fn backward<T: Real, const N: usize, const FUSED: bool>(
        grads: States<T, N>,
        state: States<T, N>,
        weights: &mut UnitWeights<T, N>,
        saved: &mut Values<T, N>,
        first: bool,
    ) -> States<T, N>;

    /// One sublayer step in plain tensor operations, from which the fast paths must not differ.
    ///
    /// `products`: `(batch, gates · hidden)`, the product with the state, plus the bias. `projected`: what the input
    /// brings, `(batch, inputs · hidden)`; only the first sublayer has it. `weights`: the vectors of unit weights,
    /// `(hidden)` each. Returns the state after the step, a part each `(batch, hidden)`.
    fn reference(
        products: &Tensor,
        projected: Option<&Tensor>,
        weights: &[Tensor],
        state: &[Tensor],
    ) -> Result<Vec<Tensor>>;
}
