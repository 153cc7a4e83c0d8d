//! Bounds on what a server takes: each has a flag.

use std::time::Duration;

/// The bounds as flags.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LimitArgs {
    /// Choices that are drawn side by side in one batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Choices that may wait; more are answered 429
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    queue: u32,
    /// Choices of one request: its prompts times n
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    max_choices: u32,
    /// Tokens that a request may ask for, for each choice
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Tokens of a prompt
    #[arg(long, value_name = "N", default_value_t = 65536, value_parser = clap::value_parser!(u32).range(1..))]
    max_prompt_tokens: u32,
    /// Tokens of a request: of its prompts, or its text to score, and all that it may draw
    #[arg(long, value_name = "N", default_value_t = 262144, value_parser = clap::value_parser!(u32).range(1..))]
    max_request_tokens: u32,
    /// Bytes of a request's body
    #[arg(long, value_name = "N", default_value_t = 2 << 20, value_parser = clap::value_parser!(u32).range(1024..))]
    max_body: u32,
    /// Models of --runs in memory; the one that was asked for longest ago makes room for another
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    max_models: u32,
    /// Open connections; more are answered 503 and closed
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    connections: u32,
    /// Seconds for a request's head, for its body, and between two requests of a connection
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=86400))]
    read_timeout: u32,
    /// Seconds in which a client must take something of its answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86400))]
    write_timeout: u32,
    /// Seconds for a request, waiting included, the loading of its model apart; then it is ended
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86400))]
    request_timeout: u32,
    /// Seconds for what runs when a signal asks to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=86400))]
    grace: u32,
}

/// The bounds of a server.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) batch: usize,
    pub(super) queue: usize,
    pub(super) max_choices: usize,
    pub(super) max_tokens: usize,
    pub(super) prompt_tokens: usize,
    pub(super) request_tokens: usize,
    pub(super) body: usize,
    pub(super) models: usize,
    pub(super) connections: usize,
    pub(super) read_timeout: Duration,
    pub(super) write_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) grace: Duration,
}

impl LimitArgs {
    pub(super) fn limits(&self) -> Limits {
        let seconds = |count: u32| Duration::from_secs(count.into());
        Limits {
            batch: self.batch as usize,
            queue: self.queue as usize,
            max_choices: self.max_choices as usize,
            max_tokens: self.max_tokens as usize,
            prompt_tokens: self.max_prompt_tokens as usize,
            request_tokens: self.max_request_tokens as usize,
            body: self.max_body as usize,
            models: self.max_models as usize,
            connections: self.connections as usize,
            read_timeout: seconds(self.read_timeout),
            write_timeout: seconds(self.write_timeout),
            request_timeout: seconds(self.request_timeout),
            grace: seconds(self.grace),
        }
    }
}
