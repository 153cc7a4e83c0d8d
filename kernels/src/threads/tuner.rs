//! How many threads are worth their while: beside other work, fewer than there are cores can be faster.
//!
//! The kernels' threads wait for one another many times in a step. Where another process keeps a core busy, all wait for
//! the thread that is not running, and one thread alone can be faster than two. Which is so shows in the time of a step
//! alone, so from time to time a few steps are made with another number of threads. Any number gives the same bits.

use super::{count, counts, set_count};

/// Steps by which a number of threads is judged: their median counts, once the first has woken the threads.
const SAMPLE: usize = 5;

/// What another number of threads must bring to be taken: this part of the time or less.
const GAIN: f64 = 0.93;

/// Times the best median so far at which a step has become slow, so that another number is tried at once.
const SLOW: f64 = 1.25;

/// Steps from one trial to the next: the first, and the most after trials that brought nothing.
const FIRST_INTERVAL: usize = 64;
const LONGEST_INTERVAL: usize = 2048;

/// Chooses the number of threads by the times of like steps.
pub struct Tuner {
    /// The numbers that are tried, falling.
    counts: Vec<usize>,
    /// Where among them the number is that is in use but for trials.
    index: usize,
    /// Times of the latest steps, of the number in use or of the one on trial.
    times: Vec<f64>,
    trial: Option<Trial>,
    /// The best median since that number was taken.
    best: f64,
    /// Steps since the last trial.
    waited: usize,
    interval: usize,
    /// Whether the next trial is of more threads.
    is_upward: bool,
}

/// Another number, and the median of the one in use when the trial began.
struct Trial {
    index: usize,
    beside: f64,
}

impl Tuner {
    /// For steps computed on the CPU; `None` if the number of threads was asked for, or there is but one.
    pub fn new() -> Option<Self> {
        let most = super::automatic()?;
        let tuner = Self::of_counts(counts(most), count());
        (tuner.counts.len() > 1).then_some(tuner)
    }

    fn of_counts(counts: Vec<usize>, current: usize) -> Self {
        let index = counts.iter().position(|&count| count <= current).unwrap_or(0);
        let times = Vec::new();
        let interval = FIRST_INTERVAL;
        // The first trial comes with the first sample.
        Self {
            counts,
            index,
            times,
            trial: None,
            best: f64::INFINITY,
            waited: interval,
            interval,
            is_upward: false,
        }
    }

    /// Takes the seconds that a step took, and sets the number of threads of the next.
    pub fn observe(&mut self, seconds: f64) {
        let before = self.threads();
        let after = self.next(seconds);
        if after != before {
            set_count(after);
        }
    }

    /// The number of threads in use.
    fn threads(&self) -> usize {
        self.counts[self.trial.as_ref().map_or(self.index, |trial| trial.index)]
    }

    /// The number of threads for the next step, after one of so many seconds.
    fn next(&mut self, seconds: f64) -> usize {
        self.times.push(seconds);
        match self.trial {
            Some(_) if self.times.len() > SAMPLE => self.end_trial(),
            Some(_) => {}
            None => {
                self.waited += 1;
                if self.times.len() > SAMPLE {
                    self.times.remove(0);
                    self.consider();
                }
            }
        }
        self.threads()
    }

    /// Begins a trial if it is time, or if the steps have become slow.
    fn consider(&mut self) {
        let median = median(&self.times);
        self.best = self.best.min(median);
        let is_slow = median > SLOW * self.best && self.waited > 2 * SAMPLE;
        if self.waited < self.interval && !is_slow {
            return;
        }
        if is_slow {
            self.best = median; // if no other number is faster, this is how it is now
            self.interval = FIRST_INTERVAL;
            self.is_upward = false;
        }
        let fewer = (self.index + 1 < self.counts.len()).then_some(self.index + 1);
        let more = self.index.checked_sub(1);
        let index = if self.is_upward { more.or(fewer) } else { fewer.or(more) };
        self.is_upward = !self.is_upward;
        self.trial = index.map(|index| Trial { index, beside: median });
        self.times.clear();
    }

    fn end_trial(&mut self) {
        let Some(trial) = self.trial.take() else { return };
        let median = median(&self.times[1..]); // the first step woke the threads
        self.waited = 0;
        self.times.clear();
        if median <= GAIN * trial.beside {
            self.is_upward = trial.index < self.index;
            self.index = trial.index;
            self.best = median;
            self.interval = FIRST_INTERVAL;
            let has_further =
                if self.is_upward { self.index > 0 } else { self.index + 1 < self.counts.len() };
            if has_further {
                self.waited = self.interval; // on in the same direction at once
            }
        } else {
            self.interval = (2 * self.interval).min(LONGEST_INTERVAL);
        }
    }
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_INTERVAL, Tuner, counts};

    /// Makes steps of the seconds that `time` gives for a number of threads, and gives how many were made with each.
    fn steps(tuner: &mut Tuner, count: usize, time: impl Fn(usize, usize) -> f64) -> Vec<usize> {
        let mut made = vec![0; tuner.counts[0] + 1];
        for step in 0..count {
            let threads = tuner.threads();
            made[threads] += 1;
            tuner.next(time(step, threads));
        }
        made
    }

    fn tuner(most: usize) -> Tuner {
        Tuner::of_counts(counts(most), most)
    }

    #[test]
    fn numbers_fall_to_one() {
        assert_eq!(counts(1), [1]);
        assert_eq!(counts(2), [2, 1]);
        assert_eq!(counts(4), [4, 3, 2, 1]);
        assert_eq!(counts(16), [16, 12, 9, 6, 4, 3, 2, 1]);
    }

    #[test]
    fn a_quiet_machine_keeps_all_threads_and_loses_little() {
        let mut tuner = tuner(2);
        let made = steps(&mut tuner, 4 * LONGEST_INTERVAL, |_, threads| 1.0 / threads as f64);
        assert_eq!(tuner.threads(), 2);
        assert!(made[1] < 80, "{made:?}");
    }

    #[test]
    fn a_busy_core_is_left_alone_soon_and_taken_again_when_it_is_free() {
        let mut tuner = tuner(2);
        // One thread takes 1 s, two take .5 s, or 1.4 s while the other core is busy.
        let time = |step: usize, threads: usize| match (threads, step) {
            (1, _) => 1.0,
            (_, 500..1500) => 1.4,
            _ => 0.5,
        };
        steps(&mut tuner, 500, time);
        assert_eq!(tuner.threads(), 2);
        let busy = steps(&mut tuner, 1000, |step, threads| time(step + 500, threads));
        assert!(busy[2] < 60, "{busy:?}");
        let free = steps(&mut tuner, 4000, |_, threads| time(0, threads));
        assert!(tuner.threads() == 2 && free[1] < 1300, "{free:?}");
    }

    #[test]
    fn many_threads_too_many_for_a_small_model_are_taken_down_step_by_step() {
        let mut tuner = tuner(16);
        // Fastest with four: work that is shared, and waiting that grows.
        steps(&mut tuner, 3000, |_, threads| 1.0 / threads as f64 + 0.06 * threads as f64);
        assert!((3..=6).contains(&tuner.threads()), "{}", tuner.threads());
    }

    #[test]
    fn noise_does_not_move_it() {
        let mut tuner = tuner(4);
        // A step in ten takes three times as long, whatever the threads.
        let time = |step: usize, threads: usize| if step % 10 == 3 { 3.0 } else { 1.0 } / threads as f64;
        let made = steps(&mut tuner, 10_000, time);
        assert!(made[4] > 9_500, "{made:?}");
    }
}
