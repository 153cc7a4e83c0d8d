//! The few operations that candle lacks or that decide the speed, each beside its slow twin in [`mod@reference`].

mod hidden_mask;
pub mod loss;
pub mod machine;
pub mod memory;
mod product;
pub mod profile;
mod real;
pub mod recurrence;
mod recurrence_cpu;
pub mod reference;
pub mod threads;
pub mod update;
