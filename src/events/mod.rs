//! The events of a run: one JSON object a line of `metrics.jsonl`, written and read here alone.
//!
//! Keys are in alphabetical order, and a number that is not finite is `null`. A field that another version of this
//! program did not write has its default here.

mod event;
mod log;
mod read;

pub(crate) use event::{Divergence, Epoch, Event, Measured, Outcome, Skip, Start, Step, Stop};
pub(crate) use log::EventLog;
pub(crate) use read::{Events, readable};
