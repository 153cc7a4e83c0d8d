//! Work on many shards at once, on the threads that the process has, with its rate and the time left.

use super::Shard;
use crate::console::Line;
use crate::error::{Error, Result};
use crate::readable::duration;
use rhn_kernels::threads;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Between two looks at how far the work is.
const LOOK: Duration = Duration::from_millis(200);

/// How far a piece of work is.
#[derive(Default)]
pub(super) struct Done {
    /// Bytes of text.
    text: AtomicU64,
    /// Whether another shard failed.
    stopped: AtomicBool,
}

impl Done {
    /// Counts text that was worked on.
    ///
    /// # Errors
    /// If the work on another shard failed: nothing more is wanted.
    pub(super) fn add(&self, bytes: usize) -> Result<()> {
        self.text.fetch_add(bytes as u64, Ordering::Relaxed);
        match self.stopped.load(Ordering::Relaxed) {
            true => Err(Error::config("stopped: another shard failed")),
            false => Ok(()),
        }
    }
}

/// Does `work` on each of `shards`, given its number; the results are in their order.
///
/// # Errors
/// The first that happens on a shard.
pub(super) fn on_each<T: Send>(
    what: &str,
    shards: &[&Shard],
    work: impl Fn(usize, &Shard, &Done) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let done = Done::default();
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let finished = AtomicU64::new(0);
    let run = || {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(shard) = shards.get(index).filter(|_| !done.stopped.load(Ordering::Relaxed)) else {
                return results;
            };
            match work(index, shard, &done) {
                Ok(result) => results.push((index, result)),
                Err(error) => {
                    done.stopped.store(true, Ordering::Relaxed);
                    let mut failed = failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    failed.get_or_insert(error);
                }
            }
            finished.fetch_add(shard.bytes, Ordering::Relaxed);
        }
    };
    let mut results = std::thread::scope(|scope| {
        let (sender, receiver) = channel::<()>();
        let start = |_| {
            let sender = sender.clone();
            let run = &run;
            std::thread::Builder::new().spawn_scoped(scope, move || {
                let _sender = sender; // dropped at the end, however the work ends
                run()
            })
        };
        // Where the system starts no more of them, those that there are do the work.
        let wanted = threads::count().clamp(1, shards.len().max(1));
        let workers: Vec<_> = (0..wanted).map_while(|number| start(number).ok()).collect();
        if workers.is_empty() {
            return run();
        }
        drop(sender);
        let mut progress = Progress::new(what, shards);
        while receiver.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            progress.show(done.text.load(Ordering::Relaxed), finished.load(Ordering::Relaxed));
        }
        progress.line.clear();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined
            .flat_map(|joined| joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Vec<_>>()
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        return Err(error);
    }
    results.sort_by_key(|&(index, _)| index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

struct Progress<'a> {
    line: Line,
    what: &'a str,
    /// Bytes of all files.
    all: u64,
    /// Whether all of them are text as it is: else only whole files are counted.
    plain: bool,
    start: Instant,
}

impl<'a> Progress<'a> {
    fn new(what: &'a str, shards: &[&Shard]) -> Self {
        let all = shards.iter().map(|shard| shard.bytes).sum();
        let plain = shards.iter().all(|shard| !shard.is_packed());
        Self { line: Line::new(), what, all, plain, start: Instant::now() }
    }

    fn show(&mut self, text: u64, finished: u64) {
        let done = if self.plain { text.min(self.all) } else { finished };
        let seconds = self.start.elapsed().as_secs_f64();
        let left = if done == 0 { f64::NAN } else { seconds * (self.all - done) as f64 / done as f64 };
        let rate = text as f64 / 1e6 / seconds;
        self.line.show(self.what, done, self.all, || format!("{rate:.0} MB/s, {} left", duration(left)));
    }
}
