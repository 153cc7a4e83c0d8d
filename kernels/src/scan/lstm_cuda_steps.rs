//! The LSTM recurrence on a GPU: a product by cuBLAS and a kernel a step, all of a window in a graph.

use crate::cuda::graph::Sequence;
use crate::cuda::launch::{cover, launch};
use crate::cuda::padded_product::{Extent, Matrix, product};
use crate::precision::Precision;
use crate::scan::cuda_memory::{Address, Key, Lease, Room, Sizes, Tape, address, operand_size};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{CudaDevice, Result};
use std::sync::Mutex;

/// What a window reads; shapes as in [`mod@crate::scan::lstm_op`].
pub(crate) struct Inputs<'a> {
    pub(crate) projected: &'a CudaView<'a, f32>,
    pub(crate) recurrent: &'a CudaView<'a, f32>,
    pub(crate) bias: &'a CudaView<'a, f32>,
    /// h and c.
    pub(crate) state: [&'a CudaView<'a, f32>; 2],
    pub(crate) mask: Option<&'a CudaView<'a, f32>>,
}

/// A window's memory: copies of what it reads and writes too, as a graph's launches cannot change their addresses.
pub(crate) struct LstmSteps {
    pub(crate) tape: Tape,
    projected: CudaSlice<f32>,
    bias: CudaSlice<f32>,
    state: [CudaSlice<f32>; 2],
    mask: Option<CudaSlice<f32>>,
    grads: CudaSlice<f32>,
    outputs: CudaSlice<f32>,
    /// `(batch, hidden)`: the c that leaves the window.
    last_cell: CudaSlice<f32>,
    /// The weights as the products take them: `(stride, 4 stride)`, zero in the padding.
    packed: CudaSlice<u8>,
    /// A product's result: `(batch, 4 stride)` or `(batch, stride)`.
    sums: CudaSlice<f32>,
    /// `(batch, hidden)`: the gradient of c that the forget gates pass back.
    carried: CudaSlice<f32>,
    forward: Sequence,
    backward: Sequence,
}

// SAFETY: the graphs' handles are what keeps this from being `Send`. The driver lets any thread use them, one at a
// time; whoever holds the lease is the only one, and the pool of idle rooms is behind a lock.
unsafe impl Send for LstmSteps {}

static IDLE: Mutex<Vec<(Key, Box<LstmSteps>)>> = Mutex::new(Vec::new());

impl Room for LstmSteps {
    fn idle() -> &'static Mutex<Vec<(Key, Box<Self>)>> {
        &IDLE
    }

    fn new(device: &CudaDevice, key: &Key) -> Result<Self> {
        let Key { sizes, precision, .. } = *key;
        let (lanes, moments) = (sizes.batch * sizes.hidden, sizes.moments() * sizes.hidden);
        Ok(Self {
            tape: Tape::new(device, key)?,
            projected: device.alloc_zeros(sizes.gates * moments)?,
            bias: device.alloc_zeros(sizes.gates * sizes.hidden)?,
            state: [device.alloc_zeros(lanes)?, device.alloc_zeros(lanes)?],
            mask: key.masked.then(|| device.alloc_zeros(lanes)).transpose()?,
            grads: device.alloc_zeros(moments)?,
            outputs: device.alloc_zeros(moments)?,
            last_cell: device.alloc_zeros(lanes)?,
            packed: device.alloc_zeros(sizes.stride() * sizes.gate_stride() * operand_size(precision))?,
            sums: device.alloc_zeros(sizes.batch * sizes.gate_stride())?,
            carried: device.alloc_zeros(lanes)?,
            forward: Sequence::default(),
            backward: Sequence::default(),
        })
    }
}

/// The outputs `(time, batch, hidden)`, and the c that leaves the window.
pub(crate) fn forward(
    device: &CudaDevice,
    lease: &mut Lease<LstmSteps>,
    inputs: &Inputs<'_>,
    outputs: &mut CudaSlice<f32>,
    last_cell: &mut CudaSlice<f32>,
) -> Result<()> {
    let key = *lease.key();
    let room = lease.room();
    device.memcpy_dtod(inputs.projected, &mut room.projected)?;
    device.memcpy_dtod(inputs.bias, &mut room.bias)?;
    for (from, to) in inputs.state.into_iter().zip(&mut room.state) {
        device.memcpy_dtod(from, to)?;
    }
    if let (Some(from), Some(to)) = (inputs.mask, &mut room.mask) {
        device.memcpy_dtod(from, to)?;
    }
    pack(device, &key, inputs.recurrent, &room.packed)?;
    let mut forward = std::mem::take(&mut room.forward);
    let done = forward.run(device, || Pass::new(device, &key, room)?.forward());
    room.forward = forward;
    done?;
    device.memcpy_dtod(&room.last_cell, last_cell)?;
    device.memcpy_dtod(&room.outputs, outputs)
}

