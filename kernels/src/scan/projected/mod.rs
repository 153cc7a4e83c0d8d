//! Long short-term memory with a projection (Sak et al., 2014) over a whole window: two products a time step, packed once.
//!
//! ```text
//! i, o, f = sigmoid(x + (mask ⊙ m) R)      g = tanh(x + (mask ⊙ m) R)
//! c = f c + i g                            m = (o tanh(c)) P
//! ```
//!
//! The pointwise part is that of [`super::Lstm`]. On the CPU a kernel with its own backward pass does the work; elsewhere, and
//! for a few time steps, for which packing takes longer than the products, [`reference::scan`] does.

mod cpu;
mod cpu_backward;
pub mod reference;

use super::hidden_mask::HiddenMask;
use crate::backend::Backend;
use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::real::{self, Real, by_float};
use crate::cpu::tile::Kernel;
use crate::cpu::workspace::Buffer;
use crate::error::{Error, Result};
use crate::gradients::hand_over;
use crate::precision::Precision;
use crate::saved::SavedForBackward;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result as CandleResult, Shape, Tensor, WithDType};
use cpu::forward;
use cpu_backward::{Grads, backward};
use std::sync::{Arc, OnceLock};

/// Time steps below which the weights are not packed.
const FEW: usize = 4;

/// The outputs, `(time, batch, outputs)`, and m and c after the last step.
///
/// - `projected`: `(time, batch, 4 · hidden)`, the input's products and the biases, columns of i, o, f, g in this order
/// - `recurrent`: `(outputs, 4 · hidden)`; `projection`: `(hidden, outputs)`
/// - `state`: m, `(batch, outputs)`, and c, `(batch, hidden)`, before the first step; their history is followed where they
///   have one, by plain steps
/// - `mask`: dropout of m inside the products, `(batch, outputs)`; there are no separate ones
pub fn scan(
    projected: &Tensor,
    recurrent: &Tensor,
    projection: &Tensor,
    state: [&Tensor; 2],
    mask: &HiddenMask,
    precision: Precision,
) -> Result<(Tensor, [Tensor; 2])> {
    let sizes = Sizes::of(projected, recurrent, projection, state)?;
    if let Some(mask) = mask.shared().filter(|mask| mask.dims() != [sizes.batch, sizes.outputs]) {
        let wanted = [sizes.batch, sizes.outputs];
        return Err(Error::setting(format!("a mask of {:?} for a state of {wanted:?}", mask.dims())));
    }
    let follows_state = state.iter().any(|part| part.track_op());
    if Backend::of(projected) != Backend::Cpu || sizes.time < FEW || follows_state {
        return reference::scan(projected, recurrent, projection, state, mask, precision);
    }
    let tracked = [projected, recurrent, projection].iter().any(|tensor| tensor.track_op());
    let [m, c] = [state[0].detach().contiguous()?, state[1].detach().contiguous()?];
    let last = Arc::new(OnceLock::new());
    let op = Op {
        state: [m, c],
        mask: mask.shared().map(|mask| mask.detach().contiguous()).transpose()?,
        sizes,
        tracked,
        precision,
        last: last.clone(),
        saved: SavedForBackward::default(),
    };
    let operands = [projected.contiguous()?, recurrent.contiguous()?, projection.contiguous()?];
    let outputs = operands[0].apply_op3(&operands[1], &operands[2], op)?;
    let c = last.get().expect("the operation has run").clone();
    let m = outputs.get(sizes.time - 1)?;
    Ok((outputs, [m, c]))
}

/// The sizes of a window.
#[derive(Clone, Copy)]
struct Sizes {
    time: usize,
    batch: usize,
    /// Units of the cell.
    hidden: usize,
    /// Numbers that the projection makes of them.
    outputs: usize,
}

impl Sizes {
    /// Fails if the tensors do not fit together.
    fn of(
        projected: &Tensor,
        recurrent: &Tensor,
        projection: &Tensor,
        state: [&Tensor; 2],
    ) -> CandleResult<Self> {
        let (time, batch, width) = projected.dims3()?;
        let (hidden, outputs) = projection.dims2()?;
        let fits = width == 4 * hidden
            && recurrent.dims() == [outputs, width]
            && state[0].dims() == [batch, outputs]
            && state[1].dims() == [batch, hidden];
        if !fits || time == 0 {
            candle_core::bail!(
                "a window of {:?} with recurrent weights {:?}, a projection {:?} and a state {:?}, {:?} is none of a \
                 projected LSTM",
                projected.shape(),
                recurrent.shape(),
                projection.shape(),
                state[0].shape(),
                state[1].shape()
            );
        }
        Ok(Self { time, batch, hidden, outputs })
    }

    fn rows(&self) -> usize {
        self.time * self.batch
    }
}

