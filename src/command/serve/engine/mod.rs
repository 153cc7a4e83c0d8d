//! The thread that owns a model and generates for all requests at once, and the queue before it.

mod batch;
mod entry;
mod queue;
mod reading;

pub(super) use entry::Entry;
pub(super) use queue::Refused;

use super::metrics::Metrics;
use crate::data::Tokenizer;
use crate::model::FrozenModel;
use crate::sample::SampleSettings;
use crate::sample::text::Prompt;
use batch::Batch;
use queue::Queue;
use reading::Reading;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// Tokens of prompts that are read between two steps of the batch: a long prompt holds up the others no longer.
const READ_AT_ONCE: usize = 256;

/// A model with its tokenizer.
pub(super) struct Served {
    pub(super) model: FrozenModel,
    pub(super) tokenizer: Tokenizer,
}

/// A prompt, and how it is to be continued.
pub(super) struct Job {
    pub(super) prompt: Prompt,
    /// Where each of the prompt's own tokens begins, in characters; counted from the decoded text if empty.
    pub(super) offsets: Vec<usize>,
    /// The number of its first choice in the answer.
    pub(super) first: usize,
    /// How many samples are drawn.
    pub(super) count: usize,
    pub(super) settings: SampleSettings,
    /// Tokens that are drawn at most.
    pub(super) limit: usize,
    pub(super) stops: Vec<String>,
    /// A token that ends a sample.
    pub(super) end: Option<u32>,
    /// How many likeliest tokens are given beside each; none if no logarithm of a probability is asked for.
    pub(super) top: Option<usize>,
    /// Whether the prompt's own tokens are asked for too.
    pub(super) scores_prompt: bool,
    pub(super) events: UnboundedSender<Event>,
}

impl Job {
    /// Nobody waits for it any more.
    fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    fn send(&self, event: Event) {
        let _ = self.events.send(event); // where nobody waits, the row is dropped before the next step
    }
}

/// What happens to a request's choices.
pub(super) enum Event {
    /// The tokens of the prompt of choices `first .. first + count`.
    Prompt { first: usize, count: usize, entries: Vec<Entry> },
    /// A token was drawn; `text` can be shown now.
    Token { choice: usize, text: String, entry: Option<Entry> },
    /// No token follows; `text` was held back.
    Done { choice: usize, text: String, reason: Reason },
    /// The model cannot go on.
    Failed(String),
}

/// Why a choice ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// One of the request's strings came.
    Stop,
    /// The token that ends a text came.
    End,
    /// As many tokens were drawn as may be.
    Length,
}

impl Reason {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stop | Self::End => "stop",
            Self::Length => "length",
        }
    }
}

/// A model's thread; it ends with what was submitted when this is dropped.
pub(super) struct Engine {
    pub(super) served: Arc<Served>,
    queue: Arc<Queue>,
}

impl Engine {
    /// Starts the thread. At most `rows` choices are drawn side by side, and `waiting` wait.
    pub(super) fn start(
        served: Served,
        rows: usize,
        waiting: usize,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let served = Arc::new(served);
        let queue = Arc::new(Queue::new(waiting, metrics.clone()));
        let engine = Self { served: served.clone(), queue: queue.clone() };
        std::thread::Builder::new().name("engine".into()).spawn(move || {
            let _closed = queue.close_at_end(); // also where a kernel panics: nobody waits in vain
            Work { served: &served, rows, reading: VecDeque::new(), batch: Batch::default(), metrics }
                .run(&queue);
        })?;
        Ok(engine)
    }

    /// Puts all jobs of a request into the queue, or none.
    pub(super) fn submit(&self, jobs: Vec<Job>) -> Result<(), Refused> {
        self.queue.submit(jobs)
    }

    /// Whether the thread still runs.
    pub(super) fn is_alive(&self) -> bool {
        !self.queue.is_closed()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.end();
    }
}

/// What the thread is at.
struct Work<'a> {
    served: &'a Served,
    rows: usize,
    /// Prompts that are not read to their end.
    reading: VecDeque<Reading<'a>>,
    batch: Batch<'a>,
    metrics: Arc<Metrics>,
}

impl<'a> Work<'a> {
    /// Works until nothing is left to be done and nobody can ask any more.
    fn run(&mut self, queue: &Queue) {
        loop {
            self.reading.retain(|reading| !reading.job.is_abandoned());
            let mut active =
                self.batch.len() + self.reading.iter().map(|reading| reading.job.count).sum::<usize>();
            while let Some(job) = queue.next(self.rows.saturating_sub(active), active == 0) {
                active += job.count;
                self.begin(job);
            }
            self.metrics.set_rows(active);
            if active == 0 {
                return;
            }
            self.read();
            if let Err(error) = self.batch.step(&self.served.model, &self.metrics) {
                self.batch.fail(&error.to_string());
            }
        }
    }

    fn begin(&mut self, job: Job) {
        let events = job.events.clone();
        match Reading::new(self.served, job) {
            Ok(reading) => self.reading.push_back(reading),
            Err(error) => drop(events.send(Event::Failed(error.to_string()))),
        }
    }

    /// Reads a window of each prompt in its turn, some tokens together.
    fn read(&mut self) {
        let mut tokens = 0;
        while tokens < READ_AT_ONCE
            && let Some(mut reading) = self.reading.pop_front()
        {
            let events = reading.job.events.clone();
            match reading.window(&self.served.model) {
                Ok((read, None)) => {
                    tokens += read;
                    self.metrics.read(read);
                    self.reading.push_back(reading);
                }
                Ok((read, Some(logits))) => {
                    tokens += read;
                    self.metrics.read(read);
                    if let Err(error) = self.batch.begin(self.served, reading, &logits, &self.metrics) {
                        let _ = events.send(Event::Failed(error.to_string()));
                    }
                }
                Err(error) => drop(events.send(Event::Failed(error.to_string()))),
            }
        }
    }
}
