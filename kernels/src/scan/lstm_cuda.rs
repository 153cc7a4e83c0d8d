//! The LSTM recurrence on a GPU, forward and backward.

use crate::cuda::launch::{elements, room, tensor, with_elements, with_optional};
use crate::precision::Precision;
use crate::scan::cuda_grads;
pub(crate) use crate::scan::cuda_memory::Sizes;
use crate::scan::cuda_memory::{Key, Lease};
use crate::scan::lstm_cuda_steps::{self, Inputs, LstmSteps};
use candle_core::{CudaStorage, Layout, Result, Tensor};

/// What the backward pass needs: the memory of the forward pass.
pub(crate) struct Tape(Lease<LstmSteps>);

/// A tensor's memory as an operation gets it.
pub(crate) type Part<'a> = (&'a CudaStorage, &'a Layout);

/// The outputs `(time, batch, hidden)`, the last c `(batch, hidden)` and the tape; shapes as in
/// [`mod@crate::scan::lstm_op`].
pub(crate) fn forward(
    [projected, recurrent, bias]: [Part<'_>; 3],
    state: &[Tensor; 2],
    mask: Option<&Tensor>,
    sizes: Sizes,
    precision: Precision,
) -> Result<(CudaStorage, Tensor, Tape)> {
    let device = projected.0.device.clone();
    let [projected, recurrent, bias] =
        [projected, recurrent, bias].map(|(storage, layout)| elements::<f32>(storage, layout));
    let (projected, recurrent, bias) = (projected?, recurrent?, bias?);
    let key = Key { device: device.id(), sizes, masked: mask.is_some(), precision, persistent: false };
    let mut outputs = room(&device, sizes.moments() * sizes.hidden)?;
    let mut cell = room(&device, sizes.batch * sizes.hidden)?;
    let mut lease = Lease::take(&device, key)?;
    with_elements(&state[0], |h| {
        with_elements(&state[1], |c| {
            with_optional(mask, |mask| {
                let (projected, recurrent, bias) = (&projected, &recurrent, &bias);
                let inputs = Inputs { projected, recurrent, bias, state: [h, c], mask };
                lstm_steps::forward(&device, &mut lease, &inputs, &mut outputs, &mut cell)
            })
        })
    })?;
    let cell = tensor(cell, (sizes.batch, sizes.hidden), &device);
    Ok((CudaStorage::wrap_cuda_slice(outputs, device), cell, Tape(lease)))
}

/// The gradients of the projection, the weights and the biases, from that of the outputs.
pub(crate) fn backward(Tape(mut lease): Tape, grads: &Tensor) -> Result<[Tensor; 3]> {
    let device = grads.device().as_cuda_device()?;
    with_elements(grads, |grads| lstm_steps::backward(device, &mut lease, grads))?;
    let key = *lease.key();
    let (hidden, width) = (key.sizes.hidden, key.sizes.gates * key.sizes.hidden);
    let [projected, recurrent, bias] = window_grads::grads(device, &key, &lease.room().tape)?;
    Ok([projected, recurrent.reshape((hidden, width))?, bias.reshape(width)?])
}
