//! Runs side by side: learning curves, tables, what differs. A run is known by its directory and its
//! `metrics.jsonl` alone, so live, finished and downloaded ones are treated alike.
//!
//! And studies of a trained model: `estimate`, `lesion`, with their results in a `directory`.

pub(crate) mod compare;
pub(crate) mod curve;
pub(crate) mod differences;
pub(crate) mod directory;
pub(crate) mod estimate;
pub(crate) mod gates;
pub(crate) mod kept;
pub(crate) mod lesion;
pub(crate) mod markdown;
pub(crate) mod measure;
pub(crate) mod overview;
pub(crate) mod plot;
pub(crate) mod run;
pub(crate) mod seeds;

pub(crate) use compare::Comparison;
pub(crate) use measure::{Item, Measure};
pub(crate) use run::RunHistory;
