//! A GPU as this program opens it, and what it says of itself.

use crate::error::{Error, Result, brief};
use candle_core::cuda_backend::cudarc::driver::{result, sys};
use candle_core::{CudaDevice, Device};
use std::ffi::c_void;
use std::fmt;

/// What the kernels' PTX is for.
const LEAST_CAPABILITY: i32 = 8;

/// GPU number `ordinal`, with a stream of its own.
///
/// # Errors
/// If there is none, or its driver cannot be used.
pub fn open(ordinal: usize) -> Result<Device> {
    let refused = |error| Error::setting(format!("no CUDA device {ordinal}: {}", brief(&error)));
    let device = Device::new_cuda_with_stream(ordinal).map_err(refused)?;
    let cuda = device.as_cuda_device().map_err(refused)?;
    let found = cuda.cuda_stream().context().compute_capability();
    if let Ok((major, minor)) = found
        && major < LEAST_CAPABILITY
    {
        return Err(Error::setting(format!(
            "CUDA device {ordinal} has compute capability {major}.{minor}, and the kernels need {LEAST_CAPABILITY}.0; \
             use --device cpu"
        )));
    }
    // SAFETY: all work is submitted by one thread to the one stream of this device, in whose order memory is used and
    // freed; there is nothing that events would have to order.
    unsafe { cuda.disable_event_tracking() };
    keep_memory(cuda);
    Ok(device)
}

/// Lets the device's pool keep what is freed: a step takes the same memory as the one before it, and a pool that gives
/// it back whenever someone waits asks the driver for all of it again.
fn keep_memory(device: &CudaDevice) {
    let Some(pool) = pool(device) else { return };
    let mut all = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute's value is a u64, which the call reads. A pool that keeps nothing is slower, no worse.
    let _ = unsafe { sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut all).cast::<c_void>()) };
}

fn pool(device: &CudaDevice) -> Option<sys::CUmemoryPool> {
    let stream = device.cuda_stream();
    let context = stream.context();
    context.bind_to_thread().ok()?;
    let mut pool = std::ptr::null_mut();
    // SAFETY: the device is the context's, and the pool's handle is written if the call succeeds.
    let status = unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device()) };
    (status == sys::CUresult::CUDA_SUCCESS).then_some(pool)
}

/// What a GPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// As its maker calls it.
    pub name: String,
    /// Say (9, 0).
    pub compute_capability: (i32, i32),
    /// Of its memory.
    pub memory_mib: u64,
    /// Multiprocessors.
    pub multiprocessors: i32,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.compute_capability;
        let Self { name, memory_mib, multiprocessors, .. } = self;
        write!(f, "{name} ({major}.{minor}, {multiprocessors} multiprocessors, {memory_mib} MiB)")
    }
}

/// What `device` is; `None` for the CPU.
pub fn describe(device: &Device) -> Option<Description> {
    let stream = device.as_cuda_device().ok()?.cuda_stream();
    let context = stream.context();
    let multiprocessors = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    Some(Description {
        name: context.name().ok()?,
        compute_capability: context.compute_capability().ok()?,
        memory_mib: context.total_mem().ok()? as u64 >> 20,
        multiprocessors: context.attribute(multiprocessors).ok()?,
    })
}

/// The most of the GPU's memory that this process's tensors took at once, in MiB.
pub fn peak_mib(device: &Device) -> Option<u64> {
    let pool = pool(device.as_cuda_device().ok()?)?;
    let mut bytes = 0u64;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    // SAFETY: the attribute's value is a u64, which the call writes.
    let status = unsafe { sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut bytes).cast::<c_void>()) };
    (status == sys::CUresult::CUDA_SUCCESS).then_some(bytes >> 20)
}

/// Whether this machine's driver shows a GPU at all.
pub fn is_there() -> bool {
    result::init().is_ok() && result::device::get_count().is_ok_and(|count| count > 0)
}
