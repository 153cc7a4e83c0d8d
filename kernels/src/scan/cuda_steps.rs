//! A recurrence on any GPU: a product by cuBLAS and a kernel a sublayer step, all of a window in a graph.

use super::cuda_memory::{DeviceSizes, Key, Lease, Tape, WindowMemory, operand_size};
use crate::cuda::graph::Graph;
use crate::cuda::launch::{Address, address, cover, launch};
use crate::cuda::padded_product::{Extent, Matrix, product};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, LaunchConfig};
use candle_core::{CudaDevice, Result};
use std::sync::Mutex;

/// What a window reads; shapes as in [`super::scan`].
pub(crate) struct DeviceInputs<'a> {
    pub(crate) projected: &'a CudaView<'a, f32>,
    pub(crate) recurrent: &'a CudaView<'a, f32>,
    pub(crate) bias: &'a CudaView<'a, f32>,
    /// The state's parts.
    pub(crate) state: &'a [CudaView<'a, f32>],
    pub(crate) mask: Option<&'a CudaView<'a, f32>>,
}

/// A window's memory: copies of what it reads and writes too, as a graph's launches cannot change their addresses.
pub(crate) struct LaunchedSteps {
    forward: Graph,
    backward: Graph,
    pub(crate) buffers: Buffers,
}

/// What the launches of a window read and write.
pub(crate) struct Buffers {
    pub(crate) tape: Tape,
    projected: CudaSlice<f32>,
    bias: CudaSlice<f32>,
    /// `(parts, batch, hidden)`.
    state: CudaSlice<f32>,
    mask: Option<CudaSlice<f32>>,
    grads: CudaSlice<f32>,
    outputs: CudaSlice<f32>,
    /// `(parts, batch, hidden)`, of which the last is unused: the parts but the first that leave the window.
    last: CudaSlice<f32>,
    /// The weights as the products take them: `(depth, stride, gates · stride)`, zero in the padding.
    packed: CudaSlice<u8>,
    /// A product's result: `(batch, gates · stride)` or `(batch, stride)`.
    sums: CudaSlice<f32>,
    /// `(parts, batch, hidden)`: the gradient of the state that goes back unit by unit.
    carried: CudaSlice<f32>,
}

// SAFETY: the graphs' handles are what keeps this from being `Send`. The driver lets any thread use them, one at a
// time; whoever holds the lease is the only one, and the pool of idle memory is behind a lock.
unsafe impl Send for LaunchedSteps {}

impl WindowMemory for LaunchedSteps {
    fn idle() -> &'static Mutex<Vec<(Key, Box<Self>)>> {
        static IDLE: Mutex<Vec<(Key, Box<LaunchedSteps>)>> = Mutex::new(Vec::new());
        &IDLE
    }

    fn new(device: &CudaDevice, key: &Key) -> Result<Self> {
        let Key { sizes, precision, .. } = *key;
        let units = sizes.batch * sizes.hidden;
        let outputs = sizes.input_rows() * sizes.hidden;
        let packed = sizes.depth * sizes.stride() * sizes.gate_stride() * operand_size(precision);
        let buffers = Buffers {
            tape: Tape::new(device, key)?,
            projected: device.alloc_zeros(sizes.gates * outputs)?,
            bias: device.alloc_zeros(sizes.depth * sizes.gates * sizes.hidden)?,
            state: device.alloc_zeros(sizes.parts * units)?,
            mask: key.masked.then(|| device.alloc_zeros(units)).transpose()?,
            grads: device.alloc_zeros(outputs)?,
            outputs: device.alloc_zeros(outputs)?,
            last: device.alloc_zeros(sizes.parts * units)?,
            packed: device.alloc_zeros(packed)?,
            sums: device.alloc_zeros(sizes.batch * sizes.gate_stride())?,
            carried: device.alloc_zeros(sizes.parts * units)?,
        };
        Ok(Self { forward: Graph::default(), backward: Graph::default(), buffers })
    }
}

/// The outputs `(time, batch, hidden)`, and the parts of the state but the first that leave the window.
pub(crate) fn forward(
    device: &CudaDevice,
    lease: &mut Lease<LaunchedSteps>,
    inputs: &DeviceInputs<'_>,
    outputs: &mut CudaSlice<f32>,
    last: &mut [CudaSlice<f32>],
) -> Result<()> {
    let key = lease.key;
    let units = key.sizes.batch * key.sizes.hidden;
    let LaunchedSteps { forward, buffers, .. } = lease.memory();
    device.memcpy_dtod(inputs.projected, &mut buffers.projected)?;
    device.memcpy_dtod(inputs.bias, &mut buffers.bias)?;
    for (part, from) in inputs.state.iter().enumerate() {
        device.memcpy_dtod(from, &mut buffers.state.slice_mut(part * units..(part + 1) * units))?;
    }
    if let (Some(from), Some(to)) = (inputs.mask, &mut buffers.mask) {
        device.memcpy_dtod(from, to)?;
    }
    pack(device, &key, inputs.recurrent, &buffers.packed)?;
    forward.run(device, || Pass::new(device, &key, buffers)?.forward())?;
    for (part, to) in last.iter_mut().enumerate() {
        device.memcpy_dtod(&buffers.last.slice(part * units..(part + 1) * units), to)?;
    }
    device.memcpy_dtod(&buffers.outputs, outputs)
}

