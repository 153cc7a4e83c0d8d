//! The CUDA kernels of the recurrences, emulated on the CPU, beside the oracle: outputs and all gradients.

#[path = "cuda/case.rs"]
mod case;
#[path = "support/emulator.rs"]
mod emulator;
#[path = "cuda/lstm_steps.rs"]
mod lstm_steps;
#[path = "cuda/rhn_persistent.rs"]
mod rhn_persistent;
#[path = "cuda/rhn_steps.rs"]
mod rhn_steps;
#[path = "cuda/rhn_window.rs"]
mod rhn_window;
