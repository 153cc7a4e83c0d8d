//! Eight values at a time: what pointwise code loads, computes on and stores, so that the compiler vectorises it.

use crate::cpu::real::Real;

/// Units of one batch row that are computed together: a vector of AVX2, or half of one of AVX-512.
pub(crate) type Chunk<T> = [T; CHUNK];
pub(crate) const CHUNK: usize = 8;

/// The chunk at `start`; past `width` values it is zero, and with none `start` may be anywhere.
#[inline(always)]
pub(crate) fn load<T: Real>(from: &[T], start: usize, width: usize) -> Chunk<T> {
    let mut chunk = [T::zero(); CHUNK];
    if width == CHUNK {
        chunk.copy_from_slice(&from[start..][..CHUNK]);
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
pub(crate) fn store<T: Real>(to: &mut [T], chunk: &Chunk<T>) {
    match <&mut Chunk<T>>::try_from(&mut *to) {
        Ok(to) => *to = *chunk,
        Err(_) => to.copy_from_slice(&chunk[..to.len()]),
    }
}

#[inline(always)]
pub(crate) fn sum<T: Real>(mut a: Chunk<T>, b: Chunk<T>) -> Chunk<T> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

#[inline(always)]
pub(crate) fn multiply<T: Real>(mut a: Chunk<T>, b: Chunk<T>) -> Chunk<T> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
    a
}
