//! Monte-Carlo dropout (Gal and Ghahramani, 2016): probabilities averaged over passes with dropout on.
//!
//! Each pass draws every mask once for the whole split, the word mask as a single number; passes whose own
//! perplexity reaches 500 are rejected, as the authors of the recurrent highway network do. Then
//! perplexity = exp(mean over tokens of −ln p̄), p̄ the mean of p over the passes that are left. Each pass may have a neural
//! cache of its own, and all may read with weights that go on learning.

use super::Evaluation;
use super::adapt::{Adaptation, CachedText, Predictor, off_course};
use super::log_sum::ln_of_two;
use super::perplexity::{EvaluationProgress, Split, read_split};
use super::tally::Tally;
use crate::error::{Error, Result};
use crate::model::FrozenModel;
use crate::model::dropout::DropoutConfig;
use crate::predict::{DropoutPasses, PassesRead, Reader, STREAM_STEPS};
use candle_core::{DType, Device, Tensor};
use serde::Serialize;
use std::time::Instant;

/// A pass with this perplexity or more is rejected.
pub const REJECTED_PERPLEXITY: f64 = 500.0;

/// Passes that run side by side, as batch rows with masks of their own.
const SIDE_BY_SIDE: usize = 16;

/// Probabilities that may be held for passes under way: 256 MiB of them.
const HELD: usize = 1 << 25;

/// How many passes, and from which random numbers.
#[derive(Clone, Copy, Debug)]
pub struct MonteCarloSettings {
    /// Passes over the split.
    pub passes: usize,
    /// Fixes every mask.
    pub seed: u64,
}

/// An evaluation by averaged probabilities.
#[derive(Clone, Debug, Serialize)]
pub struct MonteCarlo {
    /// How well the averaged probabilities predict.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// Passes over each text.
    pub mc_passes: usize,
    /// Passes that were left out for a perplexity of 500 or more, of all texts.
    pub mc_rejected: usize,
    /// Texts that were each read by that many passes.
    #[serde(skip)]
    pub texts: usize,
    /// What the masks were drawn from.
    pub mc_seed: u64,
}

/// Evaluates `split` with the masks of `dropout` on, `adaptation` besides: weights that learn from what is read without
/// masks, a temperature, and for each pass a cache of its own states before the output's mask.
///
/// `model` fixes what is masked; `predictor` reads with it or with weights that go on learning.
pub fn monte_carlo(
    model: &FrozenModel,
    predictor: &mut dyn Predictor,
    split: &Split<'_>,
    dropout: &DropoutConfig,
    settings: MonteCarloSettings,
    adaptation: &Adaptation,
    progress: EvaluationProgress<'_>,
) -> Result<MonteCarlo> {
    if settings.passes == 0 {
        return Err(Error::config("Monte-Carlo dropout needs at least 1 pass"));
    }
    adaptation.validate()?;
    let tokens = split.text.tokens.len().saturating_sub(1);
    if tokens == 0 {
        return Err(split.too_short("at least 2 are needed: the first is context, the second is predicted"));
    }
    let start = Instant::now();
    let mut mean = MeanProbability::new(tokens);
    let total = (settings.passes * tokens) as u64;
    let at_once = SIDE_BY_SIDE.min((HELD / tokens).max(1));
    for first in (0..settings.passes).step_by(at_once) {
        let passes = first..settings.passes.min(first + at_once);
        let done = (first * tokens) as u64;
        let progress: EvaluationProgress<'_> = &mut |some, _| progress(done + some, total);
        let passes = DropoutPasses::new(model, dropout, settings.seed, passes)?;
        for pass in run(predictor, passes, split, adaptation, progress)? {
            mean.add(&pass);
        }
    }
    let nats = mean.nats()?;
    let row = split.stream(STREAM_STEPS)?;
    let mut tally = Tally::of_text(split.text, &row);
    tally.add(split.text, &row, 0, &nats);
    let seconds = start.elapsed().as_secs_f64();
    let evaluation = Evaluation::new(split, adaptation.monte_carlo_protocol(), tally, seconds);
    Ok(MonteCarlo {
        evaluation: Evaluation { adaptation: adaptation.clone(), ..evaluation },
        mc_passes: settings.passes,
        mc_rejected: mean.rejected,
        texts: 1,
        mc_seed: settings.seed,
    })
}

