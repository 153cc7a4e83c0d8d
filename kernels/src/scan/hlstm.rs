//! The highway LSTM (Zhang et al., 2016): peepholes, and the lower layer's cell added to this one's through a gate.
//!
//! ```text
//! i, f = sigmoid(x + (h ⊙ m) R + b + w ⊙ c)         g = tanh(x + (h ⊙ m) R + b)
//! d    = sigmoid(x_d + w_d ⊙ c)                      the depth gate, which h does not reach
//! c    = d ⊙ c↓ + f ⊙ c + i ⊙ g                      without a gate: without the first term
//! o    = sigmoid(x + (h ⊙ m) R + b + w_o ⊙ c)        sees the new cell
//! h    = o tanh(c)
//! ```
//!
//! Gates: i, o, f, g. Input: that of the gates, then x_d and c↓. Unit weights: w_i, w_f, w_o, w_d. State: h, c, of which
//! both are outputs, as the layer above takes the cell of the same time step.

use super::cell::{Pointwise, States, UnitWeights, Values};
use crate::cpu::chunk::sum;
use crate::cpu::real::{Real, sigmoid};
use crate::error::Result;
use candle_core::Tensor;

/// The LSTM with peepholes, and with a gate for the lower layer's cell if it is `GATED`.
pub struct Hlstm<const GATED: bool>;

impl<const GATED: bool> Pointwise for Hlstm<GATED> {
    const NAME: &'static str = if GATED { "hlstm" } else { "peephole-lstm" };
    const GATES: usize = 4;
    const STATES: usize = 2;
    const INPUTS: usize = if GATED { 6 } else { 4 };
    const SAVED: usize = Self::INPUTS;
    const UNIT_WEIGHTS: usize = if GATED { 4 } else { 3 };
    const OUTPUTS: usize = 2;
    const ON_GPU: bool = false;
    const CARRIES_OUTPUT: bool = false;

    fn reference(
        products: &Tensor,
        projected: Option<&Tensor>,
        weights: &[Tensor],
        state: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        let width = products.dim(1)?;
        let z = projected.map_or(Ok(products.clone()), |x| products + x.narrow(1, 0, width)?)?;
        let [i, o, f, g] = super::reference::gates(&z)?;
        let [w_i, w_f, w_o] = [&weights[0], &weights[1], &weights[2]];
        let before = &state[1];
        let i = candle_nn::ops::sigmoid(&(i + before.broadcast_mul(w_i)?)?)?;
        let f = candle_nn::ops::sigmoid(&(f + before.broadcast_mul(w_f)?)?)?;
        let mut c = ((f * before)? + (i * g.tanh()?)?)?;
        if let (true, Some(x)) = (GATED, projected) {
            let hidden = width / Self::GATES;
            let d = (x.narrow(1, width, hidden)? + before.broadcast_mul(&weights[3])?)?;
            c = (c + (candle_nn::ops::sigmoid(&d)? * x.narrow(1, width + hidden, hidden)?)?)?;
        }
        let o = candle_nn::ops::sigmoid(&(o + c.broadcast_mul(w_o)?)?)?;
        Ok(vec![(o * c.tanh()?)?, c])
    }

    #[inline(always)]
    fn forward<T: Real, const N: usize, const FUSED: bool>(
        mut values: Values<T, N>,
        projected: Option<Values<T, N>>,
        [w_i, w_f, w_o, w_d]: &UnitWeights<T, N>,
        [h, c]: &mut States<T, N>,
    ) -> Values<T, N> {
        if let Some(x) = projected {
            (0..Self::GATES).for_each(|gate| values[gate] = sum(values[gate], x[gate]));
            (Self::GATES..Self::INPUTS).for_each(|input| values[input] = x[input]);
        }
        let [i, o, f, g, d, below] = &mut values;
        for k in 0..N {
            i[k] = sigmoid::<T, FUSED>(i[k] + w_i[k] * c[k]);
            f[k] = sigmoid::<T, FUSED>(f[k] + w_f[k] * c[k]);
            g[k] = g[k].fast_tanh::<FUSED>();
            let mut after = f[k] * c[k] + i[k] * g[k];
            if GATED {
                d[k] = sigmoid::<T, FUSED>(d[k] + w_d[k] * c[k]);
                after += d[k] * below[k];
            }
            c[k] = after;
            o[k] = sigmoid::<T, FUSED>(o[k] + w_o[k] * after);
            h[k] = o[k] * after.fast_tanh::<FUSED>();
        }
        values
    }

    #[inline(always)]
    fn backward<T: Real, const N: usize, const FUSED: bool>(
        [h_grad, mut c_grad]: States<T, N>,
        [h, c]: States<T, N>,
        [w_i, w_f, w_o, w_d]: &mut UnitWeights<T, N>,
        [i, o, f, g, d, below]: &mut Values<T, N>,
        _: bool,
    ) -> States<T, N> {
        for k in 0..N {
            let mut after = f[k] * c[k] + i[k] * g[k];
            if GATED {
                after += d[k] * below[k];
            }
            let tanh = after.fast_tanh::<FUSED>();
            let o_grad = h_grad[k] * tanh * o[k] * (T::one() - o[k]);
            let grad = c_grad[k] + h_grad[k] * o[k] * (T::one() - tanh * tanh) + o_grad * w_o[k];
            let i_grad = grad * g[k] * i[k] * (T::one() - i[k]);
            let f_grad = grad * c[k] * f[k] * (T::one() - f[k]);
            let g_grad = grad * i[k] * (T::one() - g[k] * g[k]);
            c_grad[k] = grad * f[k] + i_grad * w_i[k] + f_grad * w_f[k];
            if GATED {
                let d_grad = grad * below[k] * d[k] * (T::one() - d[k]);
                c_grad[k] += d_grad * w_d[k];
                w_d[k] = d_grad * c[k];
                below[k] = grad * d[k];
                d[k] = d_grad;
            }
            w_i[k] = i_grad * c[k];
            w_f[k] = f_grad * c[k];
            w_o[k] = o_grad * after;
            i[k] = i_grad;
            o[k] = o_grad;
            f[k] = f_grad;
            g[k] = g_grad;
        }
        [h, c_grad] // the first is not carried
    }
}
