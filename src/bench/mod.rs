//! How fast this machine trains, evaluates and samples a recipe, and what share of its peak that is.

pub mod dry_run;
pub mod flops;
mod made_up;
pub mod measure;
pub mod rate;
pub mod report;
pub mod subject;
pub mod training;
