//! The RHN's recurrence on a GPU as one cooperative launch a window.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub mod launch_plan;
