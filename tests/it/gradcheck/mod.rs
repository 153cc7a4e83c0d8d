//! Gradients against central differences in f64: every layer through the model as it is trained.

mod model;
mod recipes;

use crate::support::shrunk;
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

/// Every element of `var` moved by ± 1e-5: the loss must follow `grad`.
pub(crate) fn check_by_differences(name: &str, var: &Var, grad: &[f64], loss: impl Fn() -> f64) {
    const STEP: f64 = 1e-5;
    let (shape, first) = (var.dims().to_vec(), values(var));
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
