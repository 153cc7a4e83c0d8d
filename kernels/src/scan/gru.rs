//! The gated recurrent unit, as `torch.nn.GRU` has it: the candidate has a bias inside the reset gate's reach.
//!
//! ```text
//! r, z = sigmoid(x + (h ⊙ m) R + b)         n = tanh(x_n + r ((h ⊙ m) R_n + b_n))
//! h = (1 − z) n + z h
//! ```
//!
//! Gates: r, z, n. State: h. A fourth value is saved, `(h ⊙ m) R_n + b_n`, in whose place the backward pass leaves the
//! gradient of x_n: the product's is r times that.

use super::cell::{MOST_VALUES, Pointwise, States, UnitWeights, Values};
use crate::cpu::real::{Real, sigmoid};
use crate::error::Result;
use candle_core::Tensor;

/// The gated recurrent unit.
pub struct Gru;

impl Pointwise for Gru {
    const NAME: &'static str = "gru";
    const GATES: usize = 3;
    const STATES: usize = 1;
    const SAVED: usize = 4;
    const PROJECTED: [usize; MOST_VALUES] = [0, 1, 3, 3, 4, 5];
    const CARRIES_OUTPUT: bool = true;

    fn reference(
        products: &Tensor,
        projected: Option<&Tensor>,
        _: &[Tensor],
        state: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        let zeros = products.zeros_like()?;
        let [x_r, x_z, x_n] = super::reference::gates(projected.unwrap_or(&zeros))?;
        let [r, z, n] = super::reference::gates(products)?;
        let r = candle_nn::ops::sigmoid(&(x_r + r)?)?;
        let z = candle_nn::ops::sigmoid(&(x_z + z)?)?;
        let n = (x_n + (r * n)?)?.tanh()?;
        Ok(vec![(&n + (z * (&state[0] - &n)?)?)?])
    }

    #[inline(always)]
    fn forward<T: Real, const N: usize, const FUSED: bool>(
        [mut r, mut z, mut n, ..]: Values<T, N>,
        projected: Option<Values<T, N>>,
        _: &UnitWeights<T, N>,
        [h, _]: &mut States<T, N>,
    ) -> Values<T, N> {
        let product = n;
        let unused = [T::zero(); N];
        let x = projected.unwrap_or([unused; MOST_VALUES]);
        for i in 0..N {
            r[i] = sigmoid::<T, FUSED>(r[i] + x[0][i]);
            z[i] = sigmoid::<T, FUSED>(z[i] + x[1][i]);
            n[i] = (x[2][i] + r[i] * product[i]).fast_tanh::<FUSED>();
            h[i] = n[i] + z[i] * (h[i] - n[i]);
        }
        [r, z, n, product, unused, unused]
    }

    #[inline(always)]
    fn backward<T: Real, const N: usize, const FUSED: bool>(
        [grad, unused]: States<T, N>,
        [h, _]: States<T, N>,
        _: &mut UnitWeights<T, N>,
        [r, z, n, product, ..]: &mut Values<T, N>,
        _: bool,
    ) -> States<T, N> {
        let mut carried = grad;
        for i in 0..N {
            let x_n_grad = grad[i] * (T::one() - z[i]) * (T::one() - n[i] * n[i]);
            let r_grad = x_n_grad * product[i] * r[i] * (T::one() - r[i]);
            let z_grad = grad[i] * (h[i] - n[i]) * z[i] * (T::one() - z[i]);
            carried[i] = grad[i] * z[i];
            n[i] = x_n_grad * r[i];
            r[i] = r_grad;
            z[i] = z_grad;
            product[i] = x_n_grad;
        }
        [carried, unused]
    }
}
