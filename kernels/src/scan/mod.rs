//! Recurrences over a whole window: one scan, in which a cell is a reference and a pointwise part.
//!
//! To add a cell, write `<name>.rs` beside [`Rhn`] and `<name>.cuh` beside `rhn.cuh`, list the first below and in
//! `compiled.rs` and the second in `steps.cu`. The scan gives it the product with its state, all instruction sets, the backward pass,
//! reading at batch 1 and the CUDA graph of a window.

mod blocks;
mod cell;
mod compiled;
mod cpu;
mod cpu_backward;
mod cpu_grads;
mod cpu_walk;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "cuda")]
mod cuda_grads;
#[cfg(feature = "cuda")]
mod cuda_memory;
#[cfg(feature = "cuda")]
mod cuda_steps;
mod gru;
mod hidden_mask;
mod hlstm;
mod in_place;
mod kurata;
mod layer;
mod lstm;
mod op;
mod packed;
pub mod persistent;
mod prepared;
pub mod projected;
pub mod reference;
mod rhn;
mod rhn_uncoupled;
pub mod trace;
mod weight_grad;
mod window;

pub use cell::{MOST_STATES, MOST_UNIT_WEIGHTS, MOST_VALUES, Pointwise, States, UnitWeights, Values};
pub use compiled::{Cell, scan, scan_of_input};
pub use gru::Gru;
pub use hidden_mask::HiddenMask;
pub use hlstm::Hlstm;
pub use kurata::KurataLstm;
pub use lstm::Lstm;
pub use prepared::{Prepared, Steps};
pub use rhn::Rhn;
pub use rhn_uncoupled::UncoupledRhn;
