//! The RHN recurrence on a GPU, forward and backward: which way it is computed, and the tape between both.

use crate::cuda::launch::{elements, room, with_elements, with_optional};
use crate::precision::Precision;
use crate::scan::cuda_grads;
pub(crate) use crate::scan::cuda_memory::Sizes;
use crate::scan::cuda_memory::{Key, Lease};
pub use crate::scan::persistent::card;
use crate::scan::persistent::{self, Persistent};
use crate::scan::rhn_cuda_steps::{self, Inputs, Steps};
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Tensor};
use std::cell::Cell;

/// How a window is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// A product and a kernel a sublayer step: any card, size and precision.
    Steps,
    /// One launch for the whole window: bf16, where the weights fit the card's chip.
    Persistent,
}

/// Names the path to take, `steps` or `persistent`, where the faster is not wanted: for measurements.
const VARIABLE: &str = "RHN_CUDA_RECURRENCE";

thread_local! {
    static FORCED: Cell<Option<Path>> = const { Cell::new(None) };
}

impl Path {
    /// Runs `work` with this path for all windows of this thread; those that it cannot compute are errors.
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

    fn choose(device: &CudaDevice, sizes: Sizes, precision: Precision) -> Result<Self> {
        let fits = || -> Result<bool> { Ok(precision.rounds() && rhn_persistent::fits(device, sizes)?) };
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
pub(crate) struct Tape(Held);

enum Held {
    Steps(Lease<Steps>),
    Persistent(Lease<Persistent>),
}

/// A tensor's memory as an operation gets it.
pub(crate) type Part<'a> = (&'a CudaStorage, &'a Layout);

/// The outputs `(time, batch, hidden)`, and the tape; shapes as in [`mod@crate::scan::rhn_op`].
pub(crate) fn forward(
    [projected, recurrent, bias]: [Part<'_>; 3],
    state: &Tensor,
    mask: Option<&Tensor>,
    sizes: Sizes,
    precision: Precision,
) -> Result<(CudaStorage, Tape)> {
    let device = projected.0.device.clone();
    let [projected, recurrent, bias] =
        [projected, recurrent, bias].map(|(storage, layout)| elements::<f32>(storage, layout));
    let (projected, recurrent, bias) = (projected?, recurrent?, bias?);
    let persistent = Path::choose(&device, sizes, precision)? == Path::Persistent;
    let key = Key { device: device.id(), sizes, masked: mask.is_some(), precision, persistent };
    let mut outputs = room(&device, sizes.moments() * sizes.hidden)?;
    let held = with_elements(state, |state| {
        with_optional(mask, |mask| {
            let (projected, recurrent, bias) = (&projected, &recurrent, &bias);
            let inputs = Inputs { projected, recurrent, bias, state, mask };
            if persistent {
                let mut lease = Lease::take(&device, key)?;
                rhn_persistent::forward(&device, &mut lease, &inputs, &mut outputs)?;
                Ok(Held::Persistent(lease))
            } else {
                let mut lease = Lease::take(&device, key)?;
                rhn_steps::forward(&device, &mut lease, &inputs, &mut outputs)?;
                Ok(Held::Steps(lease))
            }
        })
    })?;
    Ok((CudaStorage::wrap_cuda_slice(outputs, device), Tape(held)))
}

/// The gradients of the projection, the weights and the biases, from that of the outputs.
pub(crate) fn backward(
    Tape(mut held): Tape,
    recurrent: &Tensor,
    mask: Option<&Tensor>,
    grads: &Tensor,
) -> Result<[Tensor; 3]> {
    let device = grads.device().as_cuda_device()?;
    with_elements(grads, |grads| match &mut held {
        Held::Steps(lease) => rhn_steps::backward(device, lease, grads),
        Held::Persistent(lease) => with_elements(recurrent, |recurrent| {
            with_optional(mask, |mask| rhn_persistent::backward(device, lease, recurrent, mask, grads))
        }),
    })?;
    let (key, tape) = match &mut held {
        Held::Steps(lease) => (*lease.key(), &lease.room().tape),
        Held::Persistent(lease) => (*lease.key(), &lease.room().tape),
    };
    window_grads::grads(device, &key, tape)
}