/// The gradients of the products and the projected input, on the tape.
pub(crate) fn backward(
    device: &CudaDevice,
    lease: &mut Lease<LaunchedSteps>,
    grads: &CudaView<'_, f32>,
) -> Result<()> {
    let key = lease.key;
    let LaunchedSteps { backward, buffers, .. } = lease.memory();
    device.memcpy_dtod(grads, &mut buffers.grads)?;
    backward.run(device, || Pass::new(device, &key, buffers)?.backward())
}

/// The kernel `<cell>_<what>_<type>` for a window's cell and operands.
fn kernel(key: &Key, what: &str) -> String {
    let operands = if key.precision.rounds() { "bf16" } else { "f32" };
    format!("{}_{what}_{operands}", key.cell)
}

fn pack(device: &CudaDevice, key: &Key, recurrent: &CudaView<'_, f32>, packed: &CudaSlice<u8>) -> Result<()> {
    let config = cover(key.sizes.depth * key.sizes.hidden * key.sizes.gates * key.sizes.hidden);
    let kernel = kernel(key, "pack");
    launch!(device, "steps", &kernel, config; key.sizes.arguments()?; recurrent, packed)
}

/// A pass over a window: its launches, nothing else.
struct Pass<'a> {
    device: &'a CudaDevice,
    key: &'a Key,
    sizes: DeviceSizes,
    arguments: [i32; 5],
    buffers: &'a Buffers,
    mask: Address,
}

impl<'a> Pass<'a> {
    fn new(device: &'a CudaDevice, key: &'a Key, buffers: &'a Buffers) -> Result<Self> {
        let mask = buffers.mask.as_ref().map_or(0, address);
        Ok(Self { device, key, sizes: key.sizes, arguments: key.sizes.arguments()?, buffers, mask })
    }

    fn forward(&self) -> Result<()> {
        self.first_state()?;
        for index in 0..self.sizes.steps() {
            self.multiply(index)?;
            self.step(index)?;
        }
        Ok(())
    }

    fn backward(&self) -> Result<()> {
        let last = self.sizes.steps() - 1;
        self.step_back(last, 0)?;
        for index in (1..=last).rev() {
            self.multiply_back(index)?;
            self.step_back(index - 1, address(&self.buffers.sums))?;
        }
        Ok(())
    }

    fn first_state(&self) -> Result<()> {
        let Buffers { tape, state, .. } = self.buffers;
        launch!(self.device, "steps", &kernel(self.key, "first_state"), self.units();
            self.arguments; state, &self.mask, &tape.states, &tape.operands)
    }

    /// The cell's step between two products.
    fn step(&self, index: usize) -> Result<()> {
        let Buffers { tape, sums, projected, bias, outputs, last, .. } = self.buffers;
        let Tape { states, saved, operands, .. } = tape;
        launch!(self.device, "steps", &kernel(self.key, "forward_step"), self.units();
            self.arguments; &(index as i32), sums, projected, bias, &self.mask, states, saved, operands, outputs, last)
    }

    /// The gradients of a step. `sums` is what the product after it sent back, 0 for the last step.
    fn step_back(&self, index: usize, sums: Address) -> Result<()> {
        let Buffers { tape, grads, carried, .. } = self.buffers;
        let Tape { states, saved, .. } = tape;
        launch!(self.device, "steps", &kernel(self.key, "backward_step"), self.units();
            self.arguments; &(index as i32), &sums, grads, &self.mask, states, carried, saved, &tape.gate_operands())
    }

    /// A thread for each batch row and unit.
    fn units(&self) -> LaunchConfig {
        cover(self.sizes.batch * self.sizes.hidden)
    }

    /// The weights of a step's sublayer.
    fn weights(&self, index: usize) -> Matrix {
        let sublayer = self.sizes.stride() * self.sizes.gate_stride() * operand_size(self.key.precision);
        let first = index % self.sizes.depth * sublayer;
        Matrix::new(address(&self.buffers.packed) + first as Address, self.sizes.gate_stride())
    }

    /// The masked states of all batch rows times the sublayer's weights.
    fn multiply(&self, index: usize) -> Result<()> {
        let stride = self.sizes.stride();
        let first = self.sizes.row(index) * stride * operand_size(self.key.precision);
        let states = Matrix::new(address(&self.buffers.tape.operands) + first as Address, stride);
        let extent = Extent { m: self.sizes.batch, n: self.sizes.gate_stride(), k: stride, count: 1 };
        let sums = Matrix::new(address(&self.buffers.sums), self.sizes.gate_stride());
        let precision = self.key.precision;
        // SAFETY: `DeviceSizes::row` and the sublayer stay within the tape and the weights, which are this pass's alone.
        unsafe { product(self.device, precision, extent, states, self.weights(index), sums) }
    }

    /// The gradients of all batch rows' products times the transposed weights.
    fn multiply_back(&self, index: usize) -> Result<()> {
        let pitch = self.sizes.saved_stride();
        let first = self.sizes.row(index) * pitch * operand_size(self.key.precision);
        let grads = Matrix::new(self.buffers.tape.gate_operands() + first as Address, pitch);
        let stride = self.sizes.stride();
        let extent = Extent { m: self.sizes.batch, n: stride, k: self.sizes.gate_stride(), count: 1 };
        let sums = Matrix::new(address(&self.buffers.sums), stride);
        let precision = self.key.precision;
        // SAFETY: as in `multiply`.
        unsafe { product(self.device, precision, extent, grads, self.weights(index).t(), sums) }
    }
}
