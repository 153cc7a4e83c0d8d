//! What ends training before the recipe does: a limit or a signal.

use std::time::Duration;

/// When to stop before the recipe's end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// After this many steps of the run in all.
    pub max_steps: Option<u64>,
    /// After this long in this process.
    pub time: Option<Duration>,
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
