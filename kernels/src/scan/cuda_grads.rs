//! The gradients of a recurrence's parameters, once those of all steps are on the tape.

use super::cuda_memory::{DeviceSizes, Key, Tape, operand_size};
use crate::cuda::launch::{Address, address, cover, launch, size, tensor, uninitialized};
use crate::cuda::padded_product::{Extent, Matrix, product};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, LaunchConfig};
use candle_core::{CudaDevice, Result, Tensor};

/// Columns and rows of a block of `window_bias_grad`.
const BIAS_BLOCK: (u32, u32) = (32, 8);

/// The gradients of the projected input `(time, batch, gates · hidden)`, the weights `(depth, hidden, gates · hidden)`
/// and the biases `(depth, gates · hidden)`. `positions` says which saved value is the gradient of each gate's
/// projected input.
pub(crate) fn grads(device: &CudaDevice, key: &Key, tape: &Tape, positions: &[usize]) -> Result<[Tensor; 3]> {
    let DeviceSizes { time, batch, depth, hidden, gates, .. } = key.sizes;
    Ok([
        tensor(projected(device, key.sizes, tape, positions)?, (time, batch, gates * hidden), device),
        tensor(recurrent(device, key, tape)?, (depth, hidden, gates * hidden), device),
        tensor(bias(device, key.sizes, tape)?, (depth, gates * hidden), device),
    ])
}

fn projected(
    device: &CudaDevice,
    sizes: DeviceSizes,
    tape: &Tape,
    positions: &[usize],
) -> Result<CudaSlice<f32>> {
    let count = sizes.input_rows() * sizes.gates * sizes.hidden;
    let mut out = uninitialized(device, count)?;
    // Four bits a gate, as the kernel takes them.
    let positions = positions.iter().rev().fold(0u32, |bits, position| bits << 4 | *position as u32);
    launch!(device, "window_grads", "window_projected_grad", cover(count);
        in_kernels(sizes)?; &positions, &tape.saved, &mut out)?;
    Ok(out)
}

fn bias(device: &CudaDevice, sizes: DeviceSizes, tape: &Tape) -> Result<CudaSlice<f32>> {
    let mut out = uninitialized(device, sizes.depth * sizes.gates * sizes.hidden)?;
    let (columns, block_rows) = BIAS_BLOCK;
    let config = LaunchConfig {
        grid_dim: (size(sizes.gate_stride())? / columns, size(sizes.depth)?, 1),
        block_dim: (columns, block_rows, 1),
        shared_mem_bytes: 0,
    };
    launch!(device, "window_grads", "window_bias_grad", config; in_kernels(sizes)?; &tape.saved, &mut out)?;
    Ok(out)
}

/// Rows, hidden size, stride, gates and saved values, as the kernels take them.
fn in_kernels(sizes: DeviceSizes) -> Result<[u32; 5]> {
    let DeviceSizes { hidden, gates, saved, .. } = sizes;
    Ok([size(sizes.input_rows())?, size(hidden)?, size(sizes.stride())?, size(gates)?, size(saved)?])
}

/// One product a sublayer and gate for all steps.
fn recurrent(device: &CudaDevice, key: &Key, tape: &Tape) -> Result<CudaSlice<f32>> {
    let sizes = key.sizes;
    let bytes = operand_size(key.precision);
    let rows = sizes.input_rows();
    let stride = sizes.stride();
    let hidden = sizes.hidden;
    let pitch = sizes.saved_stride();
    let width = sizes.gates * hidden;
    let out = uninitialized::<f32>(device, sizes.depth * hidden * width)?;
    let states = Matrix::new(address(&tape.operands), stride).stepping(rows * stride).t();
    let extent = Extent { m: hidden, n: hidden, k: rows, count: sizes.depth };
    for gate in 0..sizes.gates {
        let from = tape.gate_operands() + (gate * stride * bytes) as Address;
        let to = address(&out) + (gate * hidden * size_of::<f32>()) as Address;
        let grads = Matrix::new(from, pitch).stepping(rows * pitch);
        let target = Matrix::new(to, width).stepping(hidden * width);
        // SAFETY: a sublayer's rows of the tape, and the gate's columns of `out`, which nothing else refers to yet.
        unsafe { product(device, key.precision, extent, states, grads, target)? };
    }
    Ok(out)
}