/// Nats of each token in `passes`, which run side by side.
fn run(
    predictor: &mut dyn Predictor,
    passes: DropoutPasses,
    split: &Split<'_>,
    adaptation: &Adaptation,
    progress: EvaluationProgress<'_>,
) -> Result<Vec<Vec<f64>>> {
    predictor.restart(adaptation)?;
    let row = split.stream(predictor.window())?;
    let device = predictor.device().clone();
    let mut nats = vec![Vec::with_capacity(row.predicted); passes.count()];
    let caches = (0..passes.count())
        .map(|_| adaptation.empty_cache(split.text.tokens.len()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    let temperature = adaptation.temperature.unwrap_or(1.0);
    let mut reader = PassReader { predictor, passes, caches, temperature };
    let mut add = |_: usize, window: &[f64]| {
        let rows = window.chunks(nats.len());
        rows.for_each(|row| nats.iter_mut().zip(row).for_each(|(pass, &value)| pass.push(value)));
    };
    let read = read_split(&mut reader, split, &row, &device, &mut add, progress);
    if adaptation.dynamic.is_some() {
        read.map_err(off_course)?
    } else {
        read?
    }
    Ok(nats)
}

/// Reads a text in several passes, each with its cache if there is one.
struct PassReader<'a> {
    predictor: &'a mut dyn Predictor,
    passes: DropoutPasses,
    /// One for each pass, or none.
    caches: Vec<CachedText>,
    temperature: f64,
}

impl Reader for PassReader<'_> {
    fn nats(&mut self, inputs: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let PassesRead { states, nats } =
            self.predictor.predict_with_dropout(&mut self.passes, inputs, targets, self.temperature)?;
        if self.caches.is_empty() {
            return Ok(nats);
        }
        let targets: Vec<u32> = targets.flatten_all()?.to_vec1()?;
        let mut columns = Vec::with_capacity(self.caches.len());
        for (pass, cache) in self.caches.iter_mut().enumerate() {
            let by_model = nats.narrow(1, pass, 1)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
            let states = states.narrow(1, pass, 1)?.squeeze(1)?.contiguous()?;
            let both = cache.nats(&states, &targets, by_model)?;
            columns.push(Tensor::from_vec(both, targets.len(), &Device::Cpu)?);
        }
        Ok(Tensor::stack(&columns, 1)?)
    }
}

/// Token probabilities summed over the passes that were not rejected.
struct MeanProbability {
    logs: Vec<f64>,
    kept: usize,
    rejected: usize,
}

impl MeanProbability {
    fn new(tokens: usize) -> Self {
        Self { logs: vec![f64::NEG_INFINITY; tokens], kept: 0, rejected: 0 }
    }

    /// Adds a pass, given its nats of each token.
    fn add(&mut self, nats: &[f64]) {
        let perplexity = (nats.iter().sum::<f64>() / nats.len() as f64).exp();
        if perplexity >= REJECTED_PERPLEXITY {
            self.rejected += 1;
            return;
        }
        self.kept += 1;
        self.logs.iter_mut().zip(nats).for_each(|(log, value)| *log = ln_of_two(*log, -value));
    }

