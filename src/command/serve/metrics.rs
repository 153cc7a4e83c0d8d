//! What the server counts, as Prometheus reads it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the histogram of seconds a request takes.
const SECONDS: [f64; 9] = [0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0, 300.0];

/// Counters of a whole server.
#[derive(Default)]
pub(super) struct Metrics {
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
    seconds: Mutex<Histogram>,
    connections: AtomicUsize,
    turned_away: AtomicU64,
    models: AtomicUsize,
    rows: AtomicUsize,
    waiting: AtomicUsize,
    read: AtomicU64,
    drawn: AtomicU64,
}

#[derive(Default)]
struct Histogram {
    counts: [u64; SECONDS.len()],
    count: u64,
    sum: f64,
}

/// A connection, as long as it lives.
pub(super) struct Connected<'a>(&'a Metrics);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    /// A request for `path` was answered with `status`; `path` is a route, not what the client sent.
    pub(super) fn answered(&self, path: &'static str, status: u16, took: Duration) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry((path, status)).or_default() += 1;
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let took = took.as_secs_f64();
        seconds.count += 1;
        seconds.sum += took;
        for (count, _) in seconds.counts.iter_mut().zip(SECONDS).filter(|(_, bound)| took <= *bound) {
            *count += 1;
        }
    }

    pub(super) fn connected(&self) -> Connected<'_> {
        self.connections.fetch_add(1, Relaxed);
        Connected(self)
    }

    /// A connection was refused, as there are as many as may be.
    pub(super) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Relaxed);
    }

    /// Models below `--runs` in memory.
    pub(super) fn set_models(&self, models: usize) {
        self.models.store(models, Relaxed);
    }

    /// Samples that are drawn or whose prompts are read now.
    pub(super) fn set_rows(&self, rows: usize) {
        self.rows.store(rows, Relaxed);
    }

    pub(super) fn set_waiting(&self, waiting: usize) {
        self.waiting.store(waiting, Relaxed);
    }

    pub(super) fn read(&self, tokens: usize) {
        self.read.fetch_add(tokens as u64, Relaxed);
    }

    pub(super) fn drawn(&self, tokens: u64) {
        self.drawn.fetch_add(tokens, Relaxed);
    }

    /// The text format of Prometheus.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        };
        line("rhn_connections", "gauge", "Open connections.", self.connections.load(Relaxed) as u64);
        let refused = self.turned_away.load(Relaxed);
        line("rhn_connections_refused_total", "counter", "Connections above the limit.", refused);
        line("rhn_models_loaded", "gauge", "Models of --runs in memory.", self.models.load(Relaxed) as u64);
        line("rhn_choices_running", "gauge", "Choices that are worked on.", self.rows.load(Relaxed) as u64);
        line("rhn_choices_waiting", "gauge", "Choices in the queue.", self.waiting.load(Relaxed) as u64);
        line(
            "rhn_prompt_tokens_total",
            "counter",
            "Tokens of prompts read, the line end before each with them.",
            self.read.load(Relaxed),
        );
        line("rhn_drawn_tokens_total", "counter", "Tokens drawn.", self.drawn.load(Relaxed));
        text += "# HELP rhn_answers_total Answers by route and status.\n# TYPE rhn_answers_total counter\n";
        for ((path, status), count) in &*self.answers.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(text, "rhn_answers_total{{path=\"{path}\",status=\"{status}\"}} {count}");
        }
        self.seconds.lock().unwrap_or_else(PoisonError::into_inner).write(&mut text);
        text
    }
}

impl Histogram {
    fn write(&self, text: &mut String) {
        *text += "# HELP rhn_answer_seconds Time to an answer, or to the begin of a stream.\n";
        *text += "# TYPE rhn_answer_seconds histogram\n";
        for (bound, count) in SECONDS.iter().zip(self.counts) {
            let _ = writeln!(text, "rhn_answer_seconds_bucket{{le=\"{bound}\"}} {count}");
        }
        let Self { count, sum, .. } = self;
        let _ = write!(
            text,
            "rhn_answer_seconds_bucket{{le=\"+Inf\"}} {count}\nrhn_answer_seconds_sum {sum}\nrhn_answer_seconds_count {count}\n"
        );
    }
}
