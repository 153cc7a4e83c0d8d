#!/usr/bin/env bash
# One would expect a function of candle-nn to be differentiable, or backward() to return an error where it is not.
# In candle-nn 0.11.1 `ops::softmax_last_dim`, `ops::rms_norm`, `ops::layer_norm` and the `LayerNorm` module return Ok
# from the forward and from backward(), and the variable has no gradient: training goes on and that layer never learns.
# `ops::softmax`, `ops::log_softmax`, `loss::cross_entropy` and `ops::sigmoid` are fine.
# It matters here because a model of our own must never be built on the first four: every parameter's gradient is tested.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
candle-core = { version = "=0.11.1", default-features = false }
candle-nn = { version = "=0.11.1", default-features = false }
TOML
cat > src/main.rs <<'RUST'
use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::{LayerNorm, Module, loss, ops};

fn report(name: &str, x: &Var, y: Result<Tensor>) {
    // Not the plain sum, whose gradient through a softmax is zero.
    let weights = Tensor::arange(0f32, 12., &Device::Cpu).unwrap().reshape((3, 4)).unwrap();
    let y = y.expect("the forward pass is Ok");
    let sum = if y.dims() == [3, 4] { (y * weights).unwrap().sum_all().unwrap() } else { y };
    let grads = sum.backward().expect("backward() is Ok");
    println!("{name} {}", if grads.get(x).is_some() { "has a gradient" } else { "has none" });
}

fn main() -> Result<()> {
    let device = Device::Cpu;
    let x = Var::from_tensor(&Tensor::new(&[[0.1f32, 0.4, 0.2, 0.9], [1., 2., 3., 5.], [0., 1., 0., 2.]], &device)?)?;
    let ones = Tensor::ones(4, DType::F32, &device)?;
    let zeros = Tensor::zeros(4, DType::F32, &device)?;
    report("softmax_last_dim", &x, ops::softmax_last_dim(&x));
    report("rms_norm", &x, ops::rms_norm(&x, &ones, 1e-5));
    report("layer_norm", &x, ops::layer_norm(&x, &ones, &zeros, 1e-5));
    report("LayerNorm", &x, LayerNorm::new(ones.clone(), zeros.clone(), 1e-5).forward(&x));
    report("softmax", &x, ops::softmax(&x, D::Minus1));
    report("log_softmax", &x, ops::log_softmax(&x, D::Minus1));
    report("sigmoid", &x, ops::sigmoid(&x));
    report("cross_entropy", &x, loss::cross_entropy(&x, &Tensor::new(&[0u32, 1, 2], &device)?));
    Ok(())
}
RUST
found=$(cargo run --quiet)
wanted='softmax_last_dim has none
rms_norm has none
layer_norm has none
LayerNorm has none
softmax has a gradient
log_softmax has a gradient
sigmoid has a gradient
cross_entropy has a gradient'
echo "$found"
[ "$found" = "$wanted" ] || { echo "this has changed" >&2; exit 1; }
