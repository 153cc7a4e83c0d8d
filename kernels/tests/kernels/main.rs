//! The kernels: gradients against central differences in f64, every instruction set beside the reference, and the CUDA
//! kernels run by an emulator on the CPU.

mod emulated_case;
mod emulated_dropout;
mod emulated_embedding;
mod emulated_emulation;
mod emulated_loss;
mod emulated_rhn_persistent;
mod emulated_scan_steps;
mod emulated_update;
mod emulated_window;
mod emulator;
mod gradients_char_cnn;
mod gradients_feed_forward;
mod gradients_highway;
mod gradients_loss;
mod gradients_scan;
mod gradients_scan_state;
mod scan_trace;

use candle_core::{DType, Device, Tensor, Var};
use rhn_kernels::rng::Rng;

pub(crate) fn random(name: &str, shape: &[usize], scale: f64, dtype: DType) -> Var {
    let mut rng = Rng::keyed(11, name, 0);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| scale * (2.0 * rng.uniform() - 1.0)).collect();
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap())
        .unwrap()
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference, relative to the largest wanted magnitude; NaN counts as infinite.
pub(crate) fn distance(found: &Tensor, wanted: &Tensor) -> f64 {
    assert_eq!(found.dims(), wanted.dims());
    let found = values(found);
    let wanted = values(wanted);
    let size = wanted.iter().fold(1e-30, |a: f64, b| a.max(b.abs()));
    let worst = found.iter().zip(&wanted).map(|(f, w)| (f - w).abs() / size);
    worst.fold(0.0, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
}

/// Every element of `var` moved by ± 1e-5: the loss must follow `grad`.
pub(crate) fn check_by_differences(name: &str, var: &Var, grad: &[f64], loss: impl Fn() -> f64) {
    const STEP: f64 = 1e-5;
    let shape = var.dims().to_vec();
    let first = values(var);
    let at = |values: Vec<f64>| {
        var.set(&Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap()).unwrap();
        loss()
    };
    for (i, grad) in grad.iter().enumerate() {
        let moved =
            |by: f64| first.iter().enumerate().map(|(j, v)| if i == j { v + by } else { *v }).collect();
        let slope = (at(moved(STEP)) - at(moved(-STEP))) / (2.0 * STEP);
        assert!((slope - grad).abs() <= 1e-7 * (1.0 + slope.abs()), "{name}[{i}]: {} for {slope}", grad);
    }
    at(first);
}

/// Numbers in ± `scale` that look drawn.
fn scattered(count: usize, scale: f64, seed: u64) -> Vec<f64> {
    let mut rng = Rng::keyed(seed, "kernels", count as u64);
    (0..count).map(|_| scale * (2.0 * rng.uniform() - 1.0)).collect()
}

/// As many blocks as cover `count` elements with `threads` each, and fewer, so that threads stride.
fn grids(count: usize, threads: usize) -> [emulator::LaunchShape; 2] {
    let blocks = count.div_ceil(threads).max(1);
    [blocks, blocks.div_ceil(3)].map(|blocks| emulator::LaunchShape::flat(blocks, threads))
}
