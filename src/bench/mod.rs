//! How fast this machine trains, evaluates and samples a recipe, and what share of its peak that is.

pub(crate) mod dry_run;
pub(crate) mod flops;
mod made_up;
pub mod measure;
pub(crate) mod report;
pub(crate) mod speed;
pub mod subject;
pub(crate) mod training;
