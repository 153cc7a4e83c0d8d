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
use crate::cpu::chunk::CHUNK;
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
    fn forward<T: Real, const FUSED: bool>(
        products: Values<T>,
        projected: Option<Values<T>>,
        weights: &UnitWeights<T>,
        state: &mut States<T>,
    ) -> Values<T> {
        if projected.is_some() {
            Lstm::forward::<T, FUSED>(products, projected, weights, state)
        } else {
            Rhn::forward::<T, FUSED>(products, None, weights, state)
        }
    }

    #[inline(always)]
    fn backward<T: Real, const FUSED: bool>(
        grads: States<T>,
        state: States<T>,
        weights: &mut UnitWeights<T>,
        saved: &mut Values<T>,
        first: bool,
    ) -> States<T> {
        let unused = [T::zero(); CHUNK];
        if first {
            let [_, c_grad] = Lstm::backward::<T, FUSED>(grads, state, weights, saved, first);
            return [unused, c_grad]; // the state's first part reaches the LSTM through the product alone
        }
        let [h_grad, _] = Rhn::backward::<T, FUSED>(grads, state, weights, saved, first);
        saved[2..].fill(unused);
        [h_grad, grads[1]]
    }
}
