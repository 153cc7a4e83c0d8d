//! The recurrences on a GPU beside the oracle in double precision: every path, outputs and all gradients. Without the
//! feature `cuda`, or without a GPU, nothing is tested, and that is said.

#[cfg(feature = "cuda")]
#[path = "cuda/on_device.rs"]
mod on_device;

#[cfg(not(feature = "cuda"))]
#[test]
fn nothing_is_tested_without_the_feature() {
    eprintln!("skipped: the recurrences on a GPU need --features cuda");
}
