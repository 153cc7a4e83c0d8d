//! The CUDA kernels, emulated on the CPU, beside the oracles; and the emulator itself.

#[path = "cuda/embedding.rs"]
mod embedding;
#[path = "cuda/emulation.rs"]
mod emulation;
#[path = "support/emulator.rs"]
mod emulator;
#[path = "cuda/loss.rs"]
mod loss;
#[path = "cuda/masks.rs"]
mod masks;
#[path = "cuda/update.rs"]
mod update;

/// Numbers in ± `scale` that look drawn.
fn scattered(count: usize, scale: f64, seed: u64) -> Vec<f64> {
    let mut rng = rhn::rng::Rng::keyed(seed, "kernels", count as u64);
    (0..count).map(|_| scale * (2.0 * rng.uniform() - 1.0)).collect()
}

/// As many blocks as cover `count` elements with `threads` each, and fewer, so that threads stride.
fn grids(count: usize, threads: usize) -> [emulator::Geometry; 2] {
    let blocks = count.div_ceil(threads).max(1);
    [blocks, blocks.div_ceil(3)].map(|blocks| emulator::Geometry::flat(blocks, threads))
}
