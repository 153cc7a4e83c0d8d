//! Products of matrices by cuBLAS, in the precision that was asked for; sums are of single precision at least.

use crate::cuda::launch::{cover, dtype, elements, launch, size, uninitialized};
use crate::precision::Precision;
use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DevicePtr, DevicePtrMut, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Storage, Tensor};
use std::ffi::{c_int, c_void};

/// A matrix of contiguous rows, taken as it is or transposed.
#[derive(Clone, Copy)]
pub(crate) struct Factor<'a> {
    storage: &'a CudaStorage,
    layout: &'a Layout,
    transposed: bool,
}

impl<'a> Factor<'a> {
    pub(crate) fn new(storage: &'a CudaStorage, layout: &'a Layout, transposed: bool) -> Self {
        Self { storage, layout, transposed }
    }

    fn dims(&self) -> Result<(usize, usize)> {
        let (rows, columns) = self.layout.shape().dims2()?;
        Ok(if self.transposed { (columns, rows) } else { (rows, columns) })
    }

    fn view<T: CudaDType>(&self) -> Result<CudaView<'a, T>> {
        elements(self.storage, self.layout)
    }
}

/// The product `a b` of row-major matrices, `(m, k)` times `(k, n)`, of shape `(m, n)`. With [`Precision::Bf16`] both
/// factors are rounded first. Fails if the sizes do not fit together, or a library fails.
pub(crate) fn product(
    a: Factor<'_>,
    b: Factor<'_>,
    precision: Precision,
) -> Result<(CudaStorage, (usize, usize))> {
    let (m, k) = a.dims()?;
    let (inner, n) = b.dims()?;
    if k != inner {
        candle_core::bail!("a product of ({m}, {k}) and ({inner}, {n})");
    }
    let sizes = [m, n, k];
    let device = &a.storage.device;
    let storage = match dtype(a.storage) {
        DType::F64 => multiply::<f64>(device, a, b, sizes, Types::F64)?,
        _ if precision.rounds() => {
            let left = rounded(device, &a.view()?)?;
            let right = rounded(device, &b.view()?)?;
            let left = (&left.as_view(), a.transposed);
            gemm::<u16, f32>(device, left, (&right.as_view(), b.transposed), sizes, Types::BF16)?
        }
        _ if precision == Precision::Tf32 => multiply::<f32>(device, a, b, sizes, Types::TF32)?,
        _ => multiply::<f32>(device, a, b, sizes, Types::F32)?,
    };
    Ok((storage, (m, n)))
}

/// As [`product`], of contiguous tensors that are taken transposed where a flag says so; without a history.
pub(crate) fn product_of(
    (a, a_transposed): (&Tensor, bool),
    (b, b_transposed): (&Tensor, bool),
    precision: Precision,
) -> Result<Tensor> {
    let (a, a_layout) = a.storage_and_layout();
    let (b, b_layout) = b.storage_and_layout();
    let (Storage::Cuda(a), Storage::Cuda(b)) = (&*a, &*b) else { candle_core::bail!("a product on a GPU") };
    let a = Factor::new(a, a_layout, a_transposed);
    let b = Factor::new(b, b_layout, b_transposed);
    let (storage, shape) = product(a, b, precision)?;
    Ok(Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false))
}

fn multiply<T: CudaDType + DeviceRepr>(
    device: &CudaDevice,
    a: Factor<'_>,
    b: Factor<'_>,
    sizes: [usize; 3],
    types: Types,
) -> Result<CudaStorage> {
    gemm::<T, T>(device, (&a.view()?, a.transposed), (&b.view()?, b.transposed), sizes, types)
}

/// The values' bits in bfloat16.
pub(crate) fn rounded(device: &CudaDevice, values: &CudaView<'_, f32>) -> Result<CudaSlice<u16>> {
    let count = values.len();
    let mut out = uninitialized::<u16>(device, count)?;
    launch!(device, "convert", "to_bf16", cover(count); values, &size(count)?, &mut out)?;
    Ok(out)
}

/// What cuBLAS multiplies, adds up and writes.
#[derive(Clone, Copy)]
struct Types {
    factor: sys::cudaDataType,
    result: sys::cudaDataType,
    compute: sys::cublasComputeType_t,
}

impl Types {
    const F64: Self = Self {
        factor: sys::cudaDataType::CUDA_R_64F,
        result: sys::cudaDataType::CUDA_R_64F,
        compute: sys::cublasComputeType_t::CUBLAS_COMPUTE_64F,
    };
    const F32: Self = Self {
        factor: sys::cudaDataType::CUDA_R_32F,
        result: sys::cudaDataType::CUDA_R_32F,
        compute: sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
    };
    const TF32: Self = Self { compute: sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32, ..Self::F32 };
    const BF16: Self = Self { factor: sys::cudaDataType::CUDA_R_16BF, ..Self::F32 };

    /// 1 and 0 as the sums have them.
    fn scalars(self) -> (*const c_void, *const c_void) {
        static DOUBLE: [f64; 2] = [1.0, 0.0];
        static SINGLE: [f32; 2] = [1.0, 0.0];
        if self.result == sys::cudaDataType::CUDA_R_64F {
            ((&raw const DOUBLE[0]).cast(), (&raw const DOUBLE[1]).cast())
        } else {
            ((&raw const SINGLE[0]).cast(), (&raw const SINGLE[1]).cast())
        }
    }
}

