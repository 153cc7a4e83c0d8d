//! The flags of evaluation that adapts to its text.

use crate::eval::adapt::{Adaptation, CacheSettings};

#[derive(Debug, clap::Args)]
pub(super) struct AdaptArgs {
    /// Divide the logits by X: above 1 the model is less sure
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Mix in a neural cache of the last N positions
    #[arg(long, value_name = "N", conflicts_with_all = ["mc", "protocol"])]
    cache: Option<usize>,
    /// How much more a past state counts that is like the present one [default: 1]
    #[arg(long, value_name = "X", requires = "cache", allow_negative_numbers = true)]
    cache_theta: Option<f64>,
    /// The cache's share of the probability [default: 0.1]
    #[arg(long, value_name = "X", requires = "cache", allow_negative_numbers = true)]
    cache_lambda: Option<f64>,
}

impl AdaptArgs {
    /// Whether each flag that decides what is on was given.
    pub(super) fn given(&self) -> [(&'static str, bool); 2] {
        [("--temperature", self.temperature.is_some()), ("--cache", self.cache.is_some())]
    }

    /// What was asked for, with the defaults of the rest.
    pub(super) fn settings(&self) -> Adaptation {
        let cache = self.cache.map(|window| {
            let usual = CacheSettings::new(window);
            CacheSettings {
                theta: self.cache_theta.unwrap_or(usual.theta),
                lambda: self.cache_lambda.unwrap_or(usual.lambda),
                ..usual
            }
        });
        Adaptation { temperature: self.temperature, cache }
    }
}
