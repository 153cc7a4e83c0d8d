//! How many threads the products use, and a way to stay on one of them.

mod crowding;
mod tuner;

pub(crate) use crowding::Crowding;
pub use tuner::Tuner;

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A deep graph of plain operations is walked recursively when gradients are taken.
const STACK: usize = 64 << 20;

/// Threads that the products use if fewer than were started are faster; 0 for all.
static FEWER: AtomicUsize = AtomicUsize::new(0);

/// Threads that were started, one a core, if nobody asked for a number; else 0.
static AUTOMATIC: AtomicUsize = AtomicUsize::new(0);

/// Starts the threads, `count` of them or one a core; call it once, before the first tensor operation.
pub fn start(count: Option<usize>) -> Result<()> {
    #[expect(unsafe_code, reason = "candle reads its thread counts from the environment")]
    // SAFETY: no other thread runs yet, as the caller promises.
    unsafe {
        if let Some(count) = count {
            std::env::set_var("RAYON_NUM_THREADS", count.to_string());
        }
        // Candle adds gradients with threads of its own, which spin beside those of the kernels: with none, a step of a
        // net of fifty layers takes half the time, one of ptb-rhn a few per cent less.
        if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
            std::env::set_var("CANDLE_NUM_THREADS", "1");
        }
    }
    let is_asked_for = count.is_some() || std::env::var_os("RAYON_NUM_THREADS").is_some();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count.unwrap_or(0)).stack_size(STACK);
    pool.build_global()
        .map_err(|error| Error::setting(format!("the threads could not be started: {error}")))?;
    if !is_asked_for {
        AUTOMATIC.store(rayon::current_num_threads(), Ordering::Relaxed);
    }
    Ok(())
}

/// How many threads the products use.
pub fn count() -> usize {
    match FEWER.load(Ordering::Relaxed) {
        0 => rayon::current_num_threads(),
        count => count,
    }
}

/// Uses so many threads from the next product on, at most as many as were started.
fn set_count(count: usize) {
    FEWER.store(count.min(rayon::current_num_threads()), Ordering::Relaxed);
}

/// All threads, and from there three quarters of each number down to one: so far apart that a gain shows.
fn counts(most: usize) -> Vec<usize> {
    std::iter::successors(Some(most), |&threads| Some(threads * 3 / 4).filter(|&next| next > 0)).collect()
}

/// Threads that were started, if nobody asked for a number.
pub(crate) fn automatic() -> Option<usize> {
    Some(AUTOMATIC.load(Ordering::Relaxed)).filter(|&count| count > 0)
}

/// Runs `work` on one of the threads: products that start there need not wake another first.
pub fn on_one<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| work())
}
