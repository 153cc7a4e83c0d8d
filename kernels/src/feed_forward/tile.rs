//! The products of the stack, with eight rows in a vector.
//!
//! A layer is narrow and its rows are few, so rows lie in the lanes: a value of the weights is multiplied with eight
//! rows' values of a unit at once, neither is packed, and what a tile leaves is already what the next layer reads.

use crate::cpu::chunk::{CHUNK, Chunk};
use crate::cpu::real::Real;
#[cfg(target_arch = "x86_64")]
use std::any::TypeId;

/// Vectors beside one another in the next tile, of `left` that are left, and its units at most: twelve sums, as many as
/// there are registers for. An odd number of vectors ends with three, since one alone leaves half of the sums unused.
pub(super) fn shape(left: usize) -> (usize, usize) {
    match left {
        1 => (1, 6),
        3 => (3, 4),
        _ => (2, 6),
    }
}

/// Sums of a tile: `V` vectors of each of `U` units.
pub(super) type Sums<T, const V: usize, const U: usize> = [[Chunk<T>; V]; U];

/// Where a product's scalars lie: from the first on, `step` apart along the sum and `unit` from one result to the next.
#[derive(Clone, Copy)]
pub(super) struct Scalars<'a, T> {
    pub(super) data: &'a [T],
    pub(super) step: usize,
    pub(super) unit: usize,
}

/// Adds to `sums[u][v]` the products of scalar `(k, u)` with the chunk of `vectors[v]` at `k · stride`, for each `k` below
/// `inner`.
#[inline(always)]
pub(super) fn multiply<T: Real, const FUSED: bool, const V: usize, const U: usize>(
    sums: &mut Sums<T, V, U>,
    scalars: Scalars<'_, T>,
    vectors: [&[T]; V],
    stride: usize,
    inner: usize,
) {
    if inner == 0 {
        return;
    }
    assert!(scalars.data.len() > (inner - 1) * scalars.step + (U - 1) * scalars.unit, "scalars of a tile");
    assert!(vectors.iter().all(|vector| vector.len() >= (inner - 1) * stride + CHUNK), "vectors of a tile");
    #[cfg(target_arch = "x86_64")]
    if FUSED
        && TypeId::of::<T>() == TypeId::of::<f32>()
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
    {
        // SAFETY: the processor has AVX2 and FMA, T is f32, and the lengths were just checked.
        unsafe {
            let vectors = vectors.map(|vector| vector.as_ptr().cast::<f32>());
            let scalars = (scalars.data.as_ptr().cast::<f32>(), scalars.step, scalars.unit);
            multiply_avx2::<V, U>(&mut *std::ptr::from_mut(sums).cast(), scalars, vectors, stride, inner);
        }
        return;
    }
    for k in 0..inner {
        let mut chunks = [[T::zero(); CHUNK]; V];
        for (chunk, vector) in chunks.iter_mut().zip(vectors) {
            // SAFETY: the vector is as long as was just checked.
            *chunk = unsafe { vector.as_ptr().add(k * stride).cast::<Chunk<T>>().read_unaligned() };
        }
        for (u, sums) in sums.iter_mut().enumerate() {
            // SAFETY: there are as many scalars as was just checked.
            let scalar = unsafe { *scalars.data.get_unchecked(k * scalars.step + u * scalars.unit) };
            for (sums, chunk) in sums.iter_mut().zip(&chunks) {
                for (sum, &value) in sums.iter_mut().zip(chunk) {
                    *sum = if FUSED { scalar.mul_add(value, *sum) } else { scalar * value + *sum };
                }
            }
        }
    }
}

/// [`multiply`] by AVX2, in f32: its plain loops are left to the compiler, which splits some tiles into scalars.
///
/// # Safety
/// The processor has AVX2 and FMA; scalars and vectors are as long as [`multiply`] checks.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline]
#[allow(clippy::needless_range_loop)] // three arrays by one index
unsafe fn multiply_avx2<const V: usize, const U: usize>(
    sums: &mut Sums<f32, V, U>,
    (mut scalar, step, unit): (*const f32, usize, usize),
    mut vectors: [*const f32; V],
    stride: usize,
    inner: usize,
) {
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    };
    let mut registers = [[_mm256_setzero_ps(); V]; U];
    for u in 0..U {
        for v in 0..V {
            // SAFETY: a chunk is eight values.
            registers[u][v] = unsafe { _mm256_loadu_ps(sums[u][v].as_ptr()) };
        }
    }
    for _ in 0..inner {
        let mut chunks = [_mm256_setzero_ps(); V];
        for v in 0..V {
            // SAFETY: the caller's vectors reach so far.
            chunks[v] = unsafe { _mm256_loadu_ps(vectors[v]) };
            vectors[v] = vectors[v].wrapping_add(stride);
        }
        for u in 0..U {
            // SAFETY: the caller's scalars reach so far.
            let value = _mm256_set1_ps(unsafe { *scalar.add(u * unit) });
            for v in 0..V {
                registers[u][v] = _mm256_fmadd_ps(value, chunks[v], registers[u][v]);
            }
        }
        scalar = scalar.wrapping_add(step);
    }
    for u in 0..U {
        for v in 0..V {
            // SAFETY: a chunk is eight values.
            unsafe { _mm256_storeu_ps(sums[u][v].as_mut_ptr(), registers[u][v]) };
        }
    }
}

/// Calls `$call::<…, V, U>` for a tile of `$vectors` vectors and as many units `U` as are left, of those that [`shape`] gives.
macro_rules! by_shape {
    ($vectors:expr, $count:expr, $call:ident::<$t:ty, $fused:ident>($($argument:expr),* $(,)?)) => {
        match ($vectors, $count) {
            (1, 1) => $call::<$t, $fused, 1, 1>($($argument),*),
            (1, 2) => $call::<$t, $fused, 1, 2>($($argument),*),
            (1, 3) => $call::<$t, $fused, 1, 3>($($argument),*),
            (1, 4) => $call::<$t, $fused, 1, 4>($($argument),*),
            (1, 5) => $call::<$t, $fused, 1, 5>($($argument),*),
            (1, _) => $call::<$t, $fused, 1, 6>($($argument),*),
            (2, 1) => $call::<$t, $fused, 2, 1>($($argument),*),
            (2, 2) => $call::<$t, $fused, 2, 2>($($argument),*),
            (2, 3) => $call::<$t, $fused, 2, 3>($($argument),*),
            (2, 4) => $call::<$t, $fused, 2, 4>($($argument),*),
            (2, 5) => $call::<$t, $fused, 2, 5>($($argument),*),
            (2, _) => $call::<$t, $fused, 2, 6>($($argument),*),
            (_, 1) => $call::<$t, $fused, 3, 1>($($argument),*),
            (_, 2) => $call::<$t, $fused, 3, 2>($($argument),*),
            (_, 3) => $call::<$t, $fused, 3, 3>($($argument),*),
            _ => $call::<$t, $fused, 3, 4>($($argument),*),
        }
    };
}
pub(super) use by_shape;
