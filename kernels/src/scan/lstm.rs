//! The long short-term memory cell, gates in Torch7's order, no forget-gate boost.
//!
//! ```text
//! i, o, f = sigmoid(x + (h ⊙ m) R + b)      g = tanh(x + (h ⊙ m) R + b)
//! c = f c + i g                             h = o tanh(c)
//! ```
//!
//! Gates: i, o, f, g. State: h, c.

use super::cell::{Pointwise, States, UnitWeights, Values};
use crate::cpu::chunk::sum;
use crate::cpu::real::{Real, sigmoid};
use crate::error::Result;
use candle_core::Tensor;

/// The long short-term memory cell.
pub struct Lstm;

impl Pointwise for Lstm {
    const NAME: &'static str = "lstm";
    const GATES: usize = 4;
    const STATES: usize = 2;
    const CARRIES_OUTPUT: bool = false;

    fn reference(
        products: &Tensor,
        projected: Option<&Tensor>,
        _: &[Tensor],
        state: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        let z = projected.map_or(Ok(products.clone()), |x| products + x)?;
        let [i, o, f, g] = super::reference::gates(&z)?;
        let [i, o, f] = [i, o, f].map(|gate| candle_nn::ops::sigmoid(&gate));
        let c = ((f? * &state[1])? + (i? * g.tanh()?)?)?;
        Ok(vec![(o? * c.tanh()?)?, c])
    }

    #[inline(always)]
    fn forward<T: Real, const N: usize, const FUSED: bool>(
        mut products: Values<T, N>,
        projected: Option<Values<T, N>>,
        _: &UnitWeights<T, N>,
        [h, c]: &mut States<T, N>,
    ) -> Values<T, N> {
        if let Some(x) = projected {
            products.iter_mut().zip(x).for_each(|(z, x)| *z = sum(*z, x));
        }
        let [i, o, f, g, ..] = &mut products;
        for k in 0..N {
            i[k] = sigmoid::<T, FUSED>(i[k]);
            o[k] = sigmoid::<T, FUSED>(o[k]);
            f[k] = sigmoid::<T, FUSED>(f[k]);
            g[k] = g[k].fast_tanh::<FUSED>();
            c[k] = f[k] * c[k] + i[k] * g[k];
            h[k] = o[k] * c[k].fast_tanh::<FUSED>();
        }
        products
    }

    #[inline(always)]
    fn backward<T: Real, const N: usize, const FUSED: bool>(
        [h_grad, mut c_grad]: States<T, N>,
        [h, c]: States<T, N>,
        _: &mut UnitWeights<T, N>,
        [i, o, f, g, ..]: &mut Values<T, N>,
        _: bool,
    ) -> States<T, N> {
        for k in 0..N {
            let after = f[k] * c[k] + i[k] * g[k];
            let tanh = after.fast_tanh::<FUSED>();
            let grad = c_grad[k] + h_grad[k] * o[k] * (T::one() - tanh * tanh);
            let i_grad = grad * g[k] * i[k] * (T::one() - i[k]);
            let o_grad = h_grad[k] * tanh * o[k] * (T::one() - o[k]);
            let f_grad = grad * c[k] * f[k] * (T::one() - f[k]);
            let g_grad = grad * i[k] * (T::one() - g[k] * g[k]);
            c_grad[k] = grad * f[k];
            i[k] = i_grad;
            o[k] = o_grad;
            f[k] = f_grad;
            g[k] = g_grad;
        }
        [h, c_grad] // the first is not carried
    }
}
