//! What a run and its parts take.

use std::time::Instant;

/// What the run and its parts took.
pub(super) struct Clock {
    pub(super) started: Instant,
    /// Seconds of the run in earlier processes.
    before: f64,
    pub(super) saved: Instant,
    /// Tokens, windows and seconds of this process's training, for its speed.
    pub(super) tokens: u64,
    pub(super) windows: u64,
    training: f64,
    pub(super) validation: f64,
}

impl Clock {
    pub(super) fn start(before: f64) -> Self {
        let now = Instant::now();
        Self { started: now, before, saved: now, tokens: 0, windows: 0, training: 0.0, validation: 0.0 }
    }

    /// Wall-clock seconds of the run, over all its processes.
    pub(super) fn seconds(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }

    /// `None` while this process has made no step that counts.
    pub(super) fn tokens_per_second(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.tokens as f64 / self.training.max(1e-9))
    }

    /// What a window took, on average.
    pub(super) fn window_seconds(&self) -> f64 {
        self.training / self.windows.max(1) as f64
    }

    /// What `work` gives; its time counts as training.
    pub(super) fn train<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.training += start.elapsed().as_secs_f64();
        done
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn a_process_that_has_made_no_step_has_no_speed() {
        let mut clock = Clock::start(7.0);
        assert_eq!(clock.tokens_per_second(), None);
        clock.train(|| ());
        clock.tokens = 30;
        assert!(clock.tokens_per_second().unwrap() > 0.0);
    }
}
