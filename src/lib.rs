//! Recurrent highway language models: train, evaluate, score and sample.

pub mod config;
pub mod error;
pub mod ops;
pub mod rng;
