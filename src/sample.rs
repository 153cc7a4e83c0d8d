//! Text from a model: an iterator of tokens, each drawn from the filtered distribution and fed back.

pub mod distribution;
pub(crate) mod draws;
pub mod sentences;
pub(crate) mod stop;
pub(crate) mod text;

use crate::error::{Error, Result};
use crate::eval::adapt::{CacheSettings, CachedText};
use crate::model::FrozenModel;
use crate::predict::TokenReader;
use candle_core::Tensor;
use distribution::Filters;
use draws::Draws;

/// Time steps of a prompt that are read at once.
const PROMPT_STEPS: usize = 256;

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleSettings {
    /// What the model's distribution goes through before a token is drawn from it.
    pub filters: Filters,
    /// How many of the latest tokens, the prompt's included, the repetition penalty looks at.
    pub repetition_window: usize,
    /// How many of the first tokens that are read are no part of the text, say a line end that nobody wrote: the repetition
    /// penalty does not look at them.
    pub unwritten: usize,
    /// A token that is never drawn, say `<unk>`.
    pub forbidden: Option<u32>,
    /// A neural cache that is mixed in before the filters: what they take for logits is then the logarithms of the
    /// probabilities.
    pub cache: Option<CacheSettings>,
    /// Fixes every draw, together with the sample's index.
    pub seed: u64,
}

impl Default for SampleSettings {
    fn default() -> Self {
        Self {
            filters: Filters::default(),
            repetition_window: 256,
            unwritten: 0,
            forbidden: None,
            cache: None,
            seed: 1,
        }
    }
}

/// A token and how likely it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// The token's id.
    pub id: u32,
    /// Its −ln p under the model itself, with its cache and before any filter.
    pub nats: f64,
}

/// A text that grows by a token at each `next`, without end.
pub struct Sampler {
    reader: TokenReader,
    cache: Option<SamplerCache>,
    draws: Draws,
    pending: Option<u32>, // drawn but not yet read by the model
}

/// A cache, and what the next token is predicted from.
struct SamplerCache {
    text: CachedText,
    /// What the output layer saw last, `(1, hidden)`; none before anything was read.
    last: Option<Tensor>,
    /// Logarithms of the next token's probabilities.
    mixed: Vec<f64>,
}

impl SamplerCache {
    /// The model has read `tokens`, saw `states`, `(time, hidden)`, and gives `logits` for the next.
    fn read(&mut self, tokens: &[u32], states: &Tensor, logits: &[f64]) -> Result<()> {
        if let Some(last) = &self.last {
            self.text.enter(last, &tokens[..1])?;
        }
        let time = tokens.len();
        if time > 1 {
            self.text.enter(&states.narrow(0, 0, time - 1)?, &tokens[1..])?;
        }
        let last = states.narrow(0, time - 1, 1)?.contiguous()?;
        self.mixed.clear();
        self.mixed.extend_from_slice(logits);
        self.text.mix(&last, &mut self.mixed)?;
        self.last = Some(last);
        Ok(())
    }

    fn fork(&self) -> Result<Self> {
        Ok(Self { text: self.text.fork()?, last: self.last.clone(), mixed: self.mixed.clone() })
    }
}

impl Sampler {
    /// Sample number `index` of a model that has read `context`, which holds at least one token.
    ///
    /// # Errors
    /// If a setting is out of its range, or the model gives a logit that is not finite.
    pub fn new(model: &FrozenModel, settings: SampleSettings, context: &[u32], index: u64) -> Result<Self> {
        settings.filters.validate()?;
        if context.is_empty() {
            return Err(Error::config("a sample needs a token to start from"));
        }
        let reader = TokenReader::new(model)?;
        let empty = |cache| {
            let text = CachedText::new(cache)?;
            Ok::<_, Error>(SamplerCache { text, last: None, mixed: Vec::new() })
        };
        let cache = settings.cache.map(empty).transpose()?;
        let mut sampler = Self {
            reader: if cache.is_some() { reader.keep_states() } else { reader },
            cache,
            draws: Draws::new(settings, index),
            pending: None,
        };
        for window in context.chunks(PROMPT_STEPS) {
            sampler.read(window)?;
        }
        Ok(sampler)
    }

    /// The same text so far, to be continued by the draws of sample number `index`.
    pub fn fork(&self, index: u64) -> Result<Self> {
        Ok(Self {
            reader: self.reader.fork()?,
            cache: self.cache.as_ref().map(SamplerCache::fork).transpose()?,
            draws: self.draws.fork(index),
            pending: self.pending,
        })
    }

    /// The model reads `tokens`; the reader's logits are then about the token after them.
    fn read(&mut self, tokens: &[u32]) -> Result<()> {
        self.reader.read(tokens)?;
        tokens.iter().for_each(|&token| self.draws.remember(token));
        self.draws.check(self.reader.logits())?;
        self.read_cache(tokens)
    }

    fn read_cache(&mut self, tokens: &[u32]) -> Result<()> {
        match (&mut self.cache, self.reader.states()) {
            (Some(cache), Some(states)) => cache.read(tokens, states, self.reader.logits()),
            _ => Ok(()),
        }
    }

    fn draw(&mut self) -> Result<Drawn> {
        if let Some(token) = self.pending.take() {
            self.read(&[token])?;
        }
        let logits = match &self.cache {
            Some(cache) => &cache.mixed[..],
            None => self.reader.logits(),
        };
        let drawn = self.draws.draw(logits);
        self.pending = Some(drawn.id);
        Ok(drawn)
    }
}

impl Iterator for Sampler {
    type Item = Result<Drawn>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.draw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::side_by_side::Row;
    use crate::predict::tiny;

