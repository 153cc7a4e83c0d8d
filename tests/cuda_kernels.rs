//! The CUDA kernels, emulated on the CPU, beside the oracles; and the emulator itself.

#[path = "cuda/emulation.rs"]
mod emulation;
#[path = "support/emulator.rs"]
mod emulator;
