//! Products of matrices whose rows are padded, by cuBLAS, between addresses in a device's memory.

use crate::cuda::gemm::operation;
use crate::cuda::launch::Address;
use crate::precision::Precision;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::{CudaDevice, Result};
use std::ffi::{c_int, c_longlong, c_void};

/// Row-major matrices that follow one another.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) at: Address,
    /// From a row to the next, in elements.
    pub(crate) pitch: usize,
    /// From a matrix to the next, in elements.
    pub(crate) step: usize,
    pub(crate) transposed: bool,
}

impl Matrix {
    /// One matrix, not transposed.
    pub(crate) fn new(at: Address, pitch: usize) -> Self {
        Self { at, pitch, step: 0, transposed: false }
    }

    pub(crate) fn t(self) -> Self {
        Self { transposed: true, ..self }
    }

    pub(crate) fn stepping(self, step: usize) -> Self {
        Self { step, ..self }
    }
}

/// `(m, k)` times `(k, n)`, `count` times.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) count: usize,
}

/// `c = a b`: factors in bf16 or f32 as the precision has it, sums and results in f32. Fails if the library refuses.
///
/// # Safety
/// The matrices lie within memory of the device's stream, and nothing else writes or reads `c` meanwhile.
pub(crate) unsafe fn product(
    device: &CudaDevice,
    precision: Precision,
    Extent { m, n, k, count }: Extent,
    a: Matrix,
    b: Matrix,
    c: Matrix,
) -> Result<()> {
    use sys::cublasComputeType_t::{CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32};
    use sys::cudaDataType::{CUDA_R_16BF, CUDA_R_32F};
    let factors = if precision.rounds() { CUDA_R_16BF } else { CUDA_R_32F };
    let compute =
        if precision == Precision::Tf32 { CUBLAS_COMPUTE_32F_FAST_TF32 } else { CUBLAS_COMPUTE_32F };
    let one = &raw const ONE;
    let zero = &raw const ZERO;
    let blas = device.cublas_handle();
    device.cuda_stream().context().bind_to_thread().w()?;
    // To cuBLAS, which has columns, the same memory is cᵀ = bᵀ aᵀ.
    // SAFETY: the matrices are as the caller promises; the scalars are static; the handle is on the device's stream.
    let status = unsafe {
        result::gemm_strided_batched_ex(
            *blas.handle(),
            operation(b.transposed),
            operation(a.transposed),
            n as c_int,
            m as c_int,
            k as c_int,
            one.cast(),
            b.at as *const c_void,
            factors,
            b.pitch as c_int,
            b.step as c_longlong,
            a.at as *const c_void,
            factors,
            a.pitch as c_int,
            a.step as c_longlong,
            zero.cast(),
            c.at as *mut c_void,
            CUDA_R_32F,
            c.pitch as c_int,
            c.step as c_longlong,
            count as c_int,
            compute,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    };
    status.w()
}

static ONE: f32 = 1.0;
static ZERO: f32 = 0.0;
