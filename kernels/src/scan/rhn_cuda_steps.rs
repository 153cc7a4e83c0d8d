//! The RHN recurrence on any GPU: a product by cuBLAS and a kernel a sublayer step, all of a window in a graph.

use crate::cuda::graph::Sequence;
use crate::cuda::launch::{cover, launch};
use crate::cuda::padded_product::{Extent, Matrix, product};
use crate::precision::Precision;
use crate::scan::cuda_memory::{Address, Key, Lease, Room, Sizes, Tape, address, operand_size};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{CudaDevice, Result};
use std::sync::Mutex;

/// What a window reads; shapes as in [`mod@crate::scan::rhn_op`].
pub(crate) struct Inputs<'a> {
    pub(crate) projected: &'a CudaView<'a, f32>,
    pub(crate) recurrent: &'a CudaView<'a, f32>,
    pub(crate) bias: &'a CudaView<'a, f32>,
    pub(crate) state: &'a CudaView<'a, f32>,
    pub(crate) mask: Option<&'a CudaView<'a, f32>>,
}

/// A window's memory: copies of what it reads and writes too, as a graph's launches cannot change their addresses.
pub(crate) struct Steps {
    pub(crate) tape: Tape,
    projected: CudaSlice<f32>,
    bias: CudaSlice<f32>,
    state: CudaSlice<f32>,
    mask: Option<CudaSlice<f32>>,
    grads: CudaSlice<f32>,
    outputs: CudaSlice<f32>,
    /// The weights as the products take them: `(depth, stride, 2 stride)`, zero in the padding.
    packed: CudaSlice<u8>,
    /// A product's result: `(batch, 2 stride)` or `(batch, stride)`.
    sums: CudaSlice<f32>,
    /// `(batch, hidden)`: what the carry gate passes back.
    carried: CudaSlice<f32>,
    forward: Sequence,
    backward: Sequence,
}

// SAFETY: the graphs' handles are what keeps this from being `Send`. The driver lets any thread use them, one at a
// time; whoever holds the lease is the only one, and the pool of idle rooms is behind a lock.
unsafe impl Send for Steps {}

static IDLE: Mutex<Vec<(Key, Box<Steps>)>> = Mutex::new(Vec::new());

impl Room for Steps {
    fn idle() -> &'static Mutex<Vec<(Key, Box<Self>)>> {
        &IDLE
    }

    fn new(device: &CudaDevice, key: &Key) -> Result<Self> {
        let Key { sizes, precision, .. } = *key;
        let (stride, lanes) = (sizes.stride(), sizes.batch * sizes.hidden);
        let packed = sizes.depth * stride * 2 * stride * operand_size(precision);
        Ok(Self {
            tape: Tape::new(device, key)?,
            projected: device.alloc_zeros(2 * sizes.moments() * sizes.hidden)?,
            bias: device.alloc_zeros(sizes.depth * 2 * sizes.hidden)?,
            state: device.alloc_zeros(lanes)?,
            mask: key.masked.then(|| device.alloc_zeros(lanes)).transpose()?,
            grads: device.alloc_zeros(sizes.moments() * sizes.hidden)?,
            outputs: device.alloc_zeros(sizes.moments() * sizes.hidden)?,
            packed: device.alloc_zeros(packed)?,
            sums: device.alloc_zeros(sizes.batch * 2 * stride)?,
            carried: device.alloc_zeros(lanes)?,
            forward: Sequence::default(),
            backward: Sequence::default(),
        })
    }
}

/// The outputs `(time, batch, hidden)`.
pub(crate) fn forward(
    device: &CudaDevice,
    lease: &mut Lease<Steps>,
    inputs: &Inputs<'_>,
    outputs: &mut CudaSlice<f32>,
) -> Result<()> {
    let key = *lease.key();
    let room = lease.room();
    device.memcpy_dtod(inputs.projected, &mut room.projected)?;
    device.memcpy_dtod(inputs.bias, &mut room.bias)?;
    device.memcpy_dtod(inputs.state, &mut room.state)?;
    if let (Some(from), Some(to)) = (inputs.mask, &mut room.mask) {
        device.memcpy_dtod(from, to)?;
    }
    pack(device, &key, inputs.recurrent, &room.packed)?;
    let mut forward = std::mem::take(&mut room.forward);
    let done = forward.run(device, || Pass::new(device, &key, room)?.forward());
    room.forward = forward;
    done?;
    device.memcpy_dtod(&room.outputs, outputs)
}

/// The gradients of the pre-activations, on the tape.
pub(crate) fn backward(
    device: &CudaDevice,
    lease: &mut Lease<Steps>,
    grads: &CudaView<'_, f32>,
) -> Result<()> {
    let key = *lease.key();
    let room = lease.room();
    device.memcpy_dtod(grads, &mut room.grads)?;
    let mut backward = std::mem::take(&mut room.backward);
    let done = backward.run(device, || Pass::new(device, &key, room)?.backward());
    room.backward = backward;
    done
}

fn pack(device: &CudaDevice, key: &Key, recurrent: &CudaView<'_, f32>, packed: &CudaSlice<u8>) -> Result<()> {
    let [time, batch, depth, hidden, stride] = key.sizes.arguments()?;
    let kernel = if key.precision.rounds() { "rhn_pack_bf16" } else { "rhn_pack_f32" };
    let config = cover(key.sizes.depth * key.sizes.hidden * 2 * key.sizes.hidden);
    launch!(device, "rhn_steps", kernel, config, &time, &batch, &depth, &hidden, &stride, recurrent, packed)
}

