//! Monte-Carlo dropout (Gal and Ghahramani, 2016): probabilities averaged over passes with dropout on.
//!
//! Each pass draws every mask once for the whole split, the word mask as a single number; passes whose own
//! perplexity reaches 500 are rejected, as the authors of the recurrent highway network do. Then
//! perplexity = exp(mean over tokens of −ln p̄), p̄ the mean of p over the passes that are left.

use super::perplexity::{Evaluation, Progress, STREAM_STEPS, Split, finite};
use crate::config::train::DropoutConfig;
use crate::error::{Error, Result};
use crate::model::{Evaluator, LanguageModel, Noise, NoiseSource};
use candle_core::{Device, Tensor};
use rhn_kernels::rng::Rng;
use serde::Serialize;
use std::time::Instant;

/// A pass with this perplexity or more is rejected.
pub const REJECTED_PERPLEXITY: f64 = 500.0;

/// Passes that run side by side, as lanes with masks of their own.
const LANES: usize = 16;

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
    /// Of the averaged probabilities.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// Passes that ran.
    pub mc_passes: usize,
    /// Passes that were left out for a perplexity of 500 or more.
    pub mc_rejected: usize,
    /// What the masks were drawn from.
    pub mc_seed: u64,
}

/// Evaluates `split` with the masks of `dropout` on.
pub fn monte_carlo(
    model: &LanguageModel,
    split: &Split<'_>,
    dropout: &DropoutConfig,
    settings: MonteCarloSettings,
    progress: Progress<'_>,
) -> Result<MonteCarlo> {
    if settings.passes == 0 {
        return Err(Error::config("Monte-Carlo dropout needs at least 1 pass"));
    }
    let tokens = split.text.tokens.len().saturating_sub(1);
    if tokens == 0 {
        return Err(split.too_short("at least 2 are needed: the first is context, the second is predicted"));
    }
    let start = Instant::now();
    let mut mean = MeanProbability::new(tokens);
    let passes = Passes::new(model, split, dropout, settings.seed)?;
    let total = (settings.passes * tokens) as u64;
    let lanes = LANES.min(settings.passes).min((HELD / tokens).max(1));
    for first in (0..settings.passes).step_by(lanes) {
        let lanes = lanes.min(settings.passes - first);
        let done = (first * tokens) as u64;
        for pass in passes.run(first as u64, lanes, &mut |some| progress(done + some, total))? {
            mean.add(&pass);
        }
    }
    let nats = mean.nats()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(MonteCarlo {
        evaluation: Evaluation::new(split, "mc", nats, tokens as u64, seconds),
        mc_passes: settings.passes,
        mc_rejected: mean.rejected,
        mc_seed: settings.seed,
    })
}

/// What all passes share.
struct Passes<'a> {
    evaluator: Evaluator<'a>,
    split: &'a Split<'a>,
    masks: NoiseSource,
    word_rate: f64,
    seed: u64,
}

impl<'a> Passes<'a> {
    fn new(
        model: &'a LanguageModel,
        split: &'a Split<'a>,
        dropout: &DropoutConfig,
        seed: u64,
    ) -> Result<Self> {
        let by_type = DropoutConfig { word: 0.0, ..dropout.clone() }; // words are dropped in `masks`
        let masks =
            NoiseSource::new(model.config(), &by_type, seed, model.precision().dtype(), model.device());
        Ok(Self { evaluator: model.evaluator()?, split, masks, word_rate: dropout.word, seed })
    }

    /// Nats of each token in passes `first .. first + lanes`, which run side by side.
    fn run(
        &self,
        first: u64,
        lanes: usize,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Vec<Vec<f64>>> {
        let mut state = self.evaluator.model().zero_state(lanes)?;
        let predicted = self.split.text.tokens.len() - 1;
        let mut nats = vec![Vec::with_capacity(predicted); lanes];
        for start in (0..predicted).step_by(STREAM_STEPS) {
            let steps = STREAM_STEPS.min(predicted - start);
            let (inputs, targets) =
                (self.window(start, steps, lanes)?, self.window(start + 1, steps, lanes)?);
            let masks = self.masks(&inputs, first, start as u64)?;
            let (window, next) = self.evaluator.nats(&inputs, &targets, &state, &masks)?;
            for (at, value) in finite(&window, start, lanes)?.into_iter().enumerate() {
                nats[at % lanes].push(value);
            }
            state = next;
            progress((lanes * (start + steps)) as u64)?;
        }
        Ok(nats)
    }

    /// The same for every window of a pass, but where the model was trained with masks for each time step.
    fn masks(&self, inputs: &Tensor, first: u64, start: u64) -> Result<Noise> {
        let mut masks = self.masks.draw(inputs, first, (first << 40) + start)?;
        if self.word_rate > 0.0 {
            let (_, lanes) = inputs.dims2()?;
            let model = self.evaluator.model();
            let mut rng = Rng::keyed(self.seed, "monte_carlo.word", first);
            let scale = 1.0 / (1.0 - self.word_rate);
            let draw = |_| if rng.uniform() < self.word_rate { 0.0 } else { scale };
            let values: Vec<f64> = (0..lanes).map(draw).collect();
            let mask =
                Tensor::from_vec(values, (1, lanes, 1), &Device::Cpu)?.to_dtype(model.precision().dtype())?;
            masks.word = Some(mask.to_device(model.device())?);
        }
        Ok(masks)
    }

    /// `(time, batch)`: the same tokens in every lane.
    fn window(&self, start: usize, steps: usize, lanes: usize) -> Result<Tensor> {
        let mut column = vec![0u32; steps];
        self.split.text.tokens.copy_to(start, &mut column);
        let column = Tensor::from_vec(column, (steps, 1), self.evaluator.model().device())?;
        Ok(column.broadcast_as((steps, lanes))?.contiguous()?)
    }
}

/// ln (e^a + e^b): probabilities that no double holds are summed all the same.
fn ln_of_sum(a: f64, b: f64) -> f64 {
    let (less, more) = if a < b { (a, b) } else { (b, a) };
    more + (less - more).exp().ln_1p()
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
        self.logs.iter_mut().zip(nats).for_each(|(log, value)| *log = ln_of_sum(*log, -value));
    }

