//! A recurrence on a GPU, forward and backward: which way it is computed, and what is kept between both passes.

use super::cell::Pointwise as Recurrent;
use super::cuda_grads;
use super::cuda_memory::{DeviceSizes, Key, Lease};
use super::cuda_steps::{self, DeviceInputs, LaunchedSteps};
use super::persistent::cuda::{self as persistent, Persistent};
use super::rhn::Rhn;
use super::window::WindowSizes;
use crate::cuda::launch::{elements, tensor, uninitialized, with_elements, with_optional, with_parts};
use crate::precision::Precision;
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Tensor};
use std::any::TypeId;
use std::cell::Cell;

pub use super::persistent::cuda::card;

/// How a window is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// A product and a kernel a sublayer step: any cell, card, size and precision.
    Steps,
    /// One launch for the whole window: an RHN in bf16, where the weights fit the card's chip.
    Persistent,
}

/// Names the path to take, `steps` or `persistent`, where the faster is not wanted: for measurements.
const VARIABLE: &str = "RHN_CUDA_RECURRENCE";

thread_local! {
    static FORCED: Cell<Option<Path>> = const { Cell::new(None) };
}

impl Path {
    /// Runs `work` with this path for all RHN windows of this thread; those that it cannot compute are errors.
    pub fn force<R>(self, work: impl FnOnce() -> R) -> R {
        let before = FORCED.replace(Some(self));
        let result = work();
        FORCED.set(before);
        result
    }

    fn asked_for() -> Result<Option<Self>> {
        if let Some(path) = FORCED.get() {
            return Ok(Some(path));
        }
        match std::env::var(VARIABLE).as_deref() {
            Err(_) | Ok("") => Ok(None),
            Ok("steps") => Ok(Some(Self::Steps)),
            Ok("persistent") => Ok(Some(Self::Persistent)),
            Ok(other) => candle_core::bail!("{VARIABLE} is {other:?}, wanted steps or persistent"),
        }
    }

    fn choose<C: Recurrent>(device: &CudaDevice, sizes: DeviceSizes, precision: Precision) -> Result<Self> {
        if TypeId::of::<C>() != TypeId::of::<Rhn>() {
            return Ok(Self::Steps);
        }
        let fits = || -> Result<bool> { Ok(precision.rounds() && persistent::fits(device, sizes)?) };
        match Self::asked_for()? {
            Some(Self::Persistent) if !fits()? => candle_core::bail!(
                "{sizes:?} in {} cannot be computed in one launch on this GPU",
                precision.as_str()
            ),
            Some(path) => Ok(path),
            None => Ok(if fits()? { Self::Persistent } else { Self::Steps }),
        }
    }
}

/// What the backward pass needs: the memory of the forward pass.
pub(crate) struct Kept {
    held: Held,
    /// [`Recurrent::PROJECTED`] of the cell.
    positions: Vec<usize>,
}

enum Held {
    Steps(Lease<LaunchedSteps>),
    Persistent(Lease<Persistent>),
}

/// The memory of an operand, as candle gives it.
pub(crate) type Part<'a> = (&'a CudaStorage, &'a Layout);

/// The outputs `(time, batch, hidden)`, the parts of the state but the first after the window, and what the backward
/// pass needs; shapes as in [`super::scan`].
pub(crate) fn forward<C: Recurrent>(
    [projected, recurrent, bias]: [Part<'_>; 3],
    state: &[Tensor],
    mask: Option<&Tensor>,
    WindowSizes { time, batch, depth, hidden }: WindowSizes,
    precision: Precision,
) -> Result<(CudaStorage, Vec<Tensor>, Kept)> {
    let device = projected.0.device.clone();
    let [projected, recurrent, bias] =
        [projected, recurrent, bias].map(|(storage, layout)| elements::<f32>(storage, layout));
    let sizes =
        DeviceSizes { time, batch, depth, hidden, gates: C::GATES, saved: C::SAVED, parts: C::STATES };
    let persistent = Path::choose::<C>(&device, sizes, precision)? == Path::Persistent;
    let key =
        Key { device: device.id(), cell: C::NAME, sizes, masked: mask.is_some(), precision, persistent };
    let mut outputs = uninitialized(&device, sizes.input_rows() * hidden)?;
    let new_part = |_| uninitialized(&device, batch * hidden);
    let mut last = (1..C::STATES).map(new_part).collect::<Result<Vec<_>>>()?;
    let held = with_parts(state, |state| {
        with_optional(mask, |mask| {
            let inputs =
                DeviceInputs { projected: &projected?, recurrent: &recurrent?, bias: &bias?, state, mask };
            if persistent {
                let mut lease = Lease::take(&device, key)?;
                persistent::forward(&device, &mut lease, &inputs, &mut outputs)?;
                Ok(Held::Persistent(lease))
            } else {
                let mut lease = Lease::take(&device, key)?;
                cuda_steps::forward(&device, &mut lease, &inputs, &mut outputs, &mut last)?;
                Ok(Held::Steps(lease))
            }
        })
    })?;
    let last = last.into_iter().map(|part| tensor(part, (batch, hidden), &device)).collect();
    let positions = C::PROJECTED[..C::GATES].to_vec();
    Ok((CudaStorage::wrap_cuda_slice(outputs, device), last, Kept { held, positions }))
}

/// The gradients of the projected input, the weights and the biases, from that of the outputs.
pub(crate) fn backward(
    Kept { mut held, positions }: Kept,
    recurrent: &Tensor,
    mask: Option<&Tensor>,
    grads: &Tensor,
) -> Result<[Tensor; 3]> {
    let device = grads.device().as_cuda_device()?;
    with_elements([grads], |[grads]| match &mut held {
        Held::Steps(lease) => cuda_steps::backward(device, lease, grads),
        Held::Persistent(lease) => with_elements([recurrent], |[recurrent]| {
            with_optional(mask, |mask| persistent::backward(device, lease, recurrent, mask, grads))
        }),
    })?;
    let (key, tape) = match &mut held {
        Held::Steps(lease) => (lease.key, &lease.memory().buffers.tape),
        Held::Persistent(lease) => (lease.key, &lease.memory().tape),
    };
    cuda_grads::grads(device, &key, tape, &positions)
}
