//! Kernels for the CPU: register tiles for each instruction set, and the products, threads and buffers around them.

pub(crate) mod chunk;
pub(crate) mod gemm;
pub(crate) mod instruction_set;
pub(crate) mod operation;
pub(crate) mod packed;
pub(crate) mod panels;
pub(crate) mod pool;
mod portable;
pub(crate) mod real;
pub(crate) mod shared;
pub(crate) mod thin;
pub(crate) mod tile;
pub(crate) mod workspace;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use gemm::multiply;
pub use instruction_set::InstructionSet;
pub use pool::with_threads;
pub use workspace::clear as clear_workspace;
