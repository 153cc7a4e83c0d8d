//! The few operations that candle lacks or that decide the speed, each beside its slow twin in [`mod@reference`].

pub mod char_cnn;
pub mod control;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod embedding;
mod filters;
pub mod geometry;
mod hidden_mask;
pub mod highway;
pub mod linear;
pub mod loss;
pub mod lstm;
pub mod machine;
pub mod masks;
pub mod memory;
pub mod precision;
pub mod profile;
mod real;
pub mod recurrence;
pub mod reference;
pub mod rows;
pub mod steps;
pub mod threads;
pub mod update;
mod window;