    fn draws(model: &FrozenModel, settings: SampleSettings, index: u64, count: usize) -> Vec<u32> {
        let sampler = Sampler::new(model, settings, &[0], index).unwrap();
        sampler.take(count).map(|drawn| drawn.unwrap().id).collect()
    }

    #[test]
    fn tokens_come_as_often_as_their_probability_says() {
        let probabilities = [0.5, 0.25, 0.125, 0.125];
        let ids = draws(&tiny::constant(&probabilities), SampleSettings::default(), 0, 4000);
        for (id, probability) in (0..).zip(probabilities) {
            let found = ids.iter().filter(|&&drawn| drawn == id).count() as f64 / 4000.0;
            assert!((found - probability).abs() < 0.04, "{found} is not {probability}"); // five standard deviations
        }
    }

    #[test]
    fn the_seed_and_the_samples_index_decide_every_draw() {
        let model = tiny::drawn(5, 1.0);
        let seeded = |seed| SampleSettings { seed, ..SampleSettings::default() };
        assert_eq!(draws(&model, seeded(1), 3, 50), draws(&model, seeded(1), 3, 50));
        assert_ne!(draws(&model, seeded(1), 3, 50), draws(&model, seeded(1), 4, 50));
        assert_ne!(draws(&model, seeded(1), 3, 50), draws(&model, seeded(2), 3, 50));
    }

    #[test]
    fn a_fork_goes_on_as_a_sample_of_its_own() {
        let model = tiny::drawn(5, 1.0);
        let first = Sampler::new(&model, SampleSettings::default(), &[0], 0).unwrap();
        let forked: Vec<u32> = first.fork(7).unwrap().take(20).map(|drawn| drawn.unwrap().id).collect();
        assert_eq!(forked, draws(&model, SampleSettings::default(), 7, 20));
    }

    #[test]
    fn what_is_drawn_is_fed_back_and_its_nats_are_the_models_own() {
        let model = tiny::drawn(5, 2.0);
        let filters = Filters { temperature: 0.5, top_k: 3, ..Filters::default() };
        let settings = SampleSettings { filters, ..SampleSettings::default() };
        let sampler = Sampler::new(&model, settings, &[0], 0).unwrap();
        let drawn: Vec<Drawn> = sampler.take(20).map(|drawn| drawn.unwrap()).collect();
        let ids: Vec<u32> = drawn.iter().map(|drawn| drawn.id).collect();
        let wanted = crate::eval::score::Scorer::new(&model, Some(0)).unwrap().nats(&ids).unwrap();
        let close = |(drawn, wanted): (&Drawn, Option<f64>)| (drawn.nats - wanted.unwrap()).abs() < 1e-9;
        assert!(drawn.iter().zip(wanted).all(close));
    }

    #[test]
    fn with_a_cache_the_nats_are_those_that_scoring_with_it_gives() {
        for vocabulary in [5, 40] {
            let model = tiny::drawn(vocabulary, 2.0);
            let cache = CacheSettings { window: 6, theta: 0.3, lambda: 0.4 };
            let settings = SampleSettings { cache: Some(cache), ..SampleSettings::default() };
            let first = Sampler::new(&model, settings, &[0, 3, 1, 2, 3], 0).unwrap();
            let drawn: Vec<Drawn> = first.fork(2).unwrap().take(30).map(|drawn| drawn.unwrap()).collect();
            let ids: Vec<u32> = drawn.iter().map(|drawn| drawn.id).collect();
            let scorer = crate::eval::score::Scorer::new(&model, Some(0)).unwrap();
            let mut scorer = scorer.with_cache(cache).unwrap();
            scorer.set_context(&Row { ids: &[3, 1, 2, 3], ..Row::default() }).unwrap();
            let wanted = scorer.nats(&ids).unwrap();
            let close = |(drawn, wanted): (&Drawn, Option<f64>)| (drawn.nats - wanted.unwrap()).abs() < 1e-9;
            assert!(drawn.iter().zip(wanted).all(close));
        }
    }

    #[test]
    fn a_token_that_nobody_wrote_is_not_penalized_until_it_is_drawn() {
        let model = tiny::constant(&[0.9, 0.1]);
        let first = |unwritten: usize, repetition_penalty: f64| {
            let filters = Filters { repetition_penalty, ..Filters::default() };
            let settings = SampleSettings { filters, unwritten, ..SampleSettings::default() };
            let begun = Sampler::new(&model, settings, &[0], 0).unwrap();
            (0..200).map(|index| begun.fork(index).unwrap().next().unwrap().unwrap().id).collect::<Vec<u32>>()
        };
        assert_eq!(first(1, 100.0), first(0, 1.0));
        assert_ne!(first(0, 100.0), first(0, 1.0));
    }

    #[test]
    fn a_forbidden_token_never_appears() {
        let settings = SampleSettings { forbidden: Some(0), ..SampleSettings::default() };
        assert!(!draws(&tiny::constant(&[0.98, 0.01, 0.01]), settings, 0, 100).contains(&0));
    }

    #[test]
    fn greedy_sampling_under_a_penalty_moves_on_from_what_it_drew() {
        let filters = Filters { temperature: 0.0, repetition_penalty: 1e6, ..Filters::default() };
        let settings = SampleSettings { filters, repetition_window: 2, ..SampleSettings::default() };
        // the context is 0; the two latest tokens are out, so the three likeliest follow each other
        assert_eq!(draws(&tiny::constant(&[0.4, 0.3, 0.2, 0.1]), settings, 0, 6), [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn weights_that_are_not_finite_stop_the_sample() {
        let model = tiny::constant(&[f64::NAN, 0.5]);
        let error = Sampler::new(&model, SampleSettings::default(), &[0], 0).err().unwrap();
        assert_eq!(error.exit_code(), 5);
    }
}
