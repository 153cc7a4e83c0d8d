//! The LSTM with a highway layer on its output (Kurata et al., 2017, variant H), so that a time step is deeper.
//!
//! ```text
//! h, c as the LSTM has them                                        the first sublayer
//! H = tanh((h ⊙ m) R + b)    T = sigmoid((h ⊙ m) R + b)            each further one
//! h = h + T (H − h)
//! ```
//!
//! Gates: i, o, f, g of the first sublayer; H, T of the others, whose last two columns are computed and not used: all
//! sublayers of a scan have equally many. State: h, c.

use super::cell::{Pointwise, States, UnitWeights, Values};
use super::lstm::Lstm;
use super::rhn::Rhn;
use crate::cpu::real::Real;
use crate::error::Result;
use candle_core::Tensor;

/// The LSTM with a highway layer on its output.
pub struct KurataLstm;

impl Pointwise for KurataLstm {
    const NAME: &'static str = "kurata-lstm";
    const GATES: usize = 4;
    const STATES: usize = 2;
    const ON_GPU: bool = false;
    const CARRIES_OUTPUT: bool = true;

    fn reference(
        products: &Tensor,
        projected: Option<&Tensor>,
        weights: &[Tensor],
        state: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        if projected.is_some() {
            return Lstm::reference(products, projected, weights, state);
        }
        let products = products.narrow(1, 0, products.dim(1)? / 2)?;
        let mut after = Rhn::reference(&products, None, weights, &state[..1])?;
        after.push(state[1].clone());
        Ok(after)
    }

    #[inline(always)]
    fn forward<T: Real, const N: usize, const FUSED: bool>(
        products: Values<T, N>,
        projected: Option<Values<T, N>>,
        weights: &UnitWeights<T, N>,
        state: &mut States<T, N>,
    ) -> Values<T, N> {
        if projected.is_some() {
            Lstm::forward::<T, N, FUSED>(products, projected, weights, state)
        } else {
            Rhn::forward::<T, N, FUSED>(products, None, weights, state)
        }
    }

    #[inline(always)]
    fn backward<T: Real, const N: usize, const FUSED: bool>(
        grads: States<T, N>,
        state: States<T, N>,
        weights: &mut UnitWeights<T, N>,
        saved: &mut Values<T, N>,
        first: bool,
    ) -> States<T, N> {
        let unused = [T::zero(); N];
        if first {
            let [_, c_grad] = Lstm::backward::<T, N, FUSED>(grads, state, weights, saved, first);
            return [unused, c_grad]; // the state's first part reaches the LSTM through the product alone
        }
        let [h_grad, _] = Rhn::backward::<T, N, FUSED>(grads, state, weights, saved, first);
        saved[2..].fill(unused);
        [h_grad, grads[1]]
    }
}
