//! Several processes, the ranks, that share one command's work: their rows of each batch, and what they add up.
//!
//! A run of N ranks is the run of one process to rounding: the recipe's batch rows are split over the ranks, everything random
//! is drawn for the whole batch, and gradients are summed before anything is decided by them, so that all ranks make the
//! same updates. Rank 0 writes.

#[cfg(test)]
pub(crate) mod group;
#[cfg(feature = "mpi")]
mod mpi;
pub mod reduce;
pub mod rows;
mod start;
#[cfg(test)]
mod tests;
pub mod world;

pub use start::{is_quiet, local_threads, open, refuse_ranks};
