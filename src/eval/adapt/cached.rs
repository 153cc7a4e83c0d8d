//! A neural cache beside a model: what it makes of the model's probabilities as a text is read.

use super::cache::{NeuralCache, ln_share};
use super::settings::CacheSettings;
use crate::error::Result;
use crate::eval::log_sum::{ln_of_sum, ln_of_two};
use crate::eval::score::Cost;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// A cache with its settings, and what it has seen of a text.
pub struct CachedText {
    settings: CacheSettings,
    cache: NeuralCache,
}

impl CachedText {
    /// Nothing is read yet.
    ///
    /// # Errors
    /// If a setting cannot be used.
    pub fn new(settings: CacheSettings) -> Result<Self> {
        settings.validate()?;
        Ok(Self { settings, cache: NeuralCache::new(settings.window) })
    }

    /// The same text so far, with memory of its own.
    pub fn fork(&self) -> Result<Self> {
        Ok(Self { settings: self.settings, cache: self.cache.copy()? })
    }

    /// −ln p of each target with the cache, where the model alone gives `by_model`; then the positions enter.
    /// `states`: what the output layer saw, `(time, hidden)`.
    pub fn nats(&mut self, states: &Tensor, targets: &[u32], by_model: Vec<f64>) -> Result<Vec<f64>> {
        let theta = self.settings.theta;
        let by_cache =
            self.cache.read(states, targets, |seen, target| ln_share(seen, theta, |word| word == target))?;
        let lambda = self.settings.lambda;
        Ok(by_model.into_iter().zip(by_cache).map(|(nats, cache)| mixed(nats, cache, lambda)).collect())
    }

    /// As [`CachedText::nats`], of what the targets and the members of `set` cost.
    pub fn costs(
        &mut self,
        states: &Tensor,
        targets: &[u32],
        by_model: Vec<Cost>,
        set: Option<&[bool]>,
    ) -> Result<Vec<Cost>> {
        let theta = self.settings.theta;
        let is_in = |word: u32| set.is_some_and(|set| set.get(word as usize) == Some(&true));
        let by_cache = self.cache.read(states, targets, |seen, target| {
            [ln_share(seen, theta, |word| word == target), ln_share(seen, theta, is_in)]
        })?;
        let lambda = self.settings.lambda;
        let both = |(cost, cache): (Cost, Option<[f64; 2]>)| Cost {
            nats: mixed(cost.nats, cache.map(|[target, _]| target), lambda),
            set_nats: match set {
                None => cost.set_nats,
                Some(_) => mixed(cost.set_nats, cache.map(|[_, set]| set), lambda),
            },
        };
        Ok(by_model.into_iter().zip(by_cache).map(both).collect())
    }

    /// The positions enter: after each row of `states`, `(time, hidden)`, came the word beside it.
    pub fn enter(&mut self, states: &Tensor, words: &[u32]) -> Result<()> {
        self.cache.enter(states, words)
    }

    /// Logits of the word after `state`, `(1, hidden)`, become the logarithms of its probabilities with the cache.
    pub fn mix(&self, state: &Tensor, logits: &mut [f64]) -> Result<()> {
        let seen = self.cache.seen(state)?;
        let CacheSettings { theta, lambda, .. } = self.settings;
        let share = if seen.is_empty() { 1.0 } else { 1.0 - lambda };
        let sum = ln_of_sum(logits.iter().copied()) - share.ln();
        logits.iter_mut().for_each(|logit| *logit -= sum);
        if seen.is_empty() {
            return Ok(());
        }
        let mut by_word: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for &(product, word) in &seen {
            by_word.entry(word).or_default().push(theta * product);
        }
        let all = ln_of_sum(seen.iter().map(|&(product, _)| theta * product));
        for (word, products) in by_word {
            if let Some(logit) = logits.get_mut(word as usize) {
                *logit = ln_of_two(*logit, lambda.ln() + ln_of_sum(products.into_iter()) - all);
            }
        }
        Ok(())
    }
}

/// −ln ((1 − λ) p + λ p_cache), from the model's −ln p and the cache's ln p_cache; a cache without a history is not mixed
/// in. With λ = 0 it is the model's to the bit.
pub(super) fn mixed(nats: f64, cache: Option<f64>, lambda: f64) -> f64 {
    cache.map_or(nats, |cache| -ln_of_two((1.0 - lambda).ln() - nats, lambda.ln() + cache))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_distribution_has_for_each_word_what_that_words_nats_say() {
        let settings = CacheSettings { window: 3, theta: 0.7, lambda: 0.3 };
        let states = Tensor::new(&[[1.0, 0.5], [0.2, -1.0], [2.0, 0.1], [0.9, 0.9]], &Device::Cpu).unwrap();
        let mut read = CachedText::new(settings).unwrap();
        read.enter(&states, &[2, 0, 2, 1]).unwrap();
        let now = Tensor::new(&[[0.4, 0.6]], &Device::Cpu).unwrap();
        let logits = [0.3, -1.0, 2.0, 0.0];
        let mut mixed = logits;
        read.mix(&now, &mut mixed).unwrap();
        assert!((mixed.iter().map(|x| x.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
        let sum = ln_of_sum(logits.iter().copied());
        for (word, found) in (0..).zip(mixed) {
            let nats = sum - logits[word as usize];
            let wanted = read.fork().unwrap().nats(&now, &[word], vec![nats]).unwrap()[0];
            assert!((found + wanted).abs() < 1e-12, "{word}");
        }
    }

    #[test]
    fn a_set_of_one_word_costs_what_the_word_does() {
        let settings = CacheSettings { window: 5, theta: 0.7, lambda: 0.3 };
        let states = Tensor::new(&[[1.0, 0.5], [0.2, -1.0], [2.0, 0.1]], &Device::Cpu).unwrap();
        let by_model = vec![Cost { nats: 1.5, set_nats: 1.5 }; 3];
        let found = CachedText::new(settings)
            .unwrap()
            .costs(&states, &[1, 1, 1], by_model, Some(&[false, true]))
            .unwrap();
        assert!(found.iter().all(|cost| cost.nats == cost.set_nats));
        assert!(found[0].nats == 1.5 && found[2].nats < 1.5);
    }

    #[test]
    fn of_a_cache_that_has_seen_nothing_come_the_models_own_probabilities() {
        let read = CachedText::new(CacheSettings::new(4)).unwrap();
        let mut logits = [0.5, 2.0];
        read.mix(&Tensor::new(&[[1.0, 2.0]], &Device::Cpu).unwrap(), &mut logits).unwrap();
        let sum = 0.5f64.exp() + 2f64.exp();
        let wanted = [0.5f64.exp() / sum, 2f64.exp() / sum];
        assert!(logits.iter().zip(wanted).all(|(found, wanted)| (found.exp() - wanted).abs() < 1e-15));
    }
}
