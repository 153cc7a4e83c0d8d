//! Recurrent highway language models: train, evaluate, score and sample.

pub mod checkpoint;
pub mod config;
pub mod error;
pub mod metrics;
pub mod rng;
