//! A window of an LSTM with a projection, step by step in plain tensor operations on the products' kernels.

use crate::error::Result;
use crate::linear::{Stored, linear};
use crate::precision::Precision;
use crate::scan::hidden_mask::HiddenMask;
use candle_core::{D, Tensor};

/// As [`super::scan`].
pub fn scan(
    projected: &Tensor,
    recurrent: &Tensor,
    projection: &Tensor,
    state: [&Tensor; 2],
    mask: &HiddenMask,
    precision: Precision,
) -> Result<(Tensor, [Tensor; 2])> {
    let [mut m, mut c] = state.map(Tensor::clone);
    let time = projected.dim(0)?;
    let mut outputs = Vec::with_capacity(time);
    for step in 0..time {
        let seen = match mask.shared() {
            Some(mask) => (&m * mask)?,
            None => m,
        };
        let z = (projected.get(step)? + linear(&seen, recurrent, Stored::ByInput, precision)?)?;
        c = cell(&z, &c)?;
        let o = sigmoid(&z.narrow(D::Minus1, c.dim(1)?, c.dim(1)?)?)?;
        m = linear(&(o * c.tanh()?)?, projection, Stored::ByInput, precision)?;
        outputs.push(m.clone());
    }
    Ok((Tensor::stack(&outputs, 0)?, [m, c]))
}

/// c after a step, from that before it.
fn cell(z: &Tensor, c: &Tensor) -> Result<Tensor> {
    let hidden = c.dim(1)?;
    let gate = |index: usize| z.narrow(D::Minus1, index * hidden, hidden);
    let kept = (sigmoid(&gate(2)?)? * c)?;
    Ok((kept + (sigmoid(&gate(0)?)? * gate(3)?.tanh()?)?)?)
}

/// As (1 + tanh(z / 2)) / 2.
fn sigmoid(z: &Tensor) -> Result<Tensor> {
    Ok((z * 0.5)?.tanh()?.affine(0.5, 0.5)?)
}
