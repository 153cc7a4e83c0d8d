//! The gradients of an RHN's parameters, once those of all pre-activations are on the tape.

use super::launch::{cover, launch, room, size, tensor};
use super::rhn_product::{Extent, Matrix, product};
use super::rhn_window::{Address, Key, Sizes, Tape, address, operand_size};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, LaunchConfig};
use candle_core::{CudaDevice, Result, Tensor};

/// Columns and rows of a block of `rhn_bias_grad`.
const BIAS_BLOCK: (u32, u32) = (32, 8);

/// Of the projection `(time, batch, 2 hidden)`, the weights `(depth, hidden, 2 hidden)`, the biases `(depth, 2 hidden)`.
pub(super) fn grads(device: &CudaDevice, key: &Key, tape: &Tape) -> Result<[Tensor; 3]> {
    let Sizes { time, batch, depth, hidden } = key.sizes;
    let shapes = [(time, batch, 2 * hidden), (depth, hidden, 2 * hidden)];
    Ok([
        tensor(projected(device, key.sizes, tape)?, shapes[0], device),
        tensor(recurrent(device, key, tape)?, shapes[1], device),
        tensor(bias(device, key.sizes, tape)?, (depth, 2 * hidden), device),
    ])
}

fn projected(device: &CudaDevice, sizes: Sizes, tape: &Tape) -> Result<CudaSlice<f32>> {
    let count = sizes.moments() * 2 * sizes.hidden;
    let mut out = room(device, count)?;
    let [rows, hidden, stride] = in_kernels(sizes)?;
    launch!(
        device,
        "rhn_grads",
        "rhn_projected_grad",
        cover(count),
        &rows,
        &hidden,
        &stride,
        &tape.gates,
        &mut out
    )?;
    Ok(out)
}

fn bias(device: &CudaDevice, sizes: Sizes, tape: &Tape) -> Result<CudaSlice<f32>> {
    let mut out = room(device, sizes.depth * 2 * sizes.hidden)?;
    let [rows, hidden, stride] = in_kernels(sizes)?;
    let (columns, block_rows) = BIAS_BLOCK;
    let config = LaunchConfig {
        grid_dim: (2 * stride / columns, size(sizes.depth)?, 1),
        block_dim: (columns, block_rows, 1),
        shared_mem_bytes: 0,
    };
    launch!(device, "rhn_grads", "rhn_bias_grad", config, &rows, &hidden, &stride, &tape.gates, &mut out)?;
    Ok(out)
}

fn in_kernels(sizes: Sizes) -> Result<[u32; 3]> {
    Ok([size(sizes.moments())?, size(sizes.hidden)?, size(sizes.stride())?])
}

/// One product a sublayer for all steps; the columns of H, then those of T.
fn recurrent(device: &CudaDevice, key: &Key, tape: &Tape) -> Result<CudaSlice<f32>> {
    let (sizes, bytes) = (key.sizes, operand_size(key.precision));
    let (rows, stride, hidden) = (sizes.moments(), sizes.stride(), sizes.hidden);
    let out = room::<f32>(device, sizes.depth * hidden * 2 * hidden)?;
    let states = Matrix::new(address(&tape.operands), stride).stepping(rows * stride).t();
    let extent = Extent { m: hidden, n: hidden, k: rows, count: sizes.depth };
    for section in 0..2 {
        let from = tape.gate_operands() + (section * stride * bytes) as Address;
        let to = address(&out) + (section * hidden * size_of::<f32>()) as Address;
        let grads = Matrix::new(from, 2 * stride).stepping(rows * 2 * stride);
        let target = Matrix::new(to, 2 * hidden).stepping(hidden * 2 * hidden);
        // SAFETY: a sublayer's rows of the tape, and the section's columns of `out`, which nobody else knows yet.
        unsafe { product(device, key.precision, extent, states, grads, target)? };
    }
    Ok(out)
}
