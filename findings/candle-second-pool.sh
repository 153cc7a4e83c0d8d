#!/usr/bin/env bash
# One would expect candle's CPU operations to run on the caller's thread or on rayon's pool, whose size one sets.
# With candle-core 0.11.1 an element-wise operation on 65,536 elements or more (also the sum of two gradients in
# `backward`) starts a pool of its own, one thread fewer than RAYON_NUM_THREADS or CANDLE_NUM_THREADS says, whose threads
# spin while they wait. One element fewer, and nothing is started.
# It matters here because a program with kernels and threads of its own then has more threads that spin than cores: a
# training step of a net of fifty layers took twice as long until CANDLE_NUM_THREADS was 1.
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
use candle_core::{DType, Device, Result, Tensor};

fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    names.map(|name| name.trim().to_string()).filter(|name| name.starts_with("candle")).collect()
}

fn add(count: usize) -> Result<usize> {
    let ones = Tensor::ones(count, DType::F32, &Device::Cpu)?;
    (&ones + &ones)?;
    Ok(threads().len())
}

fn main() -> Result<()> {
    println!("{} {}", add(65_535)?, add(65_536)?);
    Ok(())
}
RUST
[ -d /proc/self/task ] || { echo "needs Linux's /proc" >&2; exit 1; }
four=$(RAYON_NUM_THREADS=4 cargo run --quiet)
one=$(RAYON_NUM_THREADS=4 CANDLE_NUM_THREADS=1 cargo run --quiet)
echo "candle's own threads after adding 65,535 and 65,536 numbers: $four; with CANDLE_NUM_THREADS=1: $one"
[ "$four" = "0 3" ] && [ "$one" = "0 0" ] || { echo "this has changed" >&2; exit 1; }