/// What a window reads, row by row.
#[derive(Clone, Copy)]
struct Window<'a, T> {
    projected: &'a [T],
    recurrent: &'a [T],
    projection: &'a [T],
    m: &'a [T],
    c: &'a [T],
    mask: Option<&'a [T]>,
    sizes: Sizes,
}

/// What the backward pass needs, row by row.
struct Record<T: Copy + Default + Send + 'static> {
    /// `(time, batch, 4 · hidden)`: i, o, f, g.
    gates: Buffer<T>,
    /// `(time, batch, hidden)`: the cells that enter each step.
    cells: Buffer<T>,
    /// `(time, batch, hidden)`: o tanh(c).
    given: Buffer<T>,
}

struct Op {
    state: [Tensor; 2],
    mask: Option<Tensor>,
    sizes: Sizes,
    tracked: bool,
    precision: Precision,
    /// c after the last step: an operation returns one tensor.
    last: Arc<OnceLock<Tensor>>,
    saved: SavedForBackward,
}

/// The forward pass on whatever kernel is chosen.
struct Forward<'a, T> {
    window: Window<'a, T>,
    records: bool,
    outputs: &'a mut [T],
    last: &'a mut [T],
}

impl<T: Computed> WithKernel<T> for Forward<'_, T> {
    type Output = Option<Record<T>>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        forward::<K>(self.window, self.records, self.outputs, self.last)
    }
}

/// The backward pass on whatever kernel is chosen.
struct Backward<'a, T: Real> {
    window: Window<'a, T>,
    record: Record<T>,
    outputs: &'a [T],
    grad: &'a [T],
}

impl<T: Computed> WithKernel<T> for Backward<'_, T> {
    type Output = Grads<T>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        backward::<K>(self.window, self.record, self.outputs, self.grad)
    }
}

impl Op {
    /// Calls `work` with the window's elements.
    fn with_window<T: Computed, R>(
        &self,
        [projected, recurrent, projection]: [&[T]; 3],
        work: impl FnOnce(Window<'_, T>) -> R,
    ) -> CandleResult<R> {
        let [m, c] = &self.state;
        let mask = self.mask.as_ref().unwrap_or(m); // read only if there is one
        real::with_elements([m, c, mask], |[m, c, mask]| {
            let mask = self.mask.is_some().then_some(mask);
            work(Window { projected, recurrent, projection, m, c, mask, sizes: self.sizes })
        })
    }

    fn grads<T: Computed>(&self, tensors: [&Tensor; 5]) -> CandleResult<[Option<Tensor>; 3]> {
        let record = self.saved.take::<Record<T>>()?;
        let [projected, recurrent, projection, ..] = tensors;
        let grads = real::with_elements(tensors, |[x, r, p, outputs, grad]| {
            self.with_window([x, r, p], |window| {
                T::with_kernel(self.precision.rounds(), Backward { window, record, outputs, grad })
            })
        })??;
        let of = |operand: &Tensor, values: Vec<T>| {
            hand_over(operand, Tensor::from_vec(values, operand.shape(), operand.device())?)
        };
        Ok([
            of(projected, grads.projected)?,
            of(recurrent, grads.recurrent)?,
            of(projection, grads.projection)?,
        ])
    }
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "projected-lstm"
    }

    fn cpu_fwd(
        &self,
        projected: &CpuStorage,
        projected_layout: &Layout,
        recurrent: &CpuStorage,
        recurrent_layout: &Layout,
        projection: &CpuStorage,
        projection_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let Sizes { time, batch, hidden, outputs } = self.sizes;
        let storage = by_float!(projected.dtype(), T => {
            let operands = [
                real::elements::<T>(projected, projected_layout)?,
                real::elements(recurrent, recurrent_layout)?,
                real::elements(projection, projection_layout)?,
            ];
            let mut given = vec![T::default(); time * batch * outputs];
            let mut last = vec![T::default(); batch * hidden];
            let record = self.with_window(operands, |window| {
                let work =
                    Forward { window, records: self.tracked, outputs: &mut given, last: &mut last };
                T::with_kernel(self.precision.rounds(), work)
            })?;
            self.saved.keep(record);
            let last = Tensor::from_vec(last, (batch, hidden), self.state[1].device())?;
            self.last.set(last).expect("the operation runs once");
            T::to_cpu_storage_owned(given)
        });
        Ok((storage, (time, batch, outputs).into()))
    }

    fn bwd(
        &self,
        projected: &Tensor,
        recurrent: &Tensor,
        projection: &Tensor,
        outputs: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let tensors = [projected, recurrent, projection, outputs, &grad];
        let [x, r, p] = by_float!(projected.dtype(), T => self.grads::<T>(tensors)?);
        Ok((x, r, p))
    }
}

#[cfg(test)]
mod tests;
