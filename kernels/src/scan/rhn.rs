//! The recurrent highway cell (Zilly et al., 2017), carry gate tied to `1 − t`.
//!
//! ```text
//! s̃   = s_{l-1} ⊙ m                              the mask acts inside the product only
//! h_l = tanh   (x [l = 1] + s̃ R_h,l + b_h,l)
//! t_l = sigmoid(x [l = 1] + s̃ R_t,l + b_t,l)
//! s_l = s_{l-1} + t_l (h_l − s_{l-1})              l = 1 ..= depth
//! ```
//!
//! Gates: h, t. State: s.

use super::cell::{Pointwise, States, UnitWeights, Values};
use super::trace::HighwayCell;
use crate::cpu::chunk::sum;
use crate::cpu::real::{Real, sigmoid};
use crate::error::Result;
use candle_core::Tensor;

/// The recurrent highway cell.
pub struct Rhn;

impl HighwayCell for Rhn {
    fn sublayer(products: &Tensor, projected: Option<&Tensor>, s: &Tensor) -> Result<(Vec<Tensor>, Tensor)> {
        let z = projected.map_or(Ok(products.clone()), |x| products + x)?;
        let [h, t] = super::reference::gates(&z)?;
        let [h, t] = [h.tanh()?, candle_nn::ops::sigmoid(&t)?];
        let after = (s + (&t * (&h - s)?)?)?;
        Ok((vec![h, t], after))
    }
}

impl Pointwise for Rhn {
    const NAME: &'static str = "rhn";
    const GATES: usize = 2;
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
            products[0] = sum(products[0], x[0]);
            products[1] = sum(products[1], x[1]);
        }
        let [h, t, ..] = &mut products;
        for i in 0..N {
            h[i] = h[i].fast_tanh::<FUSED>();
            t[i] = sigmoid::<T, FUSED>(t[i]);
        }
        Self::state_again(&products, state);
        products
    }

    #[inline(always)]
    fn state_again<T: Real, const N: usize>([h, t, ..]: &Values<T, N>, [s, _]: &mut States<T, N>) {
        for i in 0..N {
            s[i] = s[i] + t[i] * (h[i] - s[i]);
        }
    }

    #[inline(always)]
    fn backward<T: Real, const N: usize, const FUSED: bool>(
        [grad, unused]: States<T, N>,
        [s, _]: States<T, N>,
        _: &mut UnitWeights<T, N>,
        [h, t, ..]: &mut Values<T, N>,
        _: bool,
    ) -> States<T, N> {
        let mut carried = grad;
        for i in 0..N {
            let h_grad = grad[i] * t[i] * (T::one() - h[i] * h[i]);
            let t_grad = grad[i] * (h[i] - s[i]) * t[i] * (T::one() - t[i]);
            carried[i] = grad[i] * (T::one() - t[i]);
            h[i] = h_grad;
            t[i] = t_grad;
        }
        [carried, unused]
    }
}
