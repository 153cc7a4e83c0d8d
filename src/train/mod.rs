//! How the weights are found: the step, the rate, the loop around them, and what is kept of it.

pub mod dry_run;
pub mod ledger;
pub mod optimizer;
pub mod progress;
pub mod saved;
pub mod schedule;
pub mod session;
pub mod signals;
pub mod step;
pub mod stop;
pub mod trainer;