    /// The sum over tokens of −ln p̄.
    fn nats(&self) -> Result<f64> {
        if self.kept == 0 {
            return Err(Error::config(format!(
                "each of the {} passes had a perplexity of {REJECTED_PERPLEXITY} or more and was rejected: \
                 more passes, or a model that is trained longer, are needed",
                self.rejected
            )));
        }
        let kept = (self.kept as f64).ln();
        Ok(self.logs.iter().map(|log| kept - log).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unit;
    use crate::data::Encoded;
    use crate::eval::perplexity::stream;
    use crate::eval::tiny;

    fn split(text: &Encoded) -> Split<'_> {
        Split { corpus: "tiny", split: "test", unit: Unit::Char, text }
    }

    fn dropout() -> DropoutConfig {
        DropoutConfig { word: 0.25, input: 0.5, hidden: 0.25, output: 0.5, ..DropoutConfig::default() }
    }

    fn measure(
        model: &LanguageModel,
        text: &Encoded,
        dropout: &DropoutConfig,
        passes: usize,
        seed: u64,
    ) -> MonteCarlo {
        let settings = MonteCarloSettings { passes, seed };
        monte_carlo(model, &split(text), dropout, settings, &mut |_, _| Ok(())).unwrap()
    }

    #[test]
    fn probabilities_are_averaged_before_the_logarithm() {
        let mut mean = MeanProbability::new(2);
        mean.add(&[-(0.5f64.ln()), -(0.2f64.ln())]);
        mean.add(&[-(0.1f64.ln()), -(0.4f64.ln())]);
        let expected = -(0.3f64.ln()) - 0.3f64.ln(); // (0.5 + 0.1) / 2 and (0.2 + 0.4) / 2
        assert!((mean.nats().expect("two passes were kept") - expected).abs() < 1e-12);
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
        assert!((mean.nats().unwrap() - wanted).abs() < 1e-9);
    }

    #[test]
    fn a_pass_of_perplexity_500_is_counted_and_left_out() {
        let mut mean = MeanProbability::new(1);
        mean.add(&[501f64.ln()]);
        mean.add(&[2f64.ln()]);
        assert_eq!((mean.kept, mean.rejected), (1, 1));
        assert!((mean.nats().expect("one pass was kept") - 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn nothing_but_rejected_passes_is_an_error() {
        let mut mean = MeanProbability::new(1);
        mean.add(&[501f64.ln()]);
        assert!(mean.nats().is_err());
    }

    #[test]
    fn without_dropout_every_pass_is_the_stream() {
        let (text, types) = tiny::encoded(Unit::Char, &tiny::letters(STREAM_STEPS + 50));
        let model = tiny::drawn(types, 1.0);
        let found = measure(&model, &text, &DropoutConfig::default(), 3, 1).evaluation;
        let wanted = stream(&model, &split(&text), &mut |_, _| Ok(())).unwrap();
        assert!((found.perplexity - wanted.perplexity).abs() < 1e-10);
        assert_eq!((found.tokens, found.bytes), (wanted.tokens, wanted.bytes));
    }

    #[test]
    fn the_seed_decides_and_more_passes_than_lanes_all_count() {
        let (text, types) = tiny::encoded(Unit::Char, &tiny::letters(40));
        let model = tiny::drawn(types, 1.0);
        let perplexity =
            |passes, seed| measure(&model, &text, &dropout(), passes, seed).evaluation.perplexity;
        assert_eq!(perplexity(3, 1), perplexity(3, 1));
        assert_ne!(perplexity(3, 1), perplexity(3, 2));
        assert_ne!(perplexity(LANES, 1), perplexity(LANES + 1, 1));
    }

    #[test]
    fn averaging_passes_is_no_worse_than_a_pass_on_its_own_is_on_average() {
        // −ln of a mean is at most the mean of −ln
        let (text, types) = tiny::encoded(Unit::Char, &tiny::letters(60));
        let (model, text) = (tiny::drawn(types, 1.0), &text);
        let passes =
            Passes::new(&model, &split(text), &dropout(), 1).unwrap().run(0, 8, &mut |_| Ok(())).unwrap();
        let alone = passes.iter().flatten().sum::<f64>() / (8.0 * 59.0);
        assert!(measure(&model, text, &dropout(), 8, 1).evaluation.nats_per_token < alone);
    }

    #[test]
    fn the_word_mask_is_one_number_for_a_whole_pass() {
        let (text, types) = tiny::encoded(Unit::Char, &tiny::letters(40));
        let (model, split) = (tiny::drawn(types, 1.0), split(&text));
        let passes = Passes::new(&model, &split, &dropout(), 1).unwrap();
        let mask = |start| {
            let inputs = passes.window(start, 5, LANES).unwrap();
            let masks = passes.masks(&inputs, 0, start as u64).unwrap();
            masks.word.unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        assert_eq!(mask(0), mask(20));
        assert_eq!(mask(0).len(), LANES);
        assert!(mask(0).iter().all(|&scale| scale == 0.0 || scale == 1.0 / 0.75));
    }
}
