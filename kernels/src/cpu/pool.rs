//! A persistent thread pool: all threads run one piece of work at once and wait for each other at barriers.
//!
//! Waiting spins briefly, then yields the core, then (between pieces of work) sleeps. Where threads yield for long, another
//! process keeps one of them from running, and the next pieces are given fewer: [`Crowding`].

use crate::threads::{self, Crowding};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Iterations of a waiting loop before the core is yielded: some microseconds.
const SPINS: usize = 1 << 12;

/// Yields of an idle thread before it sleeps: a millisecond or two, longer than what a small net does between two pieces of
/// work, since to wake a thread takes longer than many a piece.
const YIELDS: usize = 1 << 12;

/// One of the threads that share a piece of work.
#[derive(Clone, Copy)]
pub(crate) struct Worker<'a> {
    /// From 0; the caller's own thread is 0.
    pub(crate) index: usize,
    /// How many share the work.
    pub(crate) count: usize,
    barrier: &'a Barrier,
}

impl Worker<'_> {
    /// Returns when all have called it.
    pub(crate) fn barrier(&self) {
        self.barrier.wait(self.count);
    }

    /// Does `work` as a worker that shares it with nobody.
    pub(crate) fn alone<R>(self, work: impl FnOnce(Worker<'_>) -> R) -> R {
        work(Worker { index: 0, count: 1, barrier: &Barrier::default() })
    }

    /// This worker's part of `items`; the parts differ by one at most.
    pub(crate) fn share(&self, items: usize) -> Range<usize> {
        items * self.index / self.count..items * (self.index + 1) / self.count
    }
}

