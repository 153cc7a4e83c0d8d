//! From tensors to a kernel's arguments, and from a kernel's results to tensors.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DevicePtr, DeviceRepr, LaunchConfig};
use candle_core::cuda_backend::{CudaDType, CudaStorageSlice};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Shape, Storage, Tensor};

/// Launches kernel `$name` of `$module.cu` on the device's stream. Arguments are references: to numbers of the
/// kernel's own types, to slices and views of device memory; `$sizes`, an array of numbers, comes before them. The
/// caller answers for their types, their order, and that the kernel stays inside of them. A kernel may write to memory
/// that it is given by a shared reference: there is no Rust reference into a GPU's memory, and the one stream orders
/// who reads and writes it.
macro_rules! launch {
    ($device:expr, $module:literal, $name:expr, $config:expr; $($argument:expr),*) => {
        $crate::cuda::launch::launch!($device, $module, $name, $config; [0u32; 0]; $($argument),*)
    };
    ($device:expr, $module:literal, $name:expr, $config:expr; $sizes:expr; $($argument:expr),*) => {{
        use candle_core::cuda_backend::cudarc::driver::PushKernelArg as _;
        let function = $crate::cuda::modules::function($device, $module, $name)?;
        let stream = $device.cuda_stream();
        let mut builder = stream.launch_builder(&function);
        let sizes = $sizes;
        for size in &sizes {
            builder.arg(size);
        }
        // SAFETY: the arguments are those of the kernel, by the contract above, and outlive the call; memory that is
        // freed after it is freed on the same stream, behind the kernel.
        let launched = unsafe { builder$(.arg($argument))*.launch($config) };
        candle_core::cuda_backend::WrapErr::w(launched).map(drop)
    }};
}
pub(crate) use launch;

/// Declares `Kernels`, a trait of f32 and f64 that has the names of their kernels: each name and the element type.
macro_rules! kernels {
    ($($constant:ident = $name:literal),*) => {
        trait Kernels:
            candle_core::cuda_backend::CudaDType
            + candle_core::cuda_backend::cudarc::driver::DeviceRepr
            + candle_core::cuda_backend::cudarc::driver::ValidAsZeroBits
        {
            $(const $constant: &'static str;)*
        }
        impl Kernels for f32 {
            $(const $constant: &'static str = concat!($name, "_f32");)*
        }
        impl Kernels for f64 {
            $(const $constant: &'static str = concat!($name, "_f64");)*
        }
    };
}
pub(crate) use kernels;

/// An address in a device's memory, as kernels and libraries take it; 0 is none.
pub(crate) type Address = u64;

/// Where a slice lies. All work is on the slice's own stream, in whose order it is freed too.
pub(crate) fn address<T>(memory: &impl DevicePtr<T>) -> Address {
    memory.device_ptr(memory.stream()).0
}

/// Threads of a block where nothing asks for another number.
pub(crate) const THREADS: usize = 256;
/// Blocks beyond which a thread takes several elements.
const MOST_BLOCKS: usize = 1 << 15;

/// A grid of one dimension whose threads cover `count` elements, or stride over them.
pub(crate) fn cover(count: usize) -> LaunchConfig {
    blocks(count.div_ceil(THREADS).clamp(1, MOST_BLOCKS), THREADS)
}

/// `blocks` of `threads`.
pub(crate) fn blocks(blocks: usize, threads: usize) -> LaunchConfig {
    grid([blocks, 1], threads)
}

/// Blocks in two dimensions, of `threads` in one.
pub(crate) fn grid([x, y]: [usize; 2], threads: usize) -> LaunchConfig {
    let grid_dim = (x as u32, y as u32, 1);
    LaunchConfig { grid_dim, block_dim: (threads as u32, 1, 1), shared_mem_bytes: 0 }
}

/// A size as a kernel takes it. Fails if it does not fit into 32 bits.
pub(crate) fn size(count: usize) -> Result<u32> {
    u32::try_from(count)
        .map_err(|_| candle_core::Error::Msg(format!("{count} elements are too many for a kernel")))
}

/// The elements of a contiguous tensor's storage.
pub(crate) fn elements<'a, T: CudaDType>(
    storage: &'a CudaStorage,
    layout: &Layout,
) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_cuda_slice::<T>()?.slice(start..end)),
        None => candle_core::bail!("a kernel wants contiguous tensors"),
    }
}

/// Calls `work` with the elements of contiguous tensors on a GPU.
pub(crate) fn with_parts<T: CudaDType, R>(
    tensors: &[Tensor],
    work: impl FnOnce(&[CudaView<'_, T>]) -> Result<R>,
) -> Result<R> {
    let storages: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let views = storages.iter().map(|(storage, layout)| match &**storage {
        Storage::Cuda(storage) => elements(storage, layout),
        _ => candle_core::bail!("this kernel is for a GPU"),
    });
    work(&views.collect::<Result<Vec<_>>>()?)
}

/// [`with_parts`] of a known number of tensors.
pub(crate) fn with_elements<T: CudaDType, R, const N: usize>(
    tensors: [&Tensor; N],
    work: impl FnOnce([&CudaView<'_, T>; N]) -> Result<R>,
) -> Result<R> {
    with_parts(&tensors.map(Tensor::clone), |views| work(std::array::from_fn(|index| &views[index])))
}

/// [`with_elements`] of a tensor that may not be there.
pub(crate) fn with_optional<T: CudaDType, R>(
    tensor: Option<&Tensor>,
    work: impl FnOnce(Option<&CudaView<'_, T>>) -> Result<R>,
) -> Result<R> {
    match tensor {
        Some(tensor) => with_elements([tensor], |[view]| work(Some(view))),
        None => work(None),
    }
}

/// A tensor of its own, without a history.
pub(crate) fn tensor<T: CudaDType>(
    slice: CudaSlice<T>,
    shape: impl Into<Shape>,
    device: &CudaDevice,
) -> Tensor {
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(slice, device.clone()));
    Tensor::from_storage(storage, shape, BackpropOp::none(), false)
}

/// Memory for `count` numbers, of which a kernel is about to write every one.
pub(crate) fn uninitialized<T: DeviceRepr>(device: &CudaDevice, count: usize) -> Result<CudaSlice<T>> {
    // SAFETY: the caller's kernel writes every element before anything reads one.
    unsafe { device.alloc(count) }
}

/// The type of a storage's numbers.
pub(crate) fn dtype(storage: &CudaStorage) -> DType {
    match &storage.slice {
        CudaStorageSlice::F64(_) => DType::F64,
        CudaStorageSlice::BF16(_) => DType::BF16,
        CudaStorageSlice::U32(_) => DType::U32,
        _ => DType::F32,
    }
}
