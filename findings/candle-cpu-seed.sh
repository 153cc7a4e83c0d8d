#!/usr/bin/env bash
# One would expect a framework's random generator to be seedable on every device, as `Device::set_seed` suggests.
# With candle-core 0.11.1 `Device::Cpu.set_seed` is an error, while `Tensor::rand`, `Var::randn` and candle-nn's
# `dropout` and initialisers draw from a generator of the thread: two processes never see the same numbers.
# It matters here because a run must repeat and resume to the bit: initial values and masks come from a generator of
# our own, keyed by seed, purpose and step.
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
use candle_core::{DType, Device, Result, Tensor};

fn main() -> Result<()> {
    let device = Device::Cpu;
    println!("set_seed {}", if device.set_seed(1).is_ok() { "is Ok" } else { "is an error" });
    let dropped = candle_nn::ops::dropout(&Tensor::ones(64, DType::F32, &device)?, 0.5)?;
    let drawn = Tensor::rand(0f32, 1f32, 4, &device)?;
    println!("{:?} {:?}", drawn.to_vec1::<f32>()?, dropped.to_vec1::<f32>()?);
    Ok(())
}
RUST
first=$(cargo run --quiet)
second=$(cargo run --quiet)
head -n 1 <<< "$first"
[ "$(head -n 1 <<< "$first")" = "set_seed is an error" ] || { echo "this has changed" >&2; exit 1; }
[ "$first" != "$second" ] || { echo "this has changed: two processes drew the same" >&2; exit 1; }
echo "two processes drew different numbers"
