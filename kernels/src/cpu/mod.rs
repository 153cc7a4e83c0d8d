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

/// An expression computed with the widest vectors that `arch`, a [`pulp::Arch`], has. A closure may be compiled by itself, for
/// any processor, and then be called; so may what calls one once that can be called often. This one is always inlined, and
/// can be called once, as it gives up what it has.
macro_rules! in_vectors {
    ($arch:expr, $body:expr) => {{
        struct Once;
        let once = Once;
        $arch.dispatch(
            #[inline(always)]
            || {
                let _given_up = once;
                $body
            },
        )
    }};
}
pub(crate) use in_vectors;

pub use gemm::multiply;
pub use instruction_set::InstructionSet;
pub use pool::with_threads;
pub use workspace::clear as clear_workspace;
