//! How long a transfer may take before it is given up.

use std::time::Duration;

/// Bytes a second below which a transfer is given up.
const SLOWEST: u64 = 50_000;

/// How long the parts of a transfer may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To find and reach the server.
    pub connect: Duration,
    /// Until its answer begins.
    pub answer: Duration,
    /// For a body, beside what its length takes at 50 kB a second.
    pub body: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let [connect, answer, body] = [15, 60, 60].map(Duration::from_secs);
        Self { connect, answer, body }
    }
}

impl Timeouts {
    /// How long a body of so many bytes may take in all, however it comes.
    pub fn for_body(&self, bytes: u64) -> Duration {
        self.body.saturating_add(Duration::from_secs(bytes / SLOWEST))
    }
}
