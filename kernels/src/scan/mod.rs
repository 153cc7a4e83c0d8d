//! Recurrences over a whole window, each one operation with a backward pass of its own.

#[cfg(feature = "cuda")]
mod cuda_grads;
#[cfg(feature = "cuda")]
mod cuda_memory;
mod hidden_mask;
mod lstm_cpu;
mod lstm_cpu_backward;
#[cfg(feature = "cuda")]
mod lstm_cuda;
#[cfg(feature = "cuda")]
mod lstm_cuda_steps;
pub mod lstm_op;
mod lstm_prepared;
pub mod persistent;
pub mod reference;
mod rhn_cpu;
mod rhn_cpu_backward;
#[cfg(feature = "cuda")]
pub mod rhn_cuda;
#[cfg(feature = "cuda")]
mod rhn_cuda_steps;
pub mod rhn_op;
mod rhn_prepared;
pub mod steps;
mod tape;
pub(crate) mod weights;

pub use hidden_mask::HiddenMask;
