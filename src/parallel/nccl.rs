//! Ranks whose GPUs add gradients up among themselves, by NCCL; everything else goes through the ranks' own connection.
//!
//! A sum has a stream of its own, so that the backward pass goes on meanwhile: it waits for what has been enqueued before it,
//! and what is enqueued once it is asked for waits for it.

use super::world::{Numbers, Sum, TensorSum, World, agree};
use crate::error::{Error, Result};
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream};
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::{Comm, Id, ReduceOp};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, DType, Device, InplaceOp1, Layout, Result as CandleResult, Tensor,
};
use std::sync::{Arc, Mutex};

/// One of several ranks, with a GPU of its own.
pub struct Nccl {
    ranks: Arc<dyn World>,
    device: CudaDevice,
    /// Where sums are enqueued.
    stream: Arc<CudaStream>,
    connection: Connection,
}

/// One thread at a time uses it.
struct Connection(Mutex<Comm>);

#[expect(unsafe_code, reason = "NCCL's connection is a pointer")]
// SAFETY: NCCL lets any thread use a connection, one at a time, which the lock sees to.
unsafe impl Send for Connection {}
#[expect(unsafe_code, reason = "NCCL's connection is a pointer")]
// SAFETY: as above.
unsafe impl Sync for Connection {}

fn failed(error: NcclError) -> Error {
    Error::other_rank(format!(
        "NCCL: {error:?}. Each rank needs a GPU of its own; NCCL_DEBUG=INFO in the environment says more"
    ))
}

impl Nccl {
    /// Connects the GPUs of `ranks`, each of which gives its own.
    ///
    /// # Errors
    /// If NCCL does not start on one of them.
    pub fn join(ranks: Arc<dyn World>, device: &CudaDevice) -> Result<Self> {
        // Rank 0 makes up a name, by which the others find it.
        let own = if ranks.rank() == 0 { Id::new().map(Some).map_err(failed) } else { Ok(None) };
        let own = agree(&*ranks, own)?;
        let bytes = own.map_or_else(Vec::new, |id| id.internal().map(|byte| byte.cast_unsigned()).to_vec());
        let all = ranks.gather(bytes)?;
        let first: [u8; 128] = all[0][..].try_into().map_err(|_| Error::other_rank("rank 0 gave no name"))?;
        let id = Id::uninit(first.map(u8::cast_signed));
        let compute = device.cuda_stream();
        // The connection waits for all ranks: none begins it before every one can.
        let stream = agree(&*ranks, compute.context().new_stream().w().map_err(Error::from))?;
        let comm = Comm::from_rank(stream.clone(), ranks.rank(), ranks.size(), id).map_err(failed);
        let comm = agree(&*ranks, comm)?;
        Ok(Self { ranks, device: device.clone(), stream, connection: Connection(Mutex::new(comm)) })
    }
}

impl World for Nccl {
    fn size(&self) -> usize {
        self.ranks.size()
    }

    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn begin_sum(&self, numbers: Numbers) -> Result<Sum> {
        self.ranks.begin_sum(numbers)
    }

    fn adds_up_on(&self, device: &Device) -> bool {
        matches!(device, Device::Cuda(device) if device.id() == self.device.id())
    }

    fn begin_tensor_sum(&self, numbers: Tensor) -> Result<TensorSum> {
        let compute = self.device.cuda_stream();
        self.stream.join(&compute).w()?;
        numbers.inplace_op1(&AllReduce(&self.connection))?;
        let done = self.stream.record_event(None).w()?;
        let pending = Pending { numbers, compute, done };
        Ok(Box::new(move || {
            pending.wait()?;
            Ok(pending.numbers.clone())
        }))
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.ranks.gather(bytes)
    }

    fn any(&self, flags: u8) -> Result<u8> {
        self.ranks.any(flags)
    }

    fn close(&self) -> Result<()> {
        self.ranks.close()
    }
}

/// A sum that was enqueued.
struct Pending {
    numbers: Tensor,
    compute: Arc<CudaStream>,
    done: CudaEvent,
}

impl Pending {
    /// What is enqueued from now on waits for the sum.
    fn wait(&self) -> CandleResult<()> {
        self.compute.wait(&self.done).w()
    }
}

impl Drop for Pending {
    /// The memory is given back in the order of the other stream, which must not come before the sum.
    fn drop(&mut self) {
        if let Err(error) = self.wait() {
            crate::console::report(&format!("a sum of gradients could not be waited for: {error}"));
        }
    }
}

/// Adds a tensor's numbers up over the ranks, in place.
struct AllReduce<'a>(&'a Connection);

impl InplaceOp1 for AllReduce<'_> {
    fn name(&self) -> &'static str {
        "all-reduce"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> CandleResult<()> {
        candle_core::bail!("NCCL adds up on GPUs alone")
    }

    fn cuda_fwd(&self, numbers: &mut CudaStorage, layout: &Layout) -> CandleResult<()> {
        let whole = Some((0, layout.shape().elem_count()));
        if layout.contiguous_offsets() != whole {
            candle_core::bail!("a sum over the ranks wants a whole contiguous tensor");
        }
        let comm = self.0.0.lock().expect("nobody panicked");
        let done = match numbers.dtype() {
            DType::F64 => comm.all_reduce_in_place(numbers.as_cuda_slice_mut::<f64>()?, &ReduceOp::Sum),
            _ => comm.all_reduce_in_place(numbers.as_cuda_slice_mut::<f32>()?, &ReduceOp::Sum),
        };
        done.map(drop).map_err(|error| candle_core::Error::wrap(failed(error)))
    }
}
