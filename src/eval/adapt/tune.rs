//! The search for an adaptation's settings on the first tokens of the validation split, from the text's start each time.
//!
//! First the rate of dynamic evaluation, then its decay, a pass each; then one more pass gives the temperature, and θ and
//! λ of the cache at that temperature: all of these are computed from the same outputs.

use super::cache::{NeuralCache, ln_share};
use super::cached::mixed;
use super::predictor::Predictor;
use super::settings::{Adaptation, CacheSettings, DynamicSettings};
use crate::data::Tokens;
use crate::data::batch::Batches;
use crate::error::{Error, Result};
use crate::eval::EvaluationProgress;
use crate::eval::perplexity::finite;

/// Rates and decays for each five tokens of a segment, as dynamic evaluation's authors search them.
const RATES: [f64; 6] = [3e-5, 4e-5, 5e-5, 6e-5, 7e-5, 10e-5];
const DECAYS: [f64; 4] = [1e-3, 2e-3, 3e-3, 5e-3];
const THETAS: [f64; 10] = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0];
const LAMBDAS: [f64; 6] = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3];

/// Which settings are searched; the others stay as they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Free {
    /// The temperature.
    pub temperature: bool,
    /// The rate of dynamic evaluation.
    pub rate: bool,
    /// Its decay.
    pub decay: bool,
    /// The cache's θ.
    pub theta: bool,
    /// The cache's λ.
    pub lambda: bool,
}

/// What is searched on: a text's name, its tokens, and how many of them are predicted at most.
#[derive(Clone, Copy, Debug)]
pub struct SearchText<'a> {
    /// What errors call it.
    pub name: &'a str,
    /// All of its tokens.
    pub tokens: &'a Tokens,
    /// How many of them are predicted, from the second one on.
    pub most: usize,
}

/// Settings and what they came to.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What was on.
    pub adaptation: Adaptation,
    /// Mean −ln p of a token; infinite if a number was not finite.
    pub nats_per_token: f64,
}

/// The best of the settings that are free, beginning with those of `asked`; each trial is given to `report`.
///
/// # Errors
/// If there is nothing to search, a search gives no finite number, or `progress` ends it.
pub fn tune(
    predictor: &mut dyn Predictor,
    text: SearchText<'_>,
    asked: &Adaptation,
    free: Free,
    report: &mut dyn FnMut(&Trial),
    progress: EvaluationProgress<'_>,
) -> Result<Adaptation> {
    asked.validate()?;
    if !free.searches(asked) {
        return Err(Error::config("--tune has nothing to search: every setting that is used is given"));
    }
    let mut search = Search { predictor, text, report, progress };
    let mut best = asked.clone();
    if let Some(asked) = asked.dynamic.filter(|_| free.rate || free.decay) {
        best.dynamic = Some(search.dynamic(asked, asked_temperature(&best), free)?);
    }
    let free_cache = best.cache.filter(|_| free.theta || free.lambda);
    if free.temperature || free_cache.is_some() {
        best = search.outputs(best, free)?;
    }
    let predicted = text.tokens.len().saturating_sub(1).min(text.most);
    Ok(Adaptation { tuned_tokens: Some(predicted as u64), ..best })
}

fn asked_temperature(adaptation: &Adaptation) -> f64 {
    adaptation.temperature.unwrap_or(1.0)
}

/// 1 / 1.06 … 1 / 0.8: factors of the logits in steps of 0.02, as lamb has them.
fn temperatures() -> Vec<f64> {
    (0..14).map(|step| 100.0 / f64::from(106 - 2 * step)).collect()
}

struct Search<'a, 'b> {
    predictor: &'a mut dyn Predictor,
    text: SearchText<'a>,
    report: &'a mut dyn FnMut(&Trial),
    progress: EvaluationProgress<'b>,
}

/// What one pass gives for each of its tokens.
struct Pass {
    /// For each temperature the model's nats.
    nats: Vec<Vec<f64>>,
    /// For each θ the cache's ln p; none without a history.
    cache: Vec<Vec<Option<f64>>>,
}

impl Free {
    /// Whether anything of what `asked` uses is searched.
    fn searches(self, asked: &Adaptation) -> bool {
        let of_dynamic = asked.dynamic.is_some() && (self.rate || self.decay);
        self.temperature || of_dynamic || (asked.cache.is_some() && (self.theta || self.lambda))
    }
}

impl Search<'_, '_> {
    /// The best rate, then at that rate the best decay.
    fn dynamic(&mut self, asked: DynamicSettings, temperature: f64, free: Free) -> Result<DynamicSettings> {
        let scale = asked.segment as f64 / 5.0;
        let usual = DynamicSettings::default().decay * scale;
        let first = DynamicSettings { decay: if free.decay { usual } else { asked.decay }, ..asked };
        let rates = if free.rate { RATES.map(|rate| rate * scale).to_vec() } else { vec![asked.rate] };
        let mut best = (f64::INFINITY, first);
        for rate in rates {
            self.dynamic_trial(DynamicSettings { rate, ..first }, temperature, &mut best)?;
        }
        let decays = DECAYS.map(|decay| decay * scale).into_iter().filter(|&decay| decay != first.decay);
        for decay in decays.filter(|_| free.decay) {
            let settings = DynamicSettings { decay, ..best.1 };
            self.dynamic_trial(settings, temperature, &mut best)?;
        }
        if best.0.is_finite() { Ok(best.1) } else { Err(nothing_finite()) }
    }

