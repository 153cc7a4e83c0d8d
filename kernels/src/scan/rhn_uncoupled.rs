//! The recurrent highway cell with a carry gate of its own (Zilly et al., 2017, equations 6 to 9).
//!
//! ```text
//! s̃   = s_{l-1} ⊙ m                              the mask acts inside the products only
//! h_l = tanh   (x [l = 1] + s̃ R_h,l + b_h,l)
//! t_l = sigmoid(x [l = 1] + s̃ R_t,l + b_t,l)
//! c_l = sigmoid(x [l = 1] + s̃ R_c,l + b_c,l)
//! s_l = h_l t_l + s_{l-1} c_l                      l = 1 ..= depth
//! ```
//!
//! Gates: h, t, c. State: s.

use super::cell::{Pointwise, States, UnitWeights, Values};
use super::trace::HighwayCell;
use crate::cpu::chunk::sum;
use crate::cpu::real::{Real, sigmoid};
use crate::error::Result;
use candle_core::Tensor;

/// The recurrent highway cell with a carry gate of its own.
pub struct UncoupledRhn;

impl HighwayCell for UncoupledRhn {
    fn sublayer(products: &Tensor, projected: Option<&Tensor>, s: &Tensor) -> Result<(Vec<Tensor>, Tensor)> {
        let z = projected.map_or(Ok(products.clone()), |x| products + x)?;
        let [h, t, c] = super::reference::gates(&z)?;
        let h = h.tanh()?;
        let t = candle_nn::ops::sigmoid(&t)?;
        let c = candle_nn::ops::sigmoid(&c)?;
        let after = ((&h * &t)? + (s * &c)?)?;
        Ok((vec![h, t, c], after))
    }
}

impl Pointwise for UncoupledRhn {
    const NAME: &'static str = "rhn_uncoupled";
    const GATES: usize = 3;
    const STATES: usize = 1;
    const CARRIES_OUTPUT: bool = true;
    const STATE_FROM_SAVED: bool = true;

    fn reference(
        products: &Tensor,
        projected: Option<&Tensor>,
        _: &[Tensor],
        state: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        Ok(vec![Self::sublayer(products, projected, &state[0])?.1])
    }

    #[inline(always)]
    fn forward<T: Real, const N: usize, const FUSED: bool>(
        mut products: Values<T, N>,
        projected: Option<Values<T, N>>,
        _: &UnitWeights<T, N>,
        state: &mut States<T, N>,
    ) -> Values<T, N> {
        if let Some(x) = projected {
            (0..Self::GATES).for_each(|gate| products[gate] = sum(products[gate], x[gate]));
        }
        let [h, t, c, ..] = &mut products;
        for i in 0..N {
            h[i] = h[i].fast_tanh::<FUSED>();
            t[i] = sigmoid::<T, FUSED>(t[i]);
            c[i] = sigmoid::<T, FUSED>(c[i]);
        }
        Self::state_again(&products, state);
        products
    }

    #[inline(always)]
    fn state_again<T: Real, const N: usize>([h, t, c, ..]: &Values<T, N>, [s, _]: &mut States<T, N>) {
        for i in 0..N {
            s[i] = h[i] * t[i] + s[i] * c[i];
        }
    }

    #[inline(always)]
    fn backward<T: Real, const N: usize, const FUSED: bool>(
        [grad, unused]: States<T, N>,
        [s, _]: States<T, N>,
        _: &mut UnitWeights<T, N>,
        [h, t, c, ..]: &mut Values<T, N>,
        _: bool,
    ) -> States<T, N> {
        let mut carried = grad;
        for i in 0..N {
            let h_grad = grad[i] * t[i] * (T::one() - h[i] * h[i]);
            let t_grad = grad[i] * h[i] * t[i] * (T::one() - t[i]);
            let c_grad = grad[i] * s[i] * c[i] * (T::one() - c[i]);
            carried[i] = grad[i] * c[i];
            h[i] = h_grad;
            t[i] = t_grad;
            c[i] = c_grad;
        }
        [carried, unused]
    }
}
