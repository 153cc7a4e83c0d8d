//! How the weights are found: the step, the learning rate, the loop around them, and what a run saves.
//!
//! The way of a step: [`trainer`] asks the [`task`] for the next batch, [`step`] asks the [`objective`] for its loss, and
//! [`update`] changes the weights. The loop knows no screen and no file; its events and files go to a
//! [`recorder`]. A new hyper-parameter is a field of `config/train.rs` and the line that reads it.

pub mod averaging;
pub mod divergence;
pub mod limits;
pub mod objective;
pub mod recorder;
pub mod resume;
pub mod schedule;
pub mod state;
pub mod step;
pub mod task;
pub mod trainer;
pub mod update;
pub mod watched;
