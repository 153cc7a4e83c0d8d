//! Runs side by side: learning curves, tables, what differs. A run is known by its directory and its
//! `metrics.jsonl` alone, so live, finished and downloaded ones are treated alike.

pub mod compare;
pub mod curve;
pub mod differences;
pub mod markdown;
pub mod measure;
pub mod plot;
pub mod run;
pub mod seeds;

pub use compare::Comparison;
pub use measure::Measure;
pub use run::Run;
