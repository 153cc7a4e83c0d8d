//! What happens inside the time steps of a recurrent highway network: the state that enters each sublayer, and the
//! sublayer's H and T.
//!
//! The kernel's own record of a window, which its backward pass reads, is copied out as tensors.

use super::hidden_mask::HiddenMask;
use super::op::sizes;
use super::prepared::{Window, pack};
use super::reference::masked_product;
use super::rhn::Rhn;
use super::window::WindowSizes;
use crate::backend::Backend;
use crate::cpu::instruction_set::Computed;
use crate::cpu::real::{self, by_float};
use crate::error::Result;
use crate::precision::Precision;
use candle_core::{Device, Result as CandleResult, Tensor};

/// A window of a recurrent highway network from within; every tensor is `(time, batch, hidden)`, without history.
pub struct Trace {
    /// The state after each time step, the same bits as [`super::scan`] gives.
    pub outputs: Tensor,
    /// In the order in which a time step goes through them.
    pub sublayers: Vec<Sublayer>,
}

/// What a sublayer saw and made at every time step.
pub struct Sublayer {
    /// The state that enters it.
    pub entering: Tensor,
    /// H, its candidate for the state.
    pub candidate: Tensor,
    /// T, its transform gate.
    pub gate: Tensor,
}

/// Reads a window; operands as in [`super::scan`], nothing is dropped. On the CPU the kernel does it, elsewhere
/// [`reference()`].
pub fn trace(
    projected: &Tensor,
    recurrent: &Tensor,
    bias: &Tensor,
    state: &Tensor,
    precision: Precision,
) -> Result<Trace> {
    if Backend::of(projected) != Backend::Cpu {
        return reference(projected, recurrent, bias, state);
    }
    let plain = |tensor: &Tensor| tensor.detach().contiguous();
    let window = [&plain(projected)?, &plain(recurrent)?, &plain(bias)?];
    let sizes = sizes::<Rhn>(projected.shape(), recurrent.shape(), bias.shape())?;
    Ok(by_float!(projected.dtype(), T => run::<T>(window, state, sizes, precision.rounds())?))
}

fn run<T: Computed>(
    window: [&Tensor; 3],
    state: &Tensor,
    sizes: WindowSizes,
    bf16: bool,
) -> CandleResult<Trace> {
    let WindowSizes { time, batch, depth, hidden } = sizes;
    let tensor = |values: Vec<T>| Tensor::from_vec(values, (time, batch, hidden), &Device::Cpu);
    real::with_elements(window, |[projected, recurrent, bias]| {
        let weights = pack::<T, Rhn>(recurrent, depth, hidden, bf16);
        let state = std::slice::from_ref(state);
        let (outputs, _, record) =
            Window { projected, bias, state, mask: None, sizes, outputs: 1 }.run(&*weights, true)?;
        let record = record.expect("it was asked for");
        let sublayer = |index| -> CandleResult<Sublayer> {
            let mut values = weights.sublayer(&record, index).into_iter().map(tensor);
            let mut next = || values.next().expect("a highway cell has its state and two gates");
            Ok(Sublayer { entering: next()?, candidate: next()?, gate: next()? })
        };
        let sublayers = (0..depth).map(sublayer).collect::<CandleResult<_>>()?;
        Ok(Trace { outputs: tensor(outputs)?, sublayers })
    })?
}

/// [`trace`] in plain tensor operations, one step after another.
pub fn reference(projected: &Tensor, recurrent: &Tensor, bias: &Tensor, state: &Tensor) -> Result<Trace> {
    let time = projected.dim(0)?;
    let depth = recurrent.dim(0)?;
    let mut state = state.detach();
    let mut outputs = Vec::with_capacity(time);
    let mut steps: Vec<[Vec<Tensor>; 3]> = vec![Default::default(); depth];
    for step in 0..time {
        for (index, values) in steps.iter_mut().enumerate() {
            let product = masked_product(&state, &recurrent.get(index)?, &HiddenMask::None)?;
            let product = product.broadcast_add(&bias.get(index)?)?;
            let x = if index == 0 { Some(projected.get(step)?) } else { None };
            let [h, t] = Rhn::gates(&product, x.as_ref())?;
            let after = Rhn::mix(&state, &h, &t)?;
            values.iter_mut().zip([state, h, t]).for_each(|(values, value)| values.push(value));
            state = after;
        }
        outputs.push(state.clone());
    }
    let all_steps = |values: &[Tensor]| -> Result<Tensor> { Ok(Tensor::stack(values, 0)?.detach()) };
    let sublayer = |[entering, candidate, gate]: &[Vec<Tensor>; 3]| -> Result<Sublayer> {
        Ok(Sublayer {
            entering: all_steps(entering)?,
            candidate: all_steps(candidate)?,
            gate: all_steps(gate)?,
        })
    };
    Ok(Trace { outputs: all_steps(&outputs)?, sublayers: steps.iter().map(sublayer).collect::<Result<_>>()? })
}
