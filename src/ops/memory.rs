//! How the allocator treats large tensors: a training step frees and takes the same ones, so their pages are kept.

/// Tells glibc to keep freed pages and to use one heap; elsewhere nothing is to be told. Call it once, at the start.
///
/// Without it each step maps, zeroes and unmaps hundreds of megabytes: a tenth of a step's time on PTB's model.
pub fn keep_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(
        unsafe_code,
        reason = "mallopt has no safe wrapper; it takes two integers and changes tuning only"
    )]
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
