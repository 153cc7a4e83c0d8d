//! Recurrent highway language models: train, evaluate, score and sample.
//!
//! The modules, each importing only from those below it:
//!
//! | module | what it does |
//! | --- | --- |
//! | [`command`] | the command line: one file a command |
//! | [`mod@bench`] | how fast all of it is on a machine |
//! | [`run`] | a run from its settings to its result: its directory, its recorders |
//! | [`task`] | what is trained: a recipe brought to its data, with its objective |
//! | [`train`], [`parallel`] | the step, the update, the loop around them, what is saved; the ranks of a run |
//! | [`eval`], [`sample`], [`compress`], [`study`] | perplexity, surprisal, text; lossless compression; runs side by side |
//! | [`export`] | checkpoints in the forms that other programs load |
//! | [`predict`] | a trained model that reads text, window by window or token by token |
//! | [`checkpoint`] | directories that are whole or refused, and the model in one |
//! | [`config`], [`data`], `events` | recipes; corpora, vocabularies, batches; one JSON line an event |
//! | [`model`] | embedding, core, output, dropout, and their settings |
//! | [`storage`], [`hub`] | files that are whole or refused; the network, bounded |
//! | [`error`], [`readable`], `console`, [`signals`] | one error; numbers as people write them; what is printed; who asks to stop |

pub mod bench;
pub mod checkpoint;
pub mod command;
pub mod compress;
pub mod config;
pub(crate) mod console;
pub mod data;
pub mod digest;
pub mod error;
pub mod eval;
pub(crate) mod events;
pub mod export;
pub mod hub;
pub mod model;
pub mod parallel;
pub mod predict;
pub mod readable;
pub mod run;
pub mod sample;
pub mod signals;
pub mod storage;
pub mod study;
pub mod task;
pub mod train;