/// A pass over a window: its launches, nothing else.
struct Pass<'a> {
    device: &'a CudaDevice,
    sizes: Sizes,
    precision: Precision,
    arguments: [i32; 5],
    room: &'a Steps,
    mask: Address,
}

impl<'a> Pass<'a> {
    fn new(device: &'a CudaDevice, key: &Key, room: &'a Steps) -> Result<Self> {
        let (sizes, precision) = (key.sizes, key.precision);
        let mask = room.mask.as_ref().map_or(0, address);
        Ok(Self { device, sizes, precision, arguments: sizes.arguments()?, room, mask })
    }

    /// The kernel for this precision's operands.
    fn kernel(&self, f32: &'static str, bf16: &'static str) -> &'static str {
        if self.precision.rounds() { bf16 } else { f32 }
    }

    fn forward(&self) -> Result<()> {
        self.first_state()?;
        for index in 0..self.sizes.steps() {
            self.multiply(index)?;
            self.gates(index)?;
        }
        Ok(())
    }

    fn backward(&self) -> Result<()> {
        let last = self.sizes.steps() - 1;
        self.gate_grads(last, 0)?;
        for index in (1..=last).rev() {
            self.multiply_back(index)?;
            self.gate_grads(index - 1, address(&self.room.sums))?;
        }
        Ok(())
    }

    fn first_state(&self) -> Result<()> {
        let ([time, batch, depth, hidden, stride], Steps { tape, state, .. }) = (self.arguments, self.room);
        let kernel = self.kernel("rhn_first_state_f32", "rhn_first_state_bf16");
        launch!(
            self.device,
            "rhn_steps",
            kernel,
            cover(self.sizes.batch * self.sizes.hidden),
            &time,
            &batch,
            &depth,
            &hidden,
            &stride,
            state,
            &self.mask,
            &tape.states,
            &tape.operands,
        )
    }

    fn gates(&self, index: usize) -> Result<()> {
        let ([time, batch, depth, hidden, stride], Steps { tape, .. }) = (self.arguments, self.room);
        let kernel = self.kernel("rhn_forward_step_f32", "rhn_forward_step_bf16");
        launch!(
            self.device,
            "rhn_steps",
            kernel,
            cover(self.sizes.batch * self.sizes.hidden),
            &time,
            &batch,
            &depth,
            &hidden,
            &stride,
            &(index as i32),
            &self.room.sums,
            &self.room.projected,
            &self.room.bias,
            &self.mask,
            &tape.states,
            &tape.gates,
            &tape.operands,
            &self.room.outputs,
        )
    }

    /// `sums` is what the product after this step sent back, 0 for the last step.
    fn gate_grads(&self, index: usize, sums: Address) -> Result<()> {
        let ([time, batch, depth, hidden, stride], Steps { tape, .. }) = (self.arguments, self.room);
        let kernel = self.kernel("rhn_backward_step_f32", "rhn_backward_step_bf16");
        launch!(
            self.device,
            "rhn_steps",
            kernel,
            cover(self.sizes.batch * self.sizes.hidden),
            &time,
            &batch,
            &depth,
            &hidden,
            &stride,
            &(index as i32),
            &sums,
            &self.room.grads,
            &self.mask,
            &tape.states,
            &self.room.carried,
            &tape.gates,
            &tape.gate_operands(),
        )
    }

    /// Where a step's sublayer has its weights.
    fn weights(&self, index: usize) -> Matrix {
        let (stride, size) = (self.sizes.stride(), operand_size(self.precision));
        let first = index % self.sizes.depth * stride * 2 * stride * size;
        Matrix::new(address(&self.room.packed) + first as Address, 2 * stride)
    }

    /// The masked states of all lanes times the sublayer's weights.
    fn multiply(&self, index: usize) -> Result<()> {
        let (stride, size) = (self.sizes.stride(), operand_size(self.precision));
        let states = address(&self.room.tape.operands) + (self.sizes.row(index) * stride * size) as Address;
        let extent = Extent { m: self.sizes.batch, n: 2 * stride, k: stride, count: 1 };
        let (states, sums) = (Matrix::new(states, stride), Matrix::new(address(&self.room.sums), 2 * stride));
        // SAFETY: `Sizes::row` and the sublayer stay within the tape and the weights; the room is this pass's alone.
        unsafe { product(self.device, self.precision, extent, states, self.weights(index), sums) }
    }

    /// The gradients of all lanes' pre-activations times the transposed weights.
    fn multiply_back(&self, index: usize) -> Result<()> {
        let (stride, size) = (self.sizes.stride(), operand_size(self.precision));
        let first = self.sizes.row(index) * 2 * stride * size;
        let grads = Matrix::new(self.room.tape.gate_operands() + first as Address, 2 * stride);
        let extent = Extent { m: self.sizes.batch, n: stride, k: 2 * stride, count: 1 };
        let sums = Matrix::new(address(&self.room.sums), stride);
        // SAFETY: as in `multiply`.
        unsafe { product(self.device, self.precision, extent, grads, self.weights(index).t(), sums) }
    }
}
