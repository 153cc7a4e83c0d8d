//! The process's memory: a training step frees and takes the same large tensors, so their pages are kept; and what
//! it took at most.

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

/// The process's peak resident memory in MiB, where the system tells.
pub fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? / 1024)
}
