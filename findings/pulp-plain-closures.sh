#!/usr/bin/env bash
# One would expect a closure that is handed to pulp's Arch::dispatch, and marked #[inline(always)] as pulp asks for, to be
# compiled for the processor's widest vectors. With pulp 0.22.3 (rustc 1.95) that holds for a closure that can only be called
# once. One that merely borrows can be called often; the compiler wraps it for a single call, the wrapper has no such mark, and
# where the body is long enough it stays a function by itself, compiled for any x86-64: no vsqrtps on zmm, half the speed.
# Nothing says so: the result is the same. Giving up a value that is not Copy inside the closure is enough.
# It matters here because optimizers, norms and checks of weights are passes of this kind over millions of numbers.
set -euo pipefail
[ "$(uname -m)" = x86_64 ] || { echo "only on x86-64"; exit 0; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[features]
once = []

[dependencies]
pulp = { version = "=0.22.3", default-features = false, features = ["std", "x86-v4"] }
TOML
cat > src/main.rs <<'RUST'
use pulp::Arch;

const LANES: usize = 16;

#[cfg(not(feature = "once"))]
#[inline(never)]
fn sum(xs: &[f32], scale: f32, shift: f32) -> f32 {
    Arch::new().dispatch(
        #[inline(always)]
        || work(xs, scale, shift),
    )
}

#[cfg(feature = "once")]
#[inline(never)]
fn sum(xs: &[f32], scale: f32, shift: f32) -> f32 {
    struct Once;
    let once = Once;
    Arch::new().dispatch(
        #[inline(always)]
        || {
            let _given_up = once;
            work(xs, scale, shift)
        },
    )
}

#[inline(always)]
fn work(xs: &[f32], scale: f32, shift: f32) -> f32 {
    let mut sums = [0f32; LANES];
    for x in xs.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let y = x[lane] * scale + shift;
            sums[lane] += y / ((y * y + 1.0).sqrt() + 1e-6);
        }
    }
    sums.iter().sum()
}

fn main() {
    let xs: Vec<f32> = (0..1 << 14).map(|i| i as f32 / 1000.0).collect();
    println!("{}", sum(std::hint::black_box(&xs), 1.5, 0.5));
}
RUST
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$folder/target}
# How many square roots of sixteen lanes the program's code has.
roots() {
    rm -f "$CARGO_TARGET_DIR"/release/deps/finding-*
    cargo rustc --quiet --release "$@" -- --emit asm -C codegen-units=1
    cat "$CARGO_TARGET_DIR"/release/deps/finding-*.s | grep -c 'vsqrtps.*%zmm' || true
}
borrows=$(roots)
once=$(roots --features once)
echo "square roots of 16 lanes: $borrows in a closure that borrows, $once in one that can be called once"
[ "$borrows" = 0 ] && [ "$once" -gt 0 ] || { echo "this has changed" >&2; exit 1; }
