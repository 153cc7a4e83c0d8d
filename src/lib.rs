//! Recurrent highway language models: train, evaluate, score and sample.
//!
//! The rooms, each importing only from those below it:
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`command`] | the command line: one file a command |
//! | [`mod@bench`] | how fast all of it is on a machine |
//! | [`train`] | the step, the schedule, the loop, what is saved |
//! | [`eval`], [`sample`], [`study`] | perplexity, surprisal, text; runs side by side |
//! | [`model`], [`checkpoint`] | embedding, cells, output; directories that are whole or refused |
//! | [`config`], [`data`], [`metrics`] | recipes; corpora, vocabularies, lanes; one JSON line an event |
//! | [`hub`], [`error`], [`readable`] | the network, bounded; one error; numbers as people write them |

pub mod bench;
pub mod checkpoint;
pub mod command;
pub mod config;
pub mod data;
pub mod digest;
pub mod error;
pub mod eval;
pub mod hub;
pub mod metrics;
pub mod model;
pub mod predict;
pub mod readable;
pub mod sample;
pub mod study;
pub mod train;
mod write;
