//! How many threads the products use.

use crate::error::{Error, Result};

/// Sets the number of threads; call it once, before the first tensor operation.
pub fn set(threads: usize) -> Result<()> {
    if threads == 0 {
        return Err(Error::config("--threads is 0, wanted at least 1"));
    }
    #[expect(
        unsafe_code,
        reason = "candle reads its thread count from the environment; no other thread runs yet"
    )]
    unsafe {
        std::env::set_var("RAYON_NUM_THREADS", threads.to_string());
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| Error::config(format!("--threads {threads}: {error}")))
}

/// How many threads the products use.
pub fn count() -> usize {
    rayon::current_num_threads()
}
