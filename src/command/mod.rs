//! The commands.

pub mod data;
