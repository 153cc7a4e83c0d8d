//! Everything that needs no crate of its own: one binary to build, one to run. `cargo test --test it NAME` runs a module.
//!
//! Long forms are run by name: `cargo test --test it reliability -- --ignored`.

mod adaptive;
mod averaging;
mod bench;
mod checkpoint;
mod classify;
mod cli;
mod compress;
mod curve;
mod data;
mod distill;
mod divergence;
mod evaluate_steps;
mod everyday;
mod export;
mod fine_tuning;
mod fuzz_corpus;
mod gradcheck;
mod highway_lstm;
mod hub;
mod images;
mod judge;
mod languages;
mod large_corpora;
mod large_vocabulary;
mod late_reports;
mod learning;
mod lists;
mod masks;
mod mixture;
mod model_study;
mod mogrifier;
mod neighbours;
mod one_text;
mod packed;
#[cfg(feature = "serve")]
mod page;
mod parameters;
mod parity;
mod reliability;
mod rescore;
mod resume;
mod scored_lines;
#[cfg(feature = "serve")]
mod serve;
mod shell;
mod small_texts;
mod study;
mod supply_chain;
mod support;
mod techniques;
mod train;
mod training;
mod vae;
mod weight_drop;