/// The gradients of the pre-activations, on the tape.
pub(crate) fn backward(
    device: &CudaDevice,
    lease: &mut Lease<LstmSteps>,
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
    let [time, batch, _, hidden, stride] = key.sizes.arguments()?;
    let kernel = if key.precision.rounds() { "lstm_pack_bf16" } else { "lstm_pack_f32" };
    let config = cover(key.sizes.hidden * key.sizes.gates * key.sizes.hidden);
    launch!(device, "lstm_steps", kernel, config, &time, &batch, &hidden, &stride, recurrent, packed)
}

/// A pass over a window: its launches, nothing else.
struct Pass<'a> {
    device: &'a CudaDevice,
    sizes: Sizes,
    precision: Precision,
    arguments: [i32; 5],
    room: &'a LstmSteps,
    mask: Address,
}

impl<'a> Pass<'a> {
    fn new(device: &'a CudaDevice, key: &Key, room: &'a LstmSteps) -> Result<Self> {
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
        for step in 0..self.sizes.time {
            self.multiply(step)?;
            self.gates(step)?;
        }
        Ok(())
    }

    fn backward(&self) -> Result<()> {
        let last = self.sizes.time - 1;
        self.gate_grads(last, 0)?;
        for step in (1..=last).rev() {
            self.multiply_back(step)?;
            self.gate_grads(step - 1, address(&self.room.sums))?;
        }
        Ok(())
    }

    fn first_state(&self) -> Result<()> {
        let ([time, batch, _, hidden, stride], LstmSteps { tape, state, .. }) = (self.arguments, self.room);
        let kernel = self.kernel("lstm_first_state_f32", "lstm_first_state_bf16");
        launch!(
            self.device,
            "lstm_steps",
            kernel,
            cover(self.sizes.batch * self.sizes.hidden),
            &time,
            &batch,
            &hidden,
            &stride,
            &state[0],
            &state[1],
            &self.mask,
            &tape.states,
            &tape.operands,
        )
    }

    fn gates(&self, step: usize) -> Result<()> {
        let ([time, batch, _, hidden, stride], LstmSteps { tape, .. }) = (self.arguments, self.room);
        let kernel = self.kernel("lstm_forward_step_f32", "lstm_forward_step_bf16");
        launch!(
            self.device,
            "lstm_steps",
            kernel,
            cover(self.sizes.batch * self.sizes.hidden),
            &time,
            &batch,
            &hidden,
            &stride,
            &(step as i32),
            &self.room.sums,
            &self.room.projected,
            &self.room.bias,
            &self.mask,
            &tape.states,
            &tape.gates,
            &tape.operands,
            &self.room.outputs,
            &self.room.last_cell,
        )
    }

    /// `sums` is what the product of the step after this one sent back, 0 for the last step.
    fn gate_grads(&self, step: usize, sums: Address) -> Result<()> {
        let ([time, batch, _, hidden, stride], LstmSteps { tape, .. }) = (self.arguments, self.room);
        let kernel = self.kernel("lstm_backward_step_f32", "lstm_backward_step_bf16");
        launch!(
            self.device,
            "lstm_steps",
            kernel,
            cover(self.sizes.batch * self.sizes.hidden),
            &time,
            &batch,
            &hidden,
            &stride,
            &(step as i32),
            &sums,
            &self.room.grads,
            &self.mask,
            &tape.states,
            &self.room.carried,
            &tape.gates,
            &tape.gate_operands(),
        )
    }

    fn weights(&self) -> Matrix {
        Matrix::new(address(&self.room.packed), self.sizes.gate_stride())
    }

    /// The masked h of all lanes times the weights.
    fn multiply(&self, step: usize) -> Result<()> {
        let (stride, gates, size) = self.pitches();
        let states = address(&self.room.tape.operands) + (self.sizes.row(step) * stride * size) as Address;
        let extent = Extent { m: self.sizes.batch, n: gates, k: stride, count: 1 };
        let (states, sums) = (Matrix::new(states, stride), Matrix::new(address(&self.room.sums), gates));
        // SAFETY: `Sizes::row` stays within the tape; the room is this pass's alone.
        unsafe { product(self.device, self.precision, extent, states, self.weights(), sums) }
    }

    /// The gradients of all lanes' pre-activations times the transposed weights.
    fn multiply_back(&self, step: usize) -> Result<()> {
        let (stride, gates, size) = self.pitches();
        let first = self.sizes.row(step) * gates * size;
        let grads = Matrix::new(self.room.tape.gate_operands() + first as Address, gates);
        let extent = Extent { m: self.sizes.batch, n: stride, k: gates, count: 1 };
        let sums = Matrix::new(address(&self.room.sums), stride);
        // SAFETY: as in `multiply`.
        unsafe { product(self.device, self.precision, extent, grads, self.weights().t(), sums) }
    }

    /// From a row of operands, and of gates, to the next, in elements; an element, in bytes.
    fn pitches(&self) -> (usize, usize, usize) {
        (self.sizes.stride(), self.sizes.gate_stride(), operand_size(self.precision))
    }
}