    fn dynamic_trial(
        &mut self,
        settings: DynamicSettings,
        temperature: f64,
        best: &mut (f64, DynamicSettings),
    ) -> Result<()> {
        let adaptation = Adaptation { dynamic: Some(settings), ..Adaptation::default() };
        let nats_per_token = match self.pass(&adaptation, &[temperature], &[]) {
            Ok(pass) => mean(pass.nats[0].iter().copied()),
            Err(Error::NotFinite { .. }) => f64::INFINITY, // a rate that is too large for this model
            Err(error) => return Err(error),
        };
        self.trial(adaptation, nats_per_token);
        if nats_per_token < best.0 {
            *best = (nats_per_token, settings);
        }
        Ok(())
    }

    /// The best temperature, then at that temperature the best θ and λ.
    fn outputs(&mut self, asked: Adaptation, free: Free) -> Result<Adaptation> {
        let by_temperature = if free.temperature { temperatures() } else { vec![asked_temperature(&asked)] };
        let grid = |free: bool, all: &[f64], one: f64| if free { all.to_vec() } else { vec![one] };
        let thetas = asked.cache.map_or(vec![], |cache| grid(free.theta, &THETAS, cache.theta));
        let lambdas = asked.cache.map_or(vec![], |cache| grid(free.lambda, &LAMBDAS, cache.lambda));
        let pass = self.pass(&asked, &by_temperature, &thetas)?;
        let mut best = (f64::INFINITY, asked.clone(), &pass.nats[0]);
        for (&temperature, nats) in by_temperature.iter().zip(&pass.nats) {
            let temperature = if free.temperature { Some(temperature) } else { asked.temperature };
            let adaptation = Adaptation { temperature, cache: None, ..asked.clone() };
            let nats_per_token = mean(nats.iter().copied());
            self.trial(adaptation.clone(), nats_per_token);
            if nats_per_token < best.0 {
                best = (nats_per_token, adaptation, nats);
            }
        }
        let (_, at_temperature, nats) = best;
        let mut best = (f64::INFINITY, Adaptation { cache: asked.cache, ..at_temperature.clone() });
        for (&theta, by_cache) in thetas.iter().zip(&pass.cache) {
            for &lambda in &lambdas {
                let cache = asked.cache.map(|cache| CacheSettings { theta, lambda, ..cache });
                let both = nats.iter().zip(by_cache).map(|(&nats, &cache)| mixed(nats, cache, lambda));
                let adaptation = Adaptation { cache, ..at_temperature.clone() };
                let nats_per_token = mean(both);
                self.trial(adaptation.clone(), nats_per_token);
                if nats_per_token < best.0 {
                    best = (nats_per_token, adaptation);
                }
            }
        }
        Ok(best.1)
    }

    fn trial(&mut self, adaptation: Adaptation, nats_per_token: f64) {
        (self.report)(&Trial { adaptation, nats_per_token });
    }

    /// Reads the text once, by what `adaptation` says of the weights and of the cache's size.
    fn pass(&mut self, adaptation: &Adaptation, temperatures: &[f64], thetas: &[f64]) -> Result<Pass> {
        let SearchText { name, tokens, most } = self.text;
        self.predictor.restart(adaptation)?;
        let batches = Batches::stream(name, tokens.len().min(most + 1), self.predictor.window())?;
        let window = adaptation.cache.map_or(0, |cache| cache.window.min(batches.predicted));
        let mut cache = NeuralCache::new(window);
        let mut pass = Pass { nats: vec![vec![]; temperatures.len()], cache: vec![vec![]; thetas.len()] };
        for (index, (start, steps)) in batches.windows().enumerate() {
            let (inputs, targets) = batches.window(tokens, index, self.predictor.device())?;
            let found = self.predictor.predict(&inputs, &targets, temperatures)?;
            for (all, nats) in pass.nats.iter_mut().zip(&found.nats) {
                all.extend(finite(nats, start)?);
            }
            if !thetas.is_empty() {
                let shares = |seen: &[(f64, u32)], target: u32| -> Vec<f64> {
                    thetas.iter().map(|&theta| ln_share(seen, theta, |word| word == target)).collect()
                };
                for step in cache.read(&found.states, &targets.flatten_all()?.to_vec1()?, shares)? {
                    let by_theta = pass.cache.iter_mut().enumerate();
                    by_theta.for_each(|(at, all)| all.push(step.as_ref().map(|step| step[at])));
                }
            }
            (self.progress)((start + steps) as u64, batches.predicted as u64)?;
        }
        Ok(pass)
    }
}

fn mean(nats: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = nats.len() as f64;
    nats.sum::<f64>() / count
}

fn nothing_finite() -> Error {
    let what = "--tune: no rate of the grid gives a finite perplexity; give one with --dynamic-rate";
    Error::config(what)
}
