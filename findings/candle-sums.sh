#!/usr/bin/env bash
# One would expect a softmax of 16-bit logits to sum in single precision, as libraries for training do, and the mean of
# ones to be one. candle-core and candle-nn 0.11.1 on the CPU sum a row in one accumulator of the tensor's own type: over
# 10,000 equal logits the log-softmax of each is −5.53 in bf16 and −7.62 in f16 where it is −9.21, since the sum of
# exponentials stays at 256 or 2,048; and the mean over 2^25 rows of single-precision ones is 0.5: the sum stays at 2^24.
# No error, nothing that is not finite. A language model's perplexity over a vocabulary of 10,000 words would be 252 at
# worst, whatever it had learned; here logits and losses are single precision and sums over a text are doubles.
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
use candle_core::{D, DType, Device, Result, Tensor};

fn main() -> Result<()> {
    let device = Device::Cpu;
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let logits = Tensor::zeros((1, 10_000), dtype, &device)?;
        let log_softmax = candle_nn::ops::log_softmax(&logits, D::Minus1)?.to_dtype(DType::F32)?;
        let softmax = candle_nn::ops::softmax_last_dim(&logits)?.to_dtype(DType::F32)?;
        let loss = candle_nn::loss::cross_entropy(&logits, &Tensor::zeros(1, DType::U32, &device)?)?;
        println!(
            "{}: log-softmax {:.2}, softmax 1/{:.0}, loss {:.2}",
            dtype.as_str(),
            log_softmax.min_all()?.to_scalar::<f32>()?,
            1.0 / softmax.min_all()?.to_scalar::<f32>()?,
            loss.to_dtype(DType::F32)?.to_scalar::<f32>()?,
        );
    }
    let ones = Tensor::ones((1 << 25, 1), DType::F32, &device)?;
    println!("mean over the rows: {}", ones.mean(0)?.get(0)?.to_scalar::<f32>()?);
    Ok(())
}
RUST
wanted='f32: log-softmax -9.21, softmax 1/10000, loss 9.21
f16: log-softmax -7.62, softmax 1/2048, loss 7.62
bf16: log-softmax -5.53, softmax 1/256, loss 5.53
mean over the rows: 0.5'
found=$(cargo run --quiet)
echo "$found"
[ "$found" = "$wanted" ] || { echo "this has changed" >&2; exit 1; }
