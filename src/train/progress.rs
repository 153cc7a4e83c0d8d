//! What a person sees of a run: a line that moves, a row an epoch.
//!
//! The moving line goes to standard error: a bar on a terminal, elsewhere a plain line now and then.

use crate::config::Unit;
use crate::eval::Evaluation;
use crate::readable::{duration, grouped, perplexity};
use indicatif::{ProgressBar, ProgressStyle};
use std::f64::consts::LN_2;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// The weight of the latest window in the loss that the moving line shows.
const SMOOTHING: f64 = 0.03;

/// The moving line.
pub struct Line {
    bar: Option<ProgressBar>,
    last_plain: Instant,
    smoothed: Option<f64>,
}

/// Where a run is, for the moving line.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Of the epochs, counted from 1.
    pub epoch: u64,
    /// Epochs in all.
    pub epochs: u64,
    /// Windows of this epoch that are done.
    pub window: u64,
    /// Windows of an epoch.
    pub windows: u64,
    /// Nats per token of the latest window.
    pub nats: f64,
    /// Tokens trained in a second, over this session.
    pub tokens_per_second: f64,
    /// Seconds left of the epoch, its validation apart.
    pub epoch_left: f64,
    /// Seconds left of the run.
    pub run_left: f64,
}

impl Line {
    /// A bar if standard error is a terminal.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} {bar:24} {percent:>3}%  {wide_msg}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, last_plain: Instant::now(), smoothed: None }
    }

    /// After a window of training.
    pub fn training(&mut self, moment: &Moment, unit: Unit) {
        let nats = self.smoothed.map_or(moment.nats, |old| old + SMOOTHING * (moment.nats - old));
        self.smoothed = Some(nats);
        let head = format!("epoch {}/{}", moment.epoch, moment.epochs);
        self.show(&head, moment.window, moment.windows, || {
            format!(
                "{nats:.3} nats  {}  {} {}/s  {} left in epoch, {} in run",
                quality(nats, unit),
                grouped(moment.tokens_per_second.round() as u64),
                plural(unit),
                duration(moment.epoch_left),
                duration(moment.run_left),
            )
        });
    }

    /// While a split is evaluated.
    pub fn evaluating(&mut self, what: &str, done: u64, all: u64) {
        self.show(what, done, all, || format!("{} of {} tokens", grouped(done), grouped(all)));
    }

    /// While something is measured: of `all` repeats `done` are done; 0 of 0 before the first.
    pub fn measuring(&mut self, what: &str, done: usize, all: usize) {
        let message = || if all == 0 { String::new() } else { format!("{done} of {all} repeats") };
        self.show(what, done as u64, all as u64, message);
    }

    fn show(&mut self, head: &str, done: u64, all: u64, message: impl FnOnce() -> String) {
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(head.to_string());
                bar.set_length(all);
                bar.set_position(done);
                bar.set_message(message());
            }
            None if self.last_plain.elapsed() >= PLAIN_EVERY => {
                self.last_plain = Instant::now();
                tell(&format!("{head} {:3}%  {}", 100 * done / all.max(1), message()));
            }
            None => {}
        }
    }

    /// Prints to standard output without tearing the bar.
    pub fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Prints to standard error without tearing the bar.
    pub fn tell(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(text)),
            None => tell(text),
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

/// A line on standard output; one that is closed is no reason to lose a run.
pub fn say(text: &str) {
    // In one piece: what a closed pipe did not take must not stay behind, to fail again at the process's end.
    let _ = std::io::stdout().lock().write_all(format!("{text}\n").as_bytes());
}

/// A line on standard error; one that is closed is no reason to lose a run.
pub fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// A row an epoch.
pub struct Row<'a> {
    /// Counted from 1.
    pub epoch: u64,
    /// Training nats per token, with dropout.
    pub train_nats: f64,
    /// On the validation split.
    pub valid: &'a Evaluation,
    /// At the epoch's last step.
    pub rate: f64,
    /// Mean over the epoch's steps.
    pub grad_norm: f64,
    /// Training alone.
    pub tokens_per_second: f64,
    /// Of the run so far.
    pub seconds: f64,
    /// Whether no epoch before was better.
    pub best: bool,
}

impl Row<'_> {
    /// The names of the columns.
    pub fn head(unit: Unit) -> String {
        let quality = match unit {
            Unit::Char => "bits/char",
            Unit::Byte => "bits/byte",
            Unit::Word | Unit::Bpe => "perplexity",
        };
        format!(
            "{:>5}  {:>10}  {:>10}  {quality:>10}  {:>9}  {:>9}  {:>9}  {:>8}",
            "epoch", "train nats", "valid nats", "rate", "grad norm", "tokens/s", "time"
        )
    }

    /// The row itself; the best epoch so far has a star.
    pub fn line(&self, unit: Unit) -> String {
        let quality = match unit {
            Unit::Char => format!("{:.3}", self.valid.bits_per_char),
            Unit::Byte => format!("{:.3}", self.valid.bits_per_byte),
            Unit::Word | Unit::Bpe => perplexity(self.valid.nats_per_token, 3),
        };
        format!(
            "{:>5}  {:>10.4}  {:>10.4}  {quality:>10}  {:>9.2e}  {:>9.2}  {:>9}  {:>8}{}",
            self.epoch,
            self.train_nats,
            self.valid.nats_per_token,
            self.rate,
            self.grad_norm,
            grouped(self.tokens_per_second.round() as u64),
            duration(self.seconds),
            if self.best { " *" } else { "" }
        )
    }
}

fn quality(nats: f64, unit: Unit) -> String {
    match unit {
        Unit::Char => format!("{:.3} bits/char", nats / LN_2),
        Unit::Byte => format!("{:.3} bits/byte", nats / LN_2),
        Unit::Word | Unit::Bpe => format!("perplexity {}", perplexity(nats, 1)),
    }
}

fn plural(unit: Unit) -> &'static str {
    match unit {
        Unit::Word => "words",
        Unit::Char => "chars",
        Unit::Byte => "bytes",
        Unit::Bpe => "tokens",
    }
}