/// What a BLAS, whose matrices are stored by columns, is given so that the same memory holds `cᵀ = bᵀ aᵀ`: `b` comes
/// first.
#[derive(Clone, Copy, Debug)]
struct ByColumns {
    transpose_b: bool,
    transpose_a: bool,
    m: usize,
    n: usize,
    k: usize,
    b_stride: usize,
    a_stride: usize,
    c_stride: usize,
}

impl ByColumns {
    fn new([m, n, k]: [usize; 3], a_transposed: bool, b_transposed: bool) -> Self {
        Self {
            transpose_b: b_transposed,
            transpose_a: a_transposed,
            m: n,
            n: m,
            k,
            b_stride: if b_transposed { k } else { n },
            a_stride: if a_transposed { m } else { k },
            c_stride: n,
        }
    }
}

/// `c = a b` of row-major matrices.
fn gemm<T, C: CudaDType + DeviceRepr>(
    device: &CudaDevice,
    (a, a_transposed): (&CudaView<'_, T>, bool),
    (b, b_transposed): (&CudaView<'_, T>, bool),
    sizes: [usize; 3],
    types: Types,
) -> Result<CudaStorage> {
    let mut out = uninitialized::<C>(device, sizes[0] * sizes[1])?;
    let columns = ByColumns::new(sizes, a_transposed, b_transposed);
    let stream = device.cuda_stream();
    let blas = device.cublas_handle();
    let (one, zero) = types.scalars();
    stream.context().bind_to_thread().w()?;
    let (a, _a) = a.device_ptr(&stream);
    let (b, _b) = b.device_ptr(&stream);
    let (c, written) = out.device_ptr_mut(&stream);
    // SAFETY: the pointers are to (m, k), (k, n) and (m, n) numbers of the types that are named, by `Factor::dims` and
    // the allocation above; the scalars are static; the handle is on the stream that orders all of this memory.
    let status = unsafe {
        result::gemm_ex(
            *blas.handle(),
            operation(columns.transpose_b),
            operation(columns.transpose_a),
            columns.m as c_int,
            columns.n as c_int,
            columns.k as c_int,
            one,
            b as *const c_void,
            types.factor,
            columns.b_stride as c_int,
            a as *const c_void,
            types.factor,
            columns.a_stride as c_int,
            zero,
            c as *mut c_void,
            types.result,
            columns.c_stride as c_int,
            types.compute,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    };
    status.w()?;
    drop(written);
    Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
}

/// Whether a BLAS transposes a factor, as it takes it.
pub(crate) fn operation(transposed: bool) -> sys::cublasOperation_t {
    use sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
    if transposed { CUBLAS_OP_T } else { CUBLAS_OP_N }
}

#[cfg(test)]
mod tests {
    use super::ByColumns;

    /// What a BLAS does with column-major matrices, as its documentation has it.
    fn blas(columns: ByColumns, first: &[f64], second: &[f64], c: &mut [f64]) {
        let at = |matrix: &[f64], stride: usize, transposed: bool, row: usize, column: usize| {
            let (row, column) = if transposed { (column, row) } else { (row, column) };
            matrix[column * stride + row]
        };
        for column in 0..columns.n {
            for row in 0..columns.m {
                let term = |k| {
                    at(first, columns.b_stride, columns.transpose_b, row, k)
                        * at(second, columns.a_stride, columns.transpose_a, k, column)
                };
                c[column * columns.c_stride + row] = (0..columns.k).map(term).sum();
            }
        }
    }

    fn transposed(matrix: &[f64], rows: usize, columns: usize) -> Vec<f64> {
        (0..rows * columns).map(|i| matrix[i % rows * columns + i / rows]).collect()
    }

    #[test]
    fn a_product_of_rows_is_one_of_columns_in_the_other_order() {
        for (m, n, k) in [(1, 1, 1), (2, 3, 4), (5, 1, 3), (3, 7, 2)] {
            let values = |count: usize, step: usize| -> Vec<f64> {
                (0..count).map(|i| ((i * step) % 13) as f64 - 6.0).collect()
            };
            let a = values(m * k, 5);
            let b = values(k * n, 7);
            let entry = |i: usize| (0..k).map(|x| a[i / n * k + x] * b[x * n + i % n]).sum::<f64>();
            let wanted: Vec<f64> = (0..m * n).map(entry).collect();
            for (transpose_a, transpose_b) in [(false, false), (true, false), (false, true), (true, true)] {
                let stored_a = if transpose_a { transposed(&a, m, k) } else { a.clone() };
                let stored_b = if transpose_b { transposed(&b, k, n) } else { b.clone() };
                let mut c = vec![f64::NAN; m * n];
                blas(ByColumns::new([m, n, k], transpose_a, transpose_b), &stored_b, &stored_a, &mut c);
                assert_eq!(c, wanted, "{m} {n} {k} {transpose_a} {transpose_b}");
            }
        }
    }
}
