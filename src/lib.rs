//! Recurrent highway language models: train, evaluate, score and sample.

pub mod command;
pub mod config;
pub mod data;
pub mod error;
pub mod rng;
