//! What happens inside the time steps of a recurrent highway network: the state that enters each sublayer, and the
//! sublayer's H and T, and its C where that is a gate of its own.
//!
//! The kernel's own record of a window, which its backward pass reads, is copied out as tensors.

use super::compiled::Cell;
use super::hidden_mask::HiddenMask;
use super::op::{of_sublayers, sizes};
use super::prepared::{Packs, Recurrence, Window};
use super::reference::masked_product;
use super::window::WindowSizes;
use crate::cpu::instruction_set::Computed;
use crate::cpu::real;
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
    /// C, its carry gate, if that is not `1 − T`.
    pub carry: Option<Tensor>,
}

/// A cell whose sublayers are highway layers: it saves H and T, and C if it has that gate.
pub trait HighwayCell: Cell {
    /// From the operands of [`Pointwise::reference`](super::Pointwise::reference) to the values that are saved, and the
    /// state after the sublayer.
    #[doc(hidden)]
    fn sublayer(
        products: &Tensor,
        projected: Option<&Tensor>,
        state: &Tensor,
    ) -> Result<(Vec<Tensor>, Tensor)>;
}

impl Sublayer {
    /// From the state that enters it and what its cell saves, in order.
    fn of_values(values: impl IntoIterator<Item = CandleResult<Tensor>>) -> CandleResult<Self> {
        let mut values = values.into_iter();
        let mut next = || values.next().expect("a highway cell has its state and at least two gates");
        let entering = next()?;
        let candidate = next()?;
        let gate = next()?;
        Ok(Self { entering, candidate, gate, carry: values.next().transpose()? })
    }
}

/// Reads a window; operands as in [`super::scan`], nothing is dropped. On the CPU the kernel does it, elsewhere
/// [`reference()`].
pub fn trace<C: HighwayCell>(
    projected: &Tensor,
    recurrent: &Tensor,
    bias: &Tensor,
    state: &Tensor,
    precision: Precision,
) -> Result<Trace> {
    let plain = |tensor: &Tensor| tensor.detach().contiguous();
    let recurrent = plain(&of_sublayers(recurrent, 3)?)?;
    let bias = &of_sublayers(bias, 2)?;
    let window = [&plain(projected)?, &plain(bias)?];
    let sizes = sizes::<C>(projected.shape(), recurrent.shape(), bias.shape())?;
    Ok(match C::pack(&recurrent, precision)? {
        Packs::F32(weights) => run(&*weights, window, state, sizes)?,
        Packs::F64(weights) => run(&*weights, window, state, sizes)?,
        Packs::None => reference::<C>(projected, &recurrent, bias, state)?,
    })
}

fn run<T: Computed>(
    weights: &dyn Recurrence<T>,
    window: [&Tensor; 2],
    state: &Tensor,
    sizes: WindowSizes,
) -> CandleResult<Trace> {
    let WindowSizes { time, batch, depth, hidden } = sizes;
    let tensor = |values: Vec<T>| Tensor::from_vec(values, (time, batch, hidden), &Device::Cpu);
    real::with_elements(window, |[projected, bias]| {
        let state = std::slice::from_ref(state);
        let (outputs, _, record) = Window { projected, bias, state, mask: None, sizes, outputs: 1 }
            .run(|inputs, outputs| weights.run(inputs, true, outputs))?;
        let record = record.expect("it was asked for");
        let sublayer = |index| Sublayer::of_values(weights.sublayer(&record, index).into_iter().map(tensor));
        let sublayers = (0..depth).map(sublayer).collect::<CandleResult<_>>()?;
        Ok(Trace { outputs: tensor(outputs)?, sublayers })
    })?
}

/// [`trace`] in plain tensor operations, one step after another.
pub fn reference<C: HighwayCell>(
    projected: &Tensor,
    recurrent: &Tensor,
    bias: &Tensor,
    state: &Tensor,
) -> Result<Trace> {
    let time = projected.dim(0)?;
    let depth = recurrent.dim(0)?;
    let mut state = state.detach();
    let mut outputs = Vec::with_capacity(time);
    let mut sublayers: Vec<Vec<Vec<Tensor>>> = vec![vec![Vec::new(); 1 + C::GATES]; depth];
    for step in 0..time {
        for (index, values) in sublayers.iter_mut().enumerate() {
            let product = masked_product(&state, &recurrent.get(index)?, &HiddenMask::None)?;
            let product = product.broadcast_add(&bias.get(index)?)?;
            let x = if index == 0 { Some(projected.get(step)?) } else { None };
            let (gates, after) = C::sublayer(&product, x.as_ref(), &state)?;
            let of_step = std::iter::once(state).chain(gates);
            values.iter_mut().zip(of_step).for_each(|(values, value)| values.push(value));
            state = after;
        }
        outputs.push(state.clone());
    }
    let all_steps = |values: &Vec<Tensor>| -> CandleResult<Tensor> { Ok(Tensor::stack(values, 0)?.detach()) };
    let sublayers = sublayers.iter().map(|values| Sublayer::of_values(values.iter().map(all_steps)));
    Ok(Trace { outputs: all_steps(&outputs)?, sublayers: sublayers.collect::<CandleResult<_>>()? })
}
