//! The process's memory: its pages are kept, as a training step frees and takes the same large tensors; and its peak.

#[cfg(not(feature = "cuda"))]
use candle_core::Device;

/// What is set aside for tensors: address space, of which only what is touched becomes memory.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAP: usize = 1 << 32;

/// Makes glibc keep freed pages and use one heap, and the kernel make that heap of large pages; elsewhere there is
/// nothing to set. Call it once, at the start.
///
/// Without it each step maps, zeroes and unmaps hundreds of megabytes, a tenth of a step's time on PTB's model, and
/// the processor spends as much looking up the small pages of weights that stream by.
pub fn keep_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "the C library offers its tuning by such calls alone")]
    // SAFETY: mallopt changes tuning only.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
    set_heap_aside();
}

/// Gives the system the pages of what is free, before something large is made that does not fit between what is in use. For
/// steps beside which some hundred megabytes of new pages are nothing.
pub(crate) fn release_free_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "as in `keep_pages`")]
    // SAFETY: it touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
    set_heap_aside();
}

/// Takes address space for the heap and asks for large pages there.
fn set_heap_aside() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "memory that is not yet an object is reached by such calls alone")]
    // SAFETY: madvise changes tuning only; the block is this function's own until it is freed.
    unsafe {
        let heap = libc::malloc(HEAP);
        if !heap.is_null() {
            let start = heap.cast::<u8>().wrapping_add(heap.align_offset(1 << 12));
            libc::madvise(start.cast(), HEAP - (1 << 12), libc::MADV_HUGEPAGE);
            libc::free(heap);
        }
    }
}

#[cfg(feature = "cuda")]
pub use crate::cuda::device::peak_mib as peak_mib_of;

/// The most of a GPU's memory that this process's tensors took at once, in MiB; `None` for the CPU.
#[cfg(not(feature = "cuda"))]
pub fn peak_mib_of(_: &Device) -> Option<u64> {
    None
}

/// The process's peak resident memory in MiB, where the system reports it.
pub fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? / 1024)
}
