//! Requests that wait for the model's thread: a bounded queue, of which a request gets into all or nothing.

use super::super::metrics::Metrics;
use super::Job;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Why a request did not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::command::serve) enum Refused {
    /// As many wait as may.
    Full,
    /// The thread has ended.
    Closed,
}

pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    /// Choices that may wait.
    most: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Nobody can submit any more.
    is_last: bool,
    is_closed: bool,
}

impl Waiting {
    fn choices(&self) -> usize {
        self.jobs.iter().map(|job| job.count).sum()
    }
}

impl Queue {
    pub(super) fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self { waiting: Mutex::default(), filled: Condvar::new(), most, metrics }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn submit(&self, jobs: Vec<Job>) -> Result<(), Refused> {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Err(Refused::Closed);
        }
        waiting.jobs.retain(|job| !job.is_abandoned());
        let more: usize = jobs.iter().map(|job| job.count).sum();
        // One request may be larger than the queue, if it is alone.
        if !waiting.jobs.is_empty() && waiting.choices() + more > self.most {
            return Err(Refused::Full);
        }
        waiting.jobs.extend(jobs);
        self.metrics.set_waiting(waiting.choices());
        self.filled.notify_one();
        Ok(())
    }

    /// The next job, if it fits into `free` rows. Where nothing is to be done, `is_idle`, waits for one, however large, and
    /// gives none only after [`Queue::end`].
    pub(super) fn next(&self, free: usize, is_idle: bool) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            waiting.jobs.retain(|job| !job.is_abandoned());
            self.metrics.set_waiting(waiting.choices());
            if waiting.jobs.front().is_some_and(|job| is_idle || job.count <= free) {
                let job = waiting.jobs.pop_front();
                self.metrics.set_waiting(waiting.choices());
                return job;
            }
            if !is_idle || waiting.is_last {
                return None;
            }
            self.metrics.set_rows(0);
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nobody will submit any more: what waits is the last.
    pub(super) fn end(&self) {
        self.lock().is_last = true;
        self.filled.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Closes the queue when it is dropped: what waits is dropped too, and so reported to those who wait.
    pub(super) fn close_at_end(&self) -> impl Drop + '_ {
        struct Close<'a>(&'a Queue);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                let mut waiting = self.0.lock();
                waiting.is_closed = true;
                waiting.jobs.clear();
            }
        }
        Close(self)
    }
}