/// Calls `work` on every thread of the pool at once, and returns when all are done. Panics if `work` does, on any
/// thread.
pub(crate) fn run(work: impl Fn(Worker<'_>) + Sync) {
    static CROWDING: Crowding = Crowding::new();
    let alone = || work(Worker { index: 0, count: 1, barrier: &Barrier::default() });
    if INSIDE.get() {
        return alone();
    }
    // Who asked for a number of threads has it.
    let asked_for = SIZE.get().or_else(|| threads::automatic().is_none().then(threads::count));
    let Some(count) = asked_for else {
        let most = threads::count();
        let count = CROWDING.limit(most, Instant::now);
        if count <= 1 {
            return alone();
        }
        let waited = pool(count).run(&work);
        return CROWDING.observe([count, most], waited, Instant::now);
    };
    if count <= 1 {
        return alone();
    }
    pool(count).run(&work);
}

/// Runs `work` with pools of `count` threads for all kernels that it starts on this thread.
pub fn with_threads<R>(count: usize, work: impl FnOnce() -> R) -> R {
    let before = SIZE.replace(Some(count));
    let result = work();
    SIZE.set(before);
    result
}

thread_local! {
    static SIZE: Cell<Option<usize>> = const { Cell::new(None) };
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The pool of that size, whose threads are started once. Where the system starts no more of them it has fewer: its products
/// have the same bits.
fn pool(count: usize) -> Arc<Pool> {
    static POOLS: Mutex<BTreeMap<usize, Arc<Pool>>> = Mutex::new(BTreeMap::new());
    let mut pools = lock(&POOLS);
    pools.entry(count).or_insert_with(|| Arc::new(Pool::new(count))).clone()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sense-reversing barrier; a panic on one thread ends the others' wait with a panic too.
#[derive(Default)]
struct Barrier {
    arrived: AtomicUsize,
    generation: AtomicUsize,
    broken: AtomicBool,
    /// Nanoseconds that threads have yielded the core here.
    waited: AtomicU64,
}

impl Barrier {
    fn wait(&self, count: usize) {
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == count {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.fetch_add(1, Ordering::Release);
            return;
        }
        self.wait_while(|| {
            assert!(!self.broken.load(Ordering::Relaxed), "another thread of the pool panicked");
            self.generation.load(Ordering::Acquire) == generation
        });
    }

    /// Waits for other threads of the piece of work.
    fn wait_while(&self, is_missing: impl Fn() -> bool) {
        let mut waited = 0;
        while waited < SPINS {
            if !is_missing() {
                return;
            }
            pause(&mut waited);
        }
        let begun = Instant::now();
        while is_missing() {
            pause(&mut waited);
        }
        self.waited.fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

/// One iteration of a waiting loop.
fn pause(waited: &mut usize) {
    *waited += 1;
    if *waited < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
}

/// Work as the threads see it.
type Work<'a> = dyn Fn(Worker<'_>) + Sync + 'a;

/// A pointer to the caller's work, which outlives the threads' use of it.
#[derive(Clone, Copy)]
struct Job(*const Work<'static>);

// SAFETY: the work behind the pointer is Sync, and `Pool::run` outlasts every use of it.
unsafe impl Send for Job {}

struct Pool {
    count: usize,
    /// Held by the caller whose work is being done.
    busy: Mutex<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    barrier: Barrier,
    /// Pieces of work begun so far.
    begun: AtomicUsize,
    job: Mutex<Option<Job>>,
    wake: Condvar,
    /// Threads that have not finished the current piece.
    busy: AtomicUsize,
    /// Threads of the pool, the caller's among them.
    count: AtomicUsize,
}

impl Pool {
    fn new(count: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let start = |index: usize| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("kernels-{index}"));
            thread.spawn(move || shared.serve(index))
        };
        let started = (1..count).map_while(|index| start(index).ok()).count();
        shared.count.store(started + 1, Ordering::Relaxed); // before the first work, whose lock hands it on
        Self { count: started + 1, busy: Mutex::new(()), shared }
    }

    /// Does `work`; how long its threads have waited for one another in all, but for waits of some microseconds.
    fn run(&self, work: &Work<'_>) -> Duration {
        let _busy = lock(&self.busy);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes, and this function waits for every use to end.
        let job = Job(unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) });
        shared.busy.store(self.count - 1, Ordering::Relaxed);
        {
            let mut slot = lock(&shared.job);
            *slot = Some(job);
            shared.begun.fetch_add(1, Ordering::Release);
            shared.wake.notify_all();
        }
        let outcome = shared.take_part(work, 0, self.count);
        shared.barrier.wait_while(|| shared.busy.load(Ordering::Acquire) > 0);
        let waited = shared.barrier.waited.swap(0, Ordering::Relaxed);
        let broken = shared.barrier.broken.swap(false, Ordering::Relaxed);
        shared.barrier.arrived.store(0, Ordering::Relaxed);
        match outcome {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => assert!(!broken, "a thread of the pool panicked"),
        }
        Duration::from_nanos(waited)
    }
}

impl Shared {
    fn serve(&self, index: usize) {
        let mut done = 0;
        loop {
            let job = self.next(done);
            let count = self.count.load(Ordering::Relaxed);
            done += 1;
            // SAFETY: `Pool::run` keeps the work alive until `busy` has come down to 0.
            let work = unsafe { &*job.0 };
            let _ = self.take_part(work, index, count); // a panic is reported by the barrier's flag
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits until more than `done` pieces of work have begun.
    fn next(&self, done: usize) -> Job {
        let mut waited = 0;
        while self.begun.load(Ordering::Acquire) == done && waited < SPINS + YIELDS {
            pause(&mut waited);
        }
        let slot = lock(&self.job);
        let asleep = |_: &mut Option<Job>| self.begun.load(Ordering::Acquire) == done;
        let slot = self.wake.wait_while(slot, asleep).unwrap_or_else(PoisonError::into_inner);
        slot.expect("work has begun")
    }

    fn take_part(&self, work: &Work<'_>, index: usize, count: usize) -> std::thread::Result<()> {
        INSIDE.set(true);
        let part = || work(Worker { index, count, barrier: &self.barrier });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(part));
        INSIDE.set(false);
        if outcome.is_err() {
            self.barrier.broken.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::{run, with_threads};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_member_takes_part_and_shares_cover_everything_once() {
        for count in [1, 2, 3, 5] {
            let seen: Vec<AtomicUsize> = (0..17).map(|_| AtomicUsize::new(0)).collect();
            with_threads(count, || {
                run(|worker| {
                    assert_eq!(worker.count, count);
                    worker.share(17).for_each(|item| _ = seen[item].fetch_add(1, Ordering::Relaxed));
                });
            });
            assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn nobody_passes_a_barrier_before_all_have_come() {
        let arrived = AtomicUsize::new(0);
        with_threads(3, || {
            run(|worker| {
                for round in 1..=100 {
                    arrived.fetch_add(1, Ordering::Relaxed);
                    worker.barrier();
                    assert_eq!(arrived.load(Ordering::Relaxed), 3 * round);
                    worker.barrier();
                }
            });
        });
    }

    #[test]
    fn callers_from_many_threads_take_turns() {
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        with_threads(2, || {
                            run(|worker| _ = total.fetch_add(worker.index + 1, Ordering::Relaxed))
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 8 * 50 * 3);
    }

    #[test]
    fn work_inside_work_runs_on_the_one_thread() {
        let total = AtomicUsize::new(0);
        with_threads(2, || run(|_| run(|inner| _ = total.fetch_add(inner.count, Ordering::Relaxed))));
        assert_eq!(total.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        for index in [0, 1] {
            let panics = || {
                run(|worker| {
                    assert_ne!(worker.index, index);
                    worker.barrier();
                });
            };
            assert!(std::panic::catch_unwind(|| with_threads(2, panics)).is_err());
            with_threads(2, || run(|worker| worker.barrier()));
        }
    }
}
