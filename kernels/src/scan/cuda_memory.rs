//! The memory of a recurrence's window on a GPU, lent to one window after another; `window.cuh` says what lies where.

use crate::cuda::launch::{Address, address};
use crate::precision::Precision;
use crate::scan::op::MOST_UNITS;
use crate::scan::persistent::launch_plan::stride;
use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, Result};
use std::sync::{Mutex, PoisonError};

/// Sizes of a window and its cell, from which those of a GPU's padded buffers follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceSizes {
    pub(crate) time: usize,
    pub(crate) batch: usize,
    pub(crate) depth: usize,
    pub(crate) hidden: usize,
    /// Gates of the cell.
    pub(crate) gates: usize,
    /// Values that a step saves, at least one a gate.
    pub(crate) saved: usize,
    /// Parts of the state.
    pub(crate) parts: usize,
}

impl DeviceSizes {
    /// Sublayer steps.
    pub(crate) fn steps(&self) -> usize {
        self.time * self.depth
    }

    /// Batch rows of all time steps.
    pub(crate) fn input_rows(&self) -> usize {
        self.time * self.batch
    }

    /// Rows of the buffers: batch rows of all sublayer steps.
    pub(crate) fn rows(&self) -> usize {
        self.depth * self.input_rows()
    }

    /// The first batch row's row at sublayer step `index`, as `Window::row` of the kernels has it.
    pub(crate) fn row(&self, index: usize) -> usize {
        (index % self.depth * self.time + index / self.depth) * self.batch
    }

    /// Units of a row, with its padding.
    pub(crate) fn stride(&self) -> usize {
        stride(self.hidden)
    }

    /// A row of all gates, each with its padding.
    pub(crate) fn gate_stride(&self) -> usize {
        self.gates * self.stride()
    }

    /// A row of all saved values, each with its padding.
    pub(crate) fn saved_stride(&self) -> usize {
        self.saved * self.stride()
    }

    /// As the kernels take them: time, batch, depth, hidden, stride. Fails if what they count in 32 bits does not fit,
    /// or batch rows times units are more than a grid has threads.
    pub(crate) fn arguments(&self) -> Result<[i32; 5]> {
        let counted = [self.rows(), self.depth * self.gate_stride(), self.batch * self.gate_stride()];
        if counted.iter().any(|count| i32::try_from(*count).is_err()) || self.batch * self.hidden > MOST_UNITS
        {
            candle_core::bail!("a window of {self:?} is too large for the recurrence's kernels");
        }
        let Self { time, batch, depth, hidden, .. } = *self;
        Ok([time, batch, depth, hidden, self.stride()].map(|size| size as i32))
    }
}

/// What decides whether a window can take over another's memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) device: DeviceId,
    /// The cell's name.
    pub(crate) cell: &'static str,
    pub(crate) sizes: DeviceSizes,
    pub(crate) masked: bool,
    pub(crate) precision: Precision,
    pub(crate) persistent: bool,
}

/// What the forward pass leaves for the backward pass; the kernels' files say what is in it.
pub(crate) struct Tape {
    pub(crate) states: CudaSlice<f32>,
    pub(crate) saved: CudaSlice<f32>,
    /// f32 or bf16, as the precision has it.
    pub(crate) operands: CudaSlice<u8>,
    /// Only in bf16.
    gate_operands: Option<CudaSlice<u8>>,
}

impl Tape {
    pub(crate) fn new(device: &CudaDevice, key: &Key) -> Result<Self> {
        let size = operand_size(key.precision);
        let count = key.sizes.rows() * key.sizes.stride();
        let saved = key.sizes.saved * count;
        let gate_operands = key.precision.rounds().then(|| device.alloc_zeros(saved * size)).transpose()?;
        Ok(Self {
            states: device.alloc_zeros(key.sizes.parts * count)?,
            saved: device.alloc_zeros(saved)?,
            operands: device.alloc_zeros(count * size)?, // zeros: the padding is multiplied
            gate_operands,
        })
    }

    /// The gradients of the gates' products as the products take them.
    pub(crate) fn gate_operands(&self) -> Address {
        self.gate_operands.as_ref().map_or_else(|| address(&self.saved), address)
    }
}

/// The size of a product's operand in bytes.
pub(crate) fn operand_size(precision: Precision) -> usize {
    if precision.rounds() { 2 } else { 4 }
}

/// Memory that is lent to a window until both of its passes are done.
pub(crate) struct Lease<M: WindowMemory> {
    pub(crate) key: Key,
    memory: Option<Box<M>>,
}

/// What can be lent.
pub(crate) trait WindowMemory: Sized + Send + 'static {
    /// Those that are not lent, the longest unused first.
    fn idle() -> &'static Mutex<Vec<(Key, Box<Self>)>>;

    fn new(device: &CudaDevice, key: &Key) -> Result<Self>;
}

/// Windows whose memory is kept for later; corpora end in windows of odd sizes, and texts have many.
const MOST_IDLE: usize = 4;

impl<M: WindowMemory> Lease<M> {
    /// One that is idle, or a new one.
    pub(crate) fn take(device: &CudaDevice, key: Key) -> Result<Self> {
        let mut idle = M::idle().lock().unwrap_or_else(PoisonError::into_inner);
        let found = idle.iter().rposition(|(other, _)| *other == key).map(|at| idle.remove(at).1);
        drop(idle);
        let memory = found.map_or_else(|| M::new(device, &key).map(Box::new), Ok)?;
        Ok(Self { key, memory: Some(memory) })
    }

    pub(crate) fn memory(&mut self) -> &mut M {
        self.memory.as_mut().expect("it is given back by the destructor only")
    }
}

impl<M: WindowMemory> Drop for Lease<M> {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else { return };
        let mut idle = M::idle().lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((self.key, memory));
        if idle.len() > MOST_IDLE {
            let oldest = idle.remove(0);
            drop(idle);
            drop(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DeviceSizes;

    #[test]
    fn a_sublayers_rows_lie_together_in_the_order_of_time() {
        let sizes = DeviceSizes { time: 3, batch: 4, depth: 2, hidden: 5, gates: 2, saved: 2, parts: 1 };
        let rows: Vec<_> = (0..sizes.steps()).map(|index| sizes.row(index)).collect();
        assert_eq!(rows, [0, 12, 4, 16, 8, 20]);
        assert_eq!(sizes.rows(), 24);
    }

    #[test]
    fn a_window_whose_positions_do_not_fit_the_kernels_is_refused() {
        let window =
            |time| DeviceSizes { time, batch: 128, depth: 10, hidden: 1500, gates: 2, saved: 2, parts: 1 };
        assert_eq!(window(50).arguments().unwrap(), [50, 128, 10, 1500, 1504]);
        assert!(window(1 << 22).arguments().is_err());
    }
}
