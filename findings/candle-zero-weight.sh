#!/usr/bin/env bash
# One would expect a term of the loss that weighs 0.0 to give zeros for a gradient, as PyTorch does, so that an optimizer
# treats its weights as those of a term that weighs 1e-60, which f32 rounds to 0. With candle-core 0.11.1 a factor of
# exactly 0.0 cuts the term off: GradStore has nothing for its variables, and candle-nn's AdamW passes them over, weight
# decay and all; with 1e-60, or with a tensor that holds 0.0, the gradient is zeros and the weights decay.
# It matters here because the weight of a KL begins at 0 and grows: weights that the KL alone reaches would be taken for
# forgotten ones, which is an error here, and how far they decay depends on whether a schedule gives 0 or nearly 0.
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
use candle_core::{Device, Result, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

/// A step on the square of one variable and a term of another, which `weigh` multiplies.
fn step(name: &str, weigh: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
    let [used, annealed] = [Var::new(1f32, &Device::Cpu)?, Var::new(1f32, &Device::Cpu)?];
    let settings = ParamsAdamW { lr: 0.1, weight_decay: 0.5, ..ParamsAdamW::default() };
    let mut optimizer = AdamW::new(vec![used.clone(), annealed.clone()], settings)?;
    let gradients = (used.sqr()? + weigh(&annealed.sqr()?)?)?.backward()?;
    let gradient = gradients.get(&annealed).map(|gradient| gradient.to_scalar::<f32>()).transpose()?;
    optimizer.step(&gradients)?;
    println!("{name}: gradient {gradient:?}, weight {:.3}", annealed.to_scalar::<f32>()?);
    Ok(())
}

fn main() -> Result<()> {
    step("times 0.0", |term| term * 0.0)?;
    step("times 1e-60", |term| term * 1e-60)?; // 0 in f32
    step("times a tensor of 0.0", |term| term * Tensor::new(0f32, &Device::Cpu)?)
}
RUST
found=$(cargo run --quiet)
wanted='times 0.0: gradient None, weight 1.000
times 1e-60: gradient Some(0.0), weight 0.950
times a tensor of 0.0: gradient Some(0.0), weight 0.950'
echo "$found"
[ "$found" = "$wanted" ] || { echo "this has changed" >&2; exit 1; }
