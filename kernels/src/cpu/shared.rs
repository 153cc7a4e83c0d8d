//! A slice whose parts several threads write at once, each its own.

use std::marker::PhantomData;

/// A mutable slice that is handed out in parts; the parts in use at a time must not overlap.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    of: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a mutable slice of T; whoever takes a part promises that it is not shared.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), of: PhantomData }
    }

    /// The part of `len` from `start` on, to be read and written.
    ///
    /// # Safety
    /// Until the part is dropped or there was a barrier, no other thread touches any of it.
    #[inline(always)]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start <= self.len && len <= self.len - start, "a part of {len} at {start} of {}", self.len);
        // SAFETY: within the slice, and not shared, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }

    /// Prefetches `len` values from `start` on, to be written: other cores that have read them give them up.
    #[inline(always)]
    pub(crate) fn fetch_for_writing(&self, start: usize, len: usize) {
        for at in (start..start + len).step_by(64 / size_of::<T>()) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a prefetch may name any address; processors that lack this one pass over it.
            unsafe {
                std::arch::asm!("prefetchw [{}]", in(reg) self.data.wrapping_add(at), options(nostack, readonly, preserves_flags));
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = at;
        }
    }

    /// Prefetches `len` values from `start` on.
    #[inline(always)]
    pub(crate) fn fetch(&self, start: usize, len: usize) {
        for at in (start..start + len).step_by(64 / size_of::<T>()) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a prefetch may name any address.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(self.data.wrapping_add(at).cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = at;
        }
    }

    /// The part of `len` from `start` on, to be read.
    ///
    /// # Safety
    /// Until the part is dropped or there was a barrier, no thread writes any of it.
    #[inline(always)]
    pub(crate) unsafe fn read(&self, start: usize, len: usize) -> &'a [T] {
        // SAFETY: as in `part`; several readers do no harm.
        unsafe { self.part(start, len) }
    }
}
