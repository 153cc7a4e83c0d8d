//! Recurrent highway language models: train, evaluate, score and sample.

pub mod config;
pub mod error;
pub mod model;
pub mod ops;
pub mod rng;
