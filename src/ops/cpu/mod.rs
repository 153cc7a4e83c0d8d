//! Kernels for the CPU: tiles in registers for each instruction set, and what is built of them.
#![expect(unsafe_code, reason = "vector instructions, and threads that write disjoint parts of one buffer")]
#![deny(clippy::undocumented_unsafe_blocks)]

pub(super) mod char_cnn;
pub(super) mod char_cnn_back;
pub(super) mod dense;
pub(super) mod dispatch;
pub(super) mod gates;
pub(super) mod gemm;
pub(super) mod highway;
pub(super) mod highway_back;
pub(super) mod kernel;
pub(super) mod lstm;
pub(super) mod lstm_back;
pub(super) mod panels;
mod portable;
mod recurrent;
mod shared;
pub(super) mod softmax;
mod team;
pub(super) mod workspace;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use dispatch::InstructionSet;
pub use gemm::multiply;
pub use team::with_threads;
pub use workspace::clear as clear_workspace;
