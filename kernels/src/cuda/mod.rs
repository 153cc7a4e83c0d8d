//! Kernels for NVIDIA GPUs, and what it takes to launch them.
//!
//! Each `<module>.cu` is compiled by `build.rs` to a module of its own, a cubin with PTX behind it; a kernel is found by
//! its module and its name. Each is also plain C++ for the emulator in `emulation/`, by which `cargo test` compares it
//! with the reference without a GPU.
//!
//! All work is on one stream of one thread: candle's device is opened by [`device::open`] with a stream of its own, so
//! that a window can be captured in a graph.
#![expect(
    unsafe_code,
    reason = "kernels are launched, and libraries called, with pointers into a device's memory"
)]
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod device;
pub(crate) mod gemm;
pub(crate) mod graph;
pub(crate) mod launch;
pub(crate) mod modules;
pub(crate) mod padded_product;

pub use modules::PTXAS_REPORT;
