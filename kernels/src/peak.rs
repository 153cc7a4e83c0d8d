//! What this machine can do at most: large products of square matrices, and memory read and written at once.
//!
//! Each figure is the best of about a second, on as many threads as everything else uses.

use crate::cpu::gemm::{Target, product};
use crate::cpu::in_vectors;
use crate::cpu::instruction_set::Computed;
use crate::cpu::panels::View;
use crate::error::Result;
use crate::precision::Precision;
use candle_core::{DType, Device, Tensor, cuda};
use pulp::Arch;
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// Rows and columns of the matrices whose product is timed.
const SIDE: usize = 2048;
/// The same for a GPU, large enough to keep all of it busy.
const SIDE_ON_GPU: usize = 8192;
/// Elements of an array that is streamed: 128 MiB, more than caches hold.
const LENGTH: usize = 1 << 25;
const PIECE: usize = 1 << 16;
const LONG_ENOUGH: Duration = Duration::from_secs(1);
const FEWEST: usize = 4;

/// Floating-point operations a second in the product of two large square matrices; a multiplication and an addition
/// are two. On the CPU the better of our own kernels and the library's that candle uses, which has no bf16.
pub fn product_peak(precision: Precision, device: &Device) -> Result<f64> {
    let operations = 2.0 * (side(device) as f64).powi(3);
    let library = if precision.rounds() && device.is_cpu() {
        f64::INFINITY
    } else {
        product_of_tensors(precision, device)?
    };
    let own = match (precision, device) {
        (Precision::F32 | Precision::Bf16, Device::Cpu) => product_on_cpu::<f32>(precision.rounds())?,
        (Precision::F64, Device::Cpu) => product_on_cpu::<f64>(false)?,
        _ => f64::INFINITY,
    };
    Ok(operations / own.min(library))
}

fn product_on_cpu<T: Computed>(bf16: bool) -> Result<f64> {
    let side = vec![T::from_f64(0.5); SIDE * SIDE];
    let matrix = View::new(&side, SIDE, SIDE);
    let mut result = vec![T::zero(); SIDE * SIDE];
    fastest(|| {
        product(Target::new(&mut result, SIDE, SIDE), matrix, matrix, false, bf16);
        Ok(())
    })
}

fn product_of_tensors(precision: Precision, device: &Device) -> Result<f64> {
    let dtype = if precision.rounds() { DType::BF16 } else { precision.dtype() };
    let matrix = Tensor::ones((side(device), side(device)), dtype, device)?;
    let before = cuda::gemm_reduced_precision_f32();
    cuda::set_gemm_reduced_precision_f32(precision == Precision::Tf32);
    let fastest = fastest(|| {
        matrix.matmul(&matrix)?;
        Ok(device.synchronize()?)
    });
    cuda::set_gemm_reduced_precision_f32(before);
    fastest
}

fn side(device: &Device) -> usize {
    if device.is_cpu() { SIDE } else { SIDE_ON_GPU }
}

#[cfg(feature = "cuda")]
pub use crate::cuda::device::describe as gpu;

/// The GPU's name, compute capability, multiprocessors and memory; `None` for the CPU.
#[cfg(not(feature = "cuda"))]
pub fn gpu(_: &Device) -> Option<String> {
    None
}

/// Bytes a second of `a ← b + 3 c` over arrays larger than the caches: two read, one written.
pub fn memory_bandwidth(device: &Device) -> Result<f64> {
    let bytes = 3.0 * (LENGTH * size_of::<f32>()) as f64;
    let seconds = if device.is_cpu() { triad_on_cpu()? } else { sum_of_tensors(device)? };
    Ok(bytes / seconds)
}

fn triad_on_cpu() -> Result<f64> {
    let mut a = vec![0f32; LENGTH];
    let b = vec![1f32; LENGTH];
    let c = vec![2f32; LENGTH];
    let arch = Arch::new();
    fastest(|| {
        let operands = b.par_chunks(PIECE).zip(c.par_chunks(PIECE));
        a.par_chunks_mut(PIECE).zip(operands).for_each(|(a, (b, c))| {
            in_vectors!(arch, a.iter_mut().zip(b.iter().zip(c)).for_each(|(a, (&b, &c))| *a = b + 3.0 * c));
        });
        Ok(())
    })
}

/// One kernel that reads two arrays and writes a third: all that a device's library offers.
fn sum_of_tensors(device: &Device) -> Result<f64> {
    let b = Tensor::ones(LENGTH, DType::F32, device)?;
    let c = Tensor::ones(LENGTH, DType::F32, device)?;
    fastest(|| {
        (&b + &c)?;
        Ok(device.synchronize()?)
    })
}

/// Seconds of the fastest of several runs.
fn fastest(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    let mut runs = 0;
    let mut best = f64::INFINITY;
    while runs < FEWEST || start.elapsed() < LONG_ENOUGH {
        let begun = Instant::now();
        run()?;
        best = best.min(begun.elapsed().as_secs_f64());
        runs += 1;
    }
    Ok(best)
}
