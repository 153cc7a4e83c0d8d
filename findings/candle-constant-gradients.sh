#!/usr/bin/env bash
# One would expect a backward pass to leave constants alone, as PyTorch does: only what leads to a variable is followed.
# With candle-core 0.11.1 the followed operations are chosen so, but each computes the gradients of all its operands. A
# product with a constant, say a dropout mask, makes the constant's gradient (a product, zeros of the size and a sum) and
# GradStore keeps it until it is dropped; of a constant that is spread by a view, in full size.
# It matters here because masks are as large as activations: three passes over memory a mask a step, for nothing.
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
TOML
cat > src/main.rs <<'RUST'
use candle_core::{Device, Result, Tensor, Var};

fn main() -> Result<()> {
    let weight = Var::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?;
    let mask = Tensor::new(&[[2f32, 0.0], [0.0, 2.0]], &Device::Cpu)?;
    println!("the mask is followed: {}", mask.track_op());
    let grads = (weight.as_tensor() * &mask)?.sum_all()?.backward()?;
    println!("of the weight: {:?}", grads.get(&weight).map(|grad| grad.to_vec2::<f32>()).transpose()?);
    println!("of the mask: {:?}", grads.get(&mask).map(|grad| grad.to_vec2::<f32>()).transpose()?);
    let row = Tensor::new(&[1f32, 0.0], &Device::Cpu)?;
    let spread = row.broadcast_as((2, 2))?;
    let grads = (weight.as_tensor() * &spread)?.sum_all()?.backward()?;
    let kept = grads.get(&spread).map(|grad| (grad.dims().to_vec(), grad.is_contiguous()));
    println!("of a row that is spread: {kept:?}");
    Ok(())
}
RUST
found=$(cargo run --quiet)
echo "$found"
wanted='the mask is followed: false
of the weight: Some([[2.0, 0.0], [0.0, 2.0]])
of the mask: Some([[1.0, 2.0], [3.0, 4.0]])
of a row that is spread: Some(([2, 2], true))'
[ "$found" = "$wanted" ] || { echo "this has changed" >&2; exit 1; }
