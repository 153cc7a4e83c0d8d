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
//! | [`predict`] | a trained model that reads text, window by window or token by token |
//! | [`checkpoint`] | directories that are whole or refused, and the model in one |
//! | [`config`], [`data`], [`metrics`] | recipes; corpora, vocabularies, batches; one JSON line an event |
//! | [`model`] | embedding, core, output, dropout, and their settings |
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
