//! What an evaluation does beyond reading the text with the weights as they were trained, as flags and JSON name it.

use super::cached::CachedText;
use crate::error::{Error, Result};
use crate::model::UpdateGroup;
use serde::Serialize;

/// What is on; with nothing it is the plain `stream`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Adaptation {
    /// What the logits are divided by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Dynamic evaluation.
    #[serde(flatten)]
    pub dynamic: Option<DynamicSettings>,
    /// The neural cache.
    #[serde(flatten)]
    pub cache: Option<CacheSettings>,
    /// Tokens of the validation split on which some of it was searched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuned_tokens: Option<u64>,
}

/// Dynamic evaluation (Krause et al., 2017): see `dynamic.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DynamicSettings {
    /// The learning rate, η.
    #[serde(rename = "dynamic_rate")]
    pub rate: f64,
    /// How fast weights go back to what training made them, λ.
    #[serde(rename = "dynamic_decay")]
    pub decay: f64,
    /// What is added to a gradient's root mean square before it divides, ε.
    #[serde(rename = "dynamic_epsilon")]
    pub epsilon: f64,
    /// Tokens between two updates.
    pub segment: usize,
    /// Which weights are updated.
    #[serde(rename = "dynamic_update")]
    pub update: UpdateGroup,
}

impl Default for DynamicSettings {
    /// The authors', for an LSTM on words.
    fn default() -> Self {
        Self { rate: 5e-5, decay: 2e-3, epsilon: 2e-5, segment: 5, update: UpdateGroup::All }
    }
}

impl DynamicSettings {
    pub(super) fn validate(&self) -> Result<()> {
        for (flag, value) in [("dynamic-rate", self.rate), ("dynamic-decay", self.decay)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(refuse(flag, value, "a number of at least 0"));
            }
        }
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(refuse("dynamic-epsilon", self.epsilon, "a number above 0"));
        }
        if self.segment == 0 {
            return Err(refuse("segment", 0, "at least 1 token"));
        }
        Ok(())
    }
}

/// A neural cache (Grave et al., 2017): see `cache.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CacheSettings {
    /// How many past positions are kept.
    #[serde(rename = "cache")]
    pub window: usize,
    /// How much more a state counts that is like the present one: the factor of their product.
    #[serde(rename = "cache_theta")]
    pub theta: f64,
    /// The cache's share of the probability.
    #[serde(rename = "cache_lambda")]
    pub lambda: f64,
}

impl CacheSettings {
    /// The authors' θ and λ for words of the Penn Treebank and an LSTM of 400 units.
    pub fn new(window: usize) -> Self {
        Self { window, theta: 1.0, lambda: 0.1 }
    }

    /// Refuses numbers that mean nothing; names the flag.
    pub(crate) fn validate(&self) -> Result<()> {
        if self.window == 0 {
            return Err(refuse("cache", 0, "at least 1 position"));
        }
        if !(self.theta >= 0.0 && self.theta.is_finite()) {
            return Err(refuse("cache-theta", self.theta, "a number of at least 0"));
        }
        if !(0.0..1.0).contains(&self.lambda) {
            return Err(refuse("cache-lambda", self.lambda, "at least 0 and less than 1"));
        }
        Ok(())
    }
}

impl Adaptation {
    /// A temperature alone; at 1 nothing is on.
    pub(crate) fn at_temperature(temperature: f64) -> Result<Self> {
        let given = Self { temperature: Some(temperature), ..Self::default() };
        given.validate()?;
        Ok(if temperature == 1.0 { Self::default() } else { given })
    }

    /// A cache that has seen nothing of a text of `tokens` yet, if there is to be one.
    pub(in crate::eval) fn empty_cache(&self, tokens: usize) -> Result<Option<CachedText>> {
        let empty = |settings: CacheSettings| {
            CachedText::new(CacheSettings { window: settings.window.min(tokens.max(1)), ..settings })
        };
        self.cache.map(empty).transpose()
    }

    /// What reports call it.
    pub fn protocol(&self) -> &'static str {
        match (self.dynamic.is_some(), self.cache.is_some()) {
            (false, false) => "stream",
            (true, false) => "dynamic",
            (false, true) => "cache",
            (true, true) => "dynamic+cache",
        }
    }

    /// The same of probabilities that are averaged over passes with dropout.
    pub fn monte_carlo_protocol(&self) -> &'static str {
        match (self.dynamic.is_some(), self.cache.is_some()) {
            (false, false) => "mc",
            (true, false) => "mc+dynamic",
            (false, true) => "mc+cache",
            (true, true) => "mc+dynamic+cache",
        }
    }

    /// Refuses numbers that mean nothing; names the flag.
    pub fn validate(&self) -> Result<()> {
        match self.temperature {
            Some(temperature) if !(temperature > 0.0 && temperature.is_finite()) => {
                return Err(refuse("temperature", temperature, "a number above 0"));
            }
            _ => {}
        }
        self.dynamic.iter().try_for_each(DynamicSettings::validate)?;
        self.cache.iter().try_for_each(CacheSettings::validate)
    }
}

fn refuse(flag: &str, found: impl std::fmt::Display, wanted: &str) -> Error {
    Error::config(format!("--{flag} is {found}, wanted {wanted}"))
}
