//! Fewer threads for a while where they wait for one that another process keeps from running.
//!
//! The kernels' threads wait for one another many times in a millisecond. Beside another busy process each of these waits can
//! last until the missing thread has its turn again, and a piece of work on two threads takes up to twenty times as long as
//! on one. How long they wait shows within milliseconds, whatever is computed. [`super::Tuner`], which compares whole steps,
//! finds what waiting does not show: that a small model is faster on fewer threads.
//!
//! Of n threads with a share s of the time spent in waiting, work takes 1 / (n (1 − s)) of its time on one; m < n threads that
//! do not wait are faster where s > 1 − m / n.

use super::counts;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time, from the first piece of work in which a thread waited, after which the share of waiting is judged.
const WINDOW: Duration = Duration::from_millis(20);

/// How long fewer threads are used before more are tried again: at first, and after trials that failed.
const FIRST_REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(8);

/// How many threads the kernels use beside other processes. Where none waits, it costs a piece of work two atomic reads.
pub(crate) struct Crowding {
    /// Whether fewer threads than all are in use.
    is_reduced: AtomicBool,
    /// Whether there is a window that was not judged yet.
    is_watching: AtomicBool,
    state: Mutex<Option<State>>,
}

struct State {
    /// The numbers of threads that are used, falling.
    counts: Vec<usize>,
    /// Which of them is in use.
    index: usize,
    /// When the window began that is not judged yet, and how much of it a thread spent in waiting.
    watched: Option<(Instant, Duration)>,
    /// When more threads are tried, if fewer than all are in use.
    until: Option<Instant>,
    /// How long fewer threads are in use after the next failure, and when the last one was over.
    rest: Duration,
    rested: Option<Instant>,
}

impl Crowding {
    pub(crate) const fn new() -> Self {
        Self {
            is_reduced: AtomicBool::new(false),
            is_watching: AtomicBool::new(false),
            state: Mutex::new(None),
        }
    }

    /// How many of `most` threads the next piece of work is given.
    pub(crate) fn limit(&self, most: usize, now: impl FnOnce() -> Instant) -> usize {
        if most <= 1 || !self.is_reduced.load(Ordering::Relaxed) {
            return most;
        }
        let mut locked = self.lock();
        let state = State::of(&mut locked, most);
        let now = now();
        if state.until.is_some_and(|until| now >= until) {
            state.index -= 1;
            state.watched = None;
            state.rested = Some(now);
            state.until = (state.index > 0).then(|| now + state.rest);
        }
        self.tell(state);
        state.counts[state.index]
    }

    /// Takes how long the threads of a piece of work on `count` of `most` waited in all.
    pub(crate) fn observe(&self, [count, most]: [usize; 2], waited: Duration, now: impl FnOnce() -> Instant) {
        if waited.is_zero() && !self.is_watching.load(Ordering::Relaxed) {
            return;
        }
        let mut locked = self.lock();
        let state = State::of(&mut locked, most);
        if state.counts[state.index] == count {
            state.observe(waited / (count as u32 - 1).max(1), now());
        }
        self.tell(state);
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, state: &State) {
        self.is_reduced.store(state.index > 0, Ordering::Relaxed);
        self.is_watching.store(state.watched.is_some(), Ordering::Relaxed);
    }
}

impl State {
    /// That of `most` threads; another number begins anew.
    fn of(state: &mut Option<Self>, most: usize) -> &mut Self {
        let fits = state.as_ref().is_some_and(|state| state.counts[0] == most);
        if !fits {
            *state = None;
        }
        state.get_or_insert_with(|| Self {
            counts: counts(most),
            index: 0,
            watched: None,
            until: None,
            rest: FIRST_REST,
            rested: None,
        })
    }

    fn observe(&mut self, waited: Duration, now: Instant) {
        let begun = now.checked_sub(waited).unwrap_or(now);
        let (begun, all) = self.watched.get_or_insert((begun, Duration::ZERO));
        *all += waited;
        let window = now - *begun;
        if window >= WINDOW {
            let share = all.as_secs_f64() / window.as_secs_f64();
            self.watched = None;
            self.judge(share, now);
        }
    }

