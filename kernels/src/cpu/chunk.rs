//! Some values at a time: what pointwise code loads, computes on and stores, so that the compiler vectorises it.

use crate::cpu::real::Real;

/// Values that are computed together. In a scan they are the kernel's vector, 16 units with AVX-512: what is stored as two
/// halves and soon read as one vector makes the processor wait.
pub(crate) type Chunk<T, const N: usize = CHUNK> = [T; N];

/// Where nothing depends on the instruction set: a vector of AVX2, or half of one of AVX-512.
pub(crate) const CHUNK: usize = 8;

/// The chunk at `start`; past `width` values it is zero, and with none `start` may be anywhere.
#[inline(always)]
pub(crate) fn load<T: Real, const N: usize>(from: &[T], start: usize, width: usize) -> Chunk<T, N> {
    let mut chunk = [T::zero(); N];
    if width == N {
        chunk.copy_from_slice(&from[start..][..N]);
    } else if width > 0 {
        chunk[..width].copy_from_slice(&from[start..][..width]);
    }
    chunk
}

/// Prefetches the cache line of value `at`, which may be past the end, into the second cache: what comes much later would
/// only displace what is used meanwhile from the first.
#[inline(always)]
pub(crate) fn fetch<T>(from: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch may name any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(from.as_ptr().wrapping_add(at).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, at);
}

/// The first `to.len()` values of a chunk.
#[inline(always)]
pub(crate) fn store<T: Real, const N: usize>(to: &mut [T], chunk: &Chunk<T, N>) {
    match <&mut Chunk<T, N>>::try_from(&mut *to) {
        Ok(to) => *to = *chunk,
        Err(_) => to.copy_from_slice(&chunk[..to.len()]),
    }
}

#[inline(always)]
pub(crate) fn sum<T: Real, const N: usize>(mut a: Chunk<T, N>, b: Chunk<T, N>) -> Chunk<T, N> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

#[inline(always)]
pub(crate) fn multiply<T: Real, const N: usize>(mut a: Chunk<T, N>, b: Chunk<T, N>) -> Chunk<T, N> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
    a
}