    /// −ln p̄ of each token.
    fn nats(&self) -> Result<Vec<f64>> {
        if self.kept == 0 {
            return Err(Error::config(format!(
                "each of the {} passes had a perplexity of {REJECTED_PERPLEXITY} or more and was rejected: \
                 more passes, or a model that is trained longer, are needed",
                self.rejected
            )));
        }
        let kept = (self.kept as f64).ln();
        Ok(self.logs.iter().map(|log| kept - log).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unit;
    use crate::data::Encoded;
    use crate::eval::adapt::{CacheSettings, adapted};
    use crate::eval::perplexity::stream;
    use crate::predict::{WindowReader, tiny};

    fn split(text: &Encoded) -> Split<'_> {
        Split { corpus: "tiny", split: "test", unit: Unit::Char, text }
    }

    fn dropout() -> DropoutConfig {
        DropoutConfig { word: 0.25, input: 0.5, hidden: 0.25, output: 0.5, ..DropoutConfig::default() }
    }

    fn measure(
        model: &FrozenModel,
        text: &Encoded,
        dropout: &DropoutConfig,
        passes: usize,
        seed: u64,
    ) -> MonteCarlo {
        measure_adapted(model, text, dropout, [passes as u64, seed], &Adaptation::default())
    }

    fn measure_adapted(
        model: &FrozenModel,
        text: &Encoded,
        dropout: &DropoutConfig,
        [passes, seed]: [u64; 2],
        adaptation: &Adaptation,
    ) -> MonteCarlo {
        let settings = MonteCarloSettings { passes: passes as usize, seed };
        let predictor = &mut WindowReader::new(model, 1).unwrap();
        monte_carlo(model, predictor, &split(text), dropout, settings, adaptation, &mut |_, _| Ok(()))
            .unwrap()
    }

    #[test]
    fn probabilities_are_averaged_before_the_logarithm() {
        let mut mean = MeanProbability::new(2);
        mean.add(&[-(0.5f64.ln()), -(0.2f64.ln())]);
        mean.add(&[-(0.1f64.ln()), -(0.4f64.ln())]);
        let expected = -(0.3f64.ln()) - 0.3f64.ln(); // (0.5 + 0.1) / 2 and (0.2 + 0.4) / 2
        assert!((mean.nats().expect("two passes were kept").iter().sum::<f64>() - expected).abs() < 1e-12);
    }

    #[test]
    fn a_probability_that_underflows_in_every_pass_still_has_its_mean() {
        let mut mean = MeanProbability::new(300);
        for rare in [800.0, 801.0] {
            let mut nats = vec![1.0; 300];
            nats[7] = rare; // e^-800 is 0 in a double
            mean.add(&nats);
        }
        let wanted = 299.0 + 800.0 - ((1.0 + (-1f64).exp()) / 2.0).ln();
        assert!((mean.nats().unwrap().iter().sum::<f64>() - wanted).abs() < 1e-9);
    }

    #[test]
    fn a_pass_of_perplexity_500_is_counted_and_left_out() {
        let mut mean = MeanProbability::new(1);
        mean.add(&[501f64.ln()]);
        mean.add(&[2f64.ln()]);
        assert_eq!((mean.kept, mean.rejected), (1, 1));
        assert!((mean.nats().expect("one pass was kept")[0] - 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn nothing_but_rejected_passes_is_an_error() {
        let mut mean = MeanProbability::new(1);
        mean.add(&[501f64.ln()]);
        assert!(mean.nats().is_err());
    }

    #[test]
    fn without_dropout_every_pass_is_the_stream() {
        let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(STREAM_STEPS + 50));
        let model = tiny::drawn(vocab_size, 1.0);
        let found = measure(&model, &text, &DropoutConfig::default(), 3, 1).evaluation;
        let wanted = stream(&model, &split(&text), &mut |_, _| Ok(())).unwrap();
        assert!((found.perplexity.unwrap() - wanted.perplexity.unwrap()).abs() < 1e-10);
        assert_eq!((found.tokens, found.bytes), (wanted.tokens, wanted.bytes));
    }

    #[test]
    fn without_dropout_every_pass_with_a_cache_is_the_stream_with_it() {
        let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(STREAM_STEPS + 50));
        let model = tiny::drawn(vocab_size, 1.0);
        let cache = CacheSettings { window: 40, theta: 0.5, lambda: 0.3 };
        let adaptation = Adaptation { cache: Some(cache), temperature: Some(1.2), ..Adaptation::default() };
        let found = measure_adapted(&model, &text, &DropoutConfig::default(), [3, 1], &adaptation).evaluation;
        let predictor = &mut WindowReader::new(&model, 1).unwrap();
        let wanted = adapted(predictor, &split(&text), &adaptation, &mut |_, _| Ok(())).unwrap();
        assert!((found.perplexity.unwrap() - wanted.perplexity.unwrap()).abs() < 1e-10);
        assert_eq!(found.protocol, "mc+cache");
        let masked = measure_adapted(&model, &text, &dropout(), [3, 1], &adaptation).evaluation;
        assert_ne!(masked.perplexity, found.perplexity);
    }

    #[test]
    fn the_seed_decides_and_more_passes_than_fit_side_by_side_all_count() {
        let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(40));
        let model = tiny::drawn(vocab_size, 1.0);
        let perplexity =
            |passes, seed| measure(&model, &text, &dropout(), passes, seed).evaluation.perplexity.unwrap();
        assert_eq!(perplexity(3, 1), perplexity(3, 1));
        assert_ne!(perplexity(3, 1), perplexity(3, 2));
        assert_ne!(perplexity(SIDE_BY_SIDE, 1), perplexity(SIDE_BY_SIDE + 1, 1));
    }

    #[test]
    fn averaging_passes_is_no_worse_than_a_pass_on_its_own_is_on_average() {
        // −ln of a mean is at most the mean of −ln
        let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(60));
        let model = tiny::drawn(vocab_size, 1.0);
        let passes = DropoutPasses::new(&model, &dropout(), 1, 0..8).unwrap();
        let predictor = &mut WindowReader::new(&model, 1).unwrap();
        let passes =
            run(predictor, passes, &split(&text), &Adaptation::default(), &mut |_, _| Ok(())).unwrap();
        let alone = passes.iter().flatten().sum::<f64>() / (8.0 * 59.0);
        assert!(measure(&model, &text, &dropout(), 8, 1).evaluation.nats_per_token < alone);
    }
}
