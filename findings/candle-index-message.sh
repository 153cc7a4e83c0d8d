#!/usr/bin/env bash
# One would expect an error about a wrong index to name the index's type, and an empty table `vec![0; n]` to become one
# that can index. With candle-core 0.11.1 a plain integer literal makes an i32 tensor (Rust's default integer is among
# its types), which no index operation takes; `index_select` and `gather` then say that the *values'* type, say F64, is
# unsupported, and nothing of the index. The values' type is fine: with u32 indices the same call works.
# It matters here because tables of words, places and lists are indices everywhere: each is made of u32 by name.
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
use candle_core::{Device, Result, Tensor};

fn main() -> Result<()> {
    let device = Device::Cpu;
    let values = Tensor::new(&[[1f64, 2.0], [3.0, 4.0]], &device)?;
    let plain = Tensor::from_vec(vec![1, 0], 2, &device)?;
    println!("a plain literal is {:?}", plain.dtype());
    let first = |error: candle_core::Error| error.to_string().lines().next().unwrap_or_default().to_string();
    println!("index_select: {}", values.index_select(&plain, 0).map_err(first).unwrap_err());
    println!("gather: {}", values.gather(&plain.reshape((2, 1))?, 1).map_err(first).unwrap_err());
    let named = Tensor::from_vec(vec![1u32, 0], 2, &device)?;
    println!("u32: {:?}", values.index_select(&named, 0)?.to_vec2::<f64>()?);
    Ok(())
}
RUST
found=$(cargo run --quiet)
echo "$found"
wanted='a plain literal is I32
index_select: unsupported dtype F64 for op index-select
gather: unsupported dtype F64 for op gather
u32: [[3.0, 4.0], [1.0, 2.0]]'
[ "$found" = "$wanted" ] || { echo "this has changed" >&2; exit 1; }
