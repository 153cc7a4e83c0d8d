//! A GPU: how it is opened, what it is, and the memory that was used.

use crate::error::{Error, Result, brief};
use candle_core::cuda_backend::cudarc::driver::{result, sys};
use candle_core::{CudaDevice, Device};
use std::ffi::c_void;

/// The major compute capability that the kernels' PTX is for.
const LEAST_CAPABILITY: i32 = 8;

/// GPU number `ordinal`, with a stream of its own. Fails if there is none, or its driver cannot be used.
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
/// it back at every synchronization asks the driver for all of it again.
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

/// The GPU's name, compute capability, multiprocessors and memory; `None` for the CPU.
pub fn describe(device: &Device) -> Option<String> {
    let stream = device.as_cuda_device().ok()?.cuda_stream();
    let context = stream.context();
    let name = context.name().ok()?;
    let (major, minor) = context.compute_capability().ok()?;
    let multiprocessors = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    let multiprocessors = context.attribute(multiprocessors).ok()?;
    let memory_mib = context.total_mem().ok()? >> 20;
    Some(format!("{name} ({major}.{minor}, {multiprocessors} multiprocessors, {memory_mib} MiB)"))
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

/// Whether the driver finds a GPU.
pub fn is_there() -> bool {
    result::init().is_ok() && result::device::get_count().is_ok_and(|count| count > 0)
}
