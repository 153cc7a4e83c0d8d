//! What ends training before the recipe does: a limit or a signal.

use crate::error::{Error, Result};
use std::time::{Duration, Instant};

/// When to stop before the recipe's end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// After this many steps of the run in all.
    pub max_steps: Option<u64>,
    /// After this long in this process.
    pub time: Option<Duration>,
}

impl Limits {
    /// Whether the time since `started` is used up.
    pub(super) fn is_time_over(&self, started: Instant) -> bool {
        self.time.is_some_and(|time| started.elapsed() >= time)
    }

    /// An error once the time is used up, for what can be begun again.
    pub(super) fn check_time(&self, started: Instant) -> Result<()> {
        if self.is_time_over(started) { Err(Error::Stopped { code: 0 }) } else { Ok(()) }
    }
}

/// Why training stopped before the recipe's end; the state is saved, and `--resume` goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A signal, and the exit code it asks for.
    Signal(u8),
    /// `--max-steps`.
    MaxSteps,
    /// `--time-limit`.
    TimeLimit,
    /// Another rank has a reason.
    OtherRank,
}

#[cfg(test)]
mod tests {
    use super::Limits;
    use std::time::{Duration, Instant};

    #[test]
    fn a_time_that_is_used_up_ends_what_can_be_begun_again() {
        let within = |time| Limits { max_steps: None, time }.check_time(Instant::now());
        assert!(within(None).is_ok() && within(Some(Duration::from_secs(3600))).is_ok());
        assert_eq!(within(Some(Duration::ZERO)).unwrap_err().exit_code(), 0);
    }
}
