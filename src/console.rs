//! What is printed beside a result: lines, notes, and a line that moves.

use crate::parallel::is_quiet;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Without a terminal, the time between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// A line that moves on standard error: a bar on a terminal, elsewhere a plain line now and then.
pub(crate) struct Line {
    bar: Option<ProgressBar>,
    last_plain: Instant,
}

impl Line {
    /// A bar if standard error is a terminal.
    pub(crate) fn new() -> Self {
        let bar = (std::io::stderr().is_terminal() && !is_quiet()).then(|| {
            let style = ProgressStyle::with_template("{prefix} {bar:24} {percent:>3}%  {wide_msg}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, last_plain: Instant::now() }
    }

    /// Shows that of `all` repeats of a measurement `done` are done; 0 of 0 before the first.
    pub(crate) fn measuring(&mut self, what: &str, done: usize, all: usize) {
        let message = || if all == 0 { String::new() } else { format!("{done} of {all} repeats") };
        self.show(what, done as u64, all as u64, message);
    }

    /// Shows that of `all` parts of what `head` names `done` are done.
    pub(crate) fn show(&mut self, head: &str, done: u64, all: u64, message: impl FnOnce() -> String) {
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(head.to_string());
                bar.set_length(all);
                bar.set_position(done);
                bar.set_message(message());
            }
            None if self.last_plain.elapsed() >= PLAIN_EVERY => {
                self.last_plain = Instant::now();
                report(&format!("{head} {:3}%  {}", 100 * done / all.max(1), message()));
            }
            None => {}
        }
    }

    /// Prints to standard output without tearing the bar.
    pub(crate) fn print(&self, text: &str) {
        self.beside(|| print(text));
    }

    /// Prints to standard error without tearing the bar.
    pub(crate) fn report(&self, text: &str) {
        self.beside(|| report(text));
    }

    fn beside(&self, work: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(work),
            None => work(),
        }
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line on standard output; one that is closed is no reason to lose a run.
pub(crate) fn print(text: &str) {
    if is_quiet() {
        return;
    }
    // In one piece: what a closed pipe did not take must not stay behind, to fail again at the process's end.
    let _ = std::io::stdout().lock().write_all(format!("{text}\n").as_bytes());
}

/// A line on standard error; one that is closed is no reason to lose a run.
pub(crate) fn report(text: &str) {
    if is_quiet() {
        return;
    }
    let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// A line on standard error of any rank: why it ends a run.
pub(crate) fn report_of_rank(rank: usize, text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("rank {rank}: {text}\n").as_bytes());
}

/// A note on standard error: something that is not the result.
pub(crate) fn note(text: &str) {
    report(&format!("note: {text}"));
}
