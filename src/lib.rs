//! Recurrent highway language models: train, evaluate, score and sample.

pub mod checkpoint;
pub mod command;
pub mod config;
pub mod data;
pub mod error;
pub mod eval;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod rng;
pub mod sample;
