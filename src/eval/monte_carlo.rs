//! Monte-Carlo dropout (Gal and Ghahramani, 2016): probabilities averaged over passes with dropout on.
//!
//! Each pass draws every mask once for the whole split, the word mask as a single number; passes whose own
//! perplexity reaches 500 are rejected, as the authors of the recurrent highway network do. Then
//! perplexity = exp(mean over tokens of −ln p̄), p̄ the mean of p over the passes that are left.

use super::Evaluation;
use super::adapt::Adaptation;
use super::log_sum::ln_of_two;
use super::perplexity::{EvaluationProgress, Split, read_split};
use super::tally::Tally;
use crate::error::{Error, Result};
use crate::model::FrozenModel;
use crate::model::dropout::DropoutConfig;
use crate::predict::{DropoutReader, STREAM_STEPS};
use serde::Serialize;
use std::ops::Range;
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
    /// What the logits are divided by.
    pub temperature: f64,
}

/// An evaluation by averaged probabilities.
#[derive(Clone, Debug, Serialize)]
pub struct MonteCarlo {
    /// How well the averaged probabilities predict.
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
    model: &FrozenModel,
    split: &Split<'_>,
    dropout: &DropoutConfig,
    settings: MonteCarloSettings,
    progress: EvaluationProgress<'_>,
) -> Result<MonteCarlo> {
    if settings.passes == 0 {
        return Err(Error::config("Monte-Carlo dropout needs at least 1 pass"));
    }
    let adaptation = Adaptation::at_temperature(settings.temperature)?;
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
        for pass in run(model, split, dropout, settings, passes, progress)? {
            mean.add(&pass);
        }
    }
    let nats = mean.nats()?;
    let row = split.stream(STREAM_STEPS)?;
    let mut tally = Tally::of_text(split.text, &row);
    tally.add(split.text, &row, 0, &nats);
    let evaluation = Evaluation::new(split, "mc", tally, start.elapsed().as_secs_f64());
    Ok(MonteCarlo {
        evaluation: Evaluation { adaptation, ..evaluation },
        mc_passes: settings.passes,
        mc_rejected: mean.rejected,
        mc_seed: settings.seed,
    })
}

/// Nats of each token in `passes`, which run side by side.
fn run(
    model: &FrozenModel,
    split: &Split<'_>,
    dropout: &DropoutConfig,
    settings: MonteCarloSettings,
    passes: Range<usize>,
    progress: EvaluationProgress<'_>,
) -> Result<Vec<Vec<f64>>> {
    let row = split.stream(STREAM_STEPS)?;
    let mut nats = vec![Vec::with_capacity(row.predicted); passes.len()];
    let reader = DropoutReader::new(model, dropout, settings.seed, passes)?;
    let mut reader = reader.at_temperature(settings.temperature);
    let mut add = |_: usize, window: &[f64]| {
        let rows = window.chunks(nats.len());
        rows.for_each(|row| nats.iter_mut().zip(row).for_each(|(pass, &value)| pass.push(value)));
    };
    read_split(&mut reader, split, &row, model.device(), &mut add, progress)?;
    Ok(nats)
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
    use crate::eval::perplexity::stream;
    use crate::predict::tiny;

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
        let settings = MonteCarloSettings { passes, seed, temperature: 1.0 };
        monte_carlo(model, &split(text), dropout, settings, &mut |_, _| Ok(())).unwrap()
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
        assert!((found.perplexity - wanted.perplexity).abs() < 1e-10);
        assert_eq!((found.tokens, found.bytes), (wanted.tokens, wanted.bytes));
    }

    #[test]
    fn the_seed_decides_and_more_passes_than_fit_side_by_side_all_count() {
        let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(40));
        let model = tiny::drawn(vocab_size, 1.0);
        let perplexity =
            |passes, seed| measure(&model, &text, &dropout(), passes, seed).evaluation.perplexity;
        assert_eq!(perplexity(3, 1), perplexity(3, 1));
        assert_ne!(perplexity(3, 1), perplexity(3, 2));
        assert_ne!(perplexity(SIDE_BY_SIDE, 1), perplexity(SIDE_BY_SIDE + 1, 1));
    }

    #[test]
    fn averaging_passes_is_no_worse_than_a_pass_on_its_own_is_on_average() {
        // −ln of a mean is at most the mean of −ln
        let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(60));
        let model = tiny::drawn(vocab_size, 1.0);
        let settings = MonteCarloSettings { passes: 8, seed: 1, temperature: 1.0 };
        let passes = run(&model, &split(&text), &dropout(), settings, 0..8, &mut |_, _| Ok(())).unwrap();
        let alone = passes.iter().flatten().sum::<f64>() / (8.0 * 59.0);
        assert!(measure(&model, &text, &dropout(), 8, 1).evaluation.nats_per_token < alone);
    }
}