    fn judge(&mut self, share: f64, now: Instant) {
        let count = self.counts[self.index];
        let Some(&fewer) = self.counts.get(self.index + 1) else { return };
        if share <= 1.0 - fewer as f64 / count as f64 {
            return;
        }
        // More threads were fine for long, or this was their trial.
        let is_trial = self.rested.is_some_and(|rested| now - rested < LONGEST_REST);
        self.rest = if is_trial { (2 * self.rest).min(LONGEST_REST) } else { FIRST_REST };
        self.index += 1;
        self.until = Some(now + self.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::{Crowding, Duration, FIRST_REST, Instant, LONGEST_REST, WINDOW};

    /// Pieces of work of a millisecond on one thread for `seconds`, with the share of waiting that `share` gives for a number of
    /// threads; the seconds of work that were spent with each number.
    fn work(
        crowding: &Crowding,
        now: &mut Instant,
        (most, seconds): (usize, f64),
        share: impl Fn(usize) -> f64,
    ) -> Vec<f64> {
        let mut spent = vec![0.0; most + 1];
        let end = *now + Duration::from_secs_f64(seconds);
        while *now < end {
            let count = crowding.limit(most, || *now);
            let waits = if count > 1 { share(count) } else { 0.0 };
            let time = Duration::from_secs_f64(1e-3 / count as f64 / (1.0 - waits));
            *now += time;
            spent[count] += time.as_secs_f64();
            if count > 1 {
                crowding.observe([count, most], time.mul_f64(waits) * (count as u32 - 1), || *now);
            }
        }
        spent
    }

    #[test]
    fn a_quiet_machine_keeps_all_threads() {
        let now = &mut Instant::now();
        let crowding = Crowding::new();
        for (most, share) in [(2, 0.0), (2, 0.4), (16, 0.2)] {
            let spent = work(&crowding, now, (most, 3.0), |_| share);
            assert!(spent[most] > 2.9, "{most}: {spent:?}");
        }
    }

    #[test]
    fn a_busy_core_costs_little_and_is_taken_again_when_it_is_free() {
        let now = &mut Instant::now();
        let crowding = Crowding::new();
        let busy = work(&crowding, now, (2, 60.0), |_| 0.9);
        assert!(busy[2] < 0.02 * 60.0, "{busy:?}");
        let window = WINDOW.as_secs_f64();
        let free = work(&crowding, now, (2, 20.0), |_| 0.0);
        assert!(free[1] < LONGEST_REST.as_secs_f64() + window, "{free:?}");
        // It was fine for long: the next time the rest is short again.
        work(&crowding, now, (2, 0.1), |_| 0.9);
        let free = work(&crowding, now, (2, 10.0), |_| 0.0);
        assert!(free[1] < FIRST_REST.as_secs_f64() + window, "{free:?}");
    }

    #[test]
    fn of_many_threads_as_many_are_used_as_do_not_wait() {
        let now = &mut Instant::now();
        let crowding = Crowding::new();
        let spent = work(&crowding, now, (16, 120.0), |count| if count > 9 { 0.8 } else { 0.02 });
        assert!(spent[9] > 100.0, "{spent:?}");
        let spent = work(&crowding, now, (16, 40.0), |_| 0.02);
        assert!(spent[16] > 20.0, "{spent:?}");
    }

    #[test]
    fn what_was_done_with_another_number_of_threads_does_not_count() {
        let start = Instant::now();
        let now = || start;
        let crowding = Crowding::new();
        assert_eq!(crowding.limit(2, now), 2);
        crowding.observe([3, 2], 3 * WINDOW, now);
        assert_eq!(crowding.limit(2, now), 2);
        crowding.observe([2, 2], WINDOW, now);
        assert_eq!(crowding.limit(2, now), 1);
        assert_eq!(crowding.limit(4, now), 4); // another limit begins anew
    }
}
