//! The operations that candle lacks or that decide the speed: one folder an operation, with its equation, its
//! reference in plain tensor operations, its CPU side and its CUDA side.
//!
//! | module | what it computes |
//! | --- | --- |
//! | [`scan`] | a recurrence over a whole window: RHN, LSTM, GRU |
//! | [`feed_forward`] | a stack of highway or plain layers, forward and backward in one operation |
//! | [`linear`], [`softmax`] | products with weights; the output layer and its loss |
//! | [`embedding`], [`char_cnn`], [`highway`] | tokens and characters to vectors |
//! | [`sequences`] | sequences of different lengths: from their ends, and their maximum |
//! | [`dropout`], [`update`] | masks; gradient norms and optimizer updates |
//! | [`gradients`] | back through a loss, without candle's copies of large gradients |
//! | [`cpu`] | instruction sets, register tiles, packed panels, threads |
//! | [`precision`], [`rng`], [`threads`], [`memory`], [`profile`], [`peak`] | what all of them share |
//!
//! This package knows no model. It is the only one with `unsafe` code.

mod backend;
pub mod char_cnn;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod dropout;
pub mod embedding;
pub mod error;
pub mod feed_forward;
pub mod gradients;
pub mod highway;
pub mod linear;
pub mod memory;
pub mod peak;
pub mod precision;
pub mod profile;
pub mod rng;
mod saved;
pub mod scan;
pub mod sequences;
pub mod softmax;
pub mod threads;
pub mod update;

pub use error::{Error, Result};
