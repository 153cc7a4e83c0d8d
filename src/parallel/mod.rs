//! Several processes, the ranks, that share one command's work: their rows of each batch, and what they add up.
//!
//! A run of N ranks is the run of one process to rounding: the recipe's batch rows are split over the ranks, everything random
//! is drawn for the whole batch, and gradients are summed before anything is decided by them, so that all ranks make the
//! same updates. Rank 0 writes.

#[cfg(test)]
pub(crate) mod group;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
pub mod nccl;
pub mod reduce;
pub mod rows;
mod start;
#[cfg(test)]
mod tests;
pub mod world;

pub use start::{is_quiet, local_rank, local_threads, open, refuse_ranks};

#[cfg(feature = "nccl")]
use crate::error::Error;
use crate::error::Result;
use candle_core::Device;
use std::sync::Arc;
use world::World;

/// `world` as it trains on `device`: in a build with NCCL, several ranks on GPUs add up there.
///
/// # Errors
/// If the GPUs do not find each other, or only some ranks have one.
pub fn on_device(world: Arc<dyn World>, device: &Device) -> Result<Arc<dyn World>> {
    #[cfg(feature = "nccl")]
    if world.size() > 1 {
        let on_gpu = world.gather(vec![device.is_cuda().into()])?;
        if on_gpu.iter().any(|other| *other != on_gpu[0]) {
            return Err(Error::config(
                "some ranks compute on a GPU and others on the CPU: start as many on a machine as it has GPUs, or use --device cpu",
            ));
        }
        if let Device::Cuda(device) = device {
            return Ok(Arc::new(nccl::Nccl::join(world, device)?));
        }
    }
    let _ = device; // elsewhere sums go through the host's memory
    Ok(world)
}
