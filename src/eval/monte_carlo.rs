//! Monte-Carlo dropout (Gal and Ghahramani, 2016): probabilities averaged over passes with dropout on.
//!
//! Each pass draws every mask once for the whole split, the word mask as a single number; passes whose own
//! perplexity reaches 500 are rejected, as the authors of the recurrent highway network do. Then
//! perplexity = exp(mean over tokens of −ln p̄), p̄ the mean of p over the passes that are left.

use super::perplexity::{Evaluation, Progress, STREAM_STEPS, Split, finite};
use crate::config::train::{DropoutConfig, DropoutKind};
use crate::error::{Error, Result};
use crate::model::{LanguageModel, Masks};
use candle_core::Tensor;
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
    let lanes = LANES.min(settings.passes).min((HELD / tokens).max(1));
    for first in (0..settings.passes).step_by(lanes) {
        let group = Group { first, lanes: lanes.min(settings.passes - first), seed: settings.seed };
        let done = first as u64 * tokens as u64;
        let total = settings.passes as u64 * tokens as u64;
        group.run(model, split, dropout, &mut mean, &mut |step| progress(done + step, total))?;
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

/// Passes `first ..first + lanes`, side by side.
struct Group {
    first: usize,
    lanes: usize,
    seed: u64,
}

impl Group {
    fn run(
        &self,
        model: &LanguageModel,
        split: &Split<'_>,
        dropout: &DropoutConfig,
        mean: &mut MeanProbability,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let evaluator = model.evaluator()?;
        let mut state = model.zero_state(self.lanes)?;
        let predicted = mean.sums.len();
        let mut nats = vec![Vec::with_capacity(predicted); self.lanes];
        let mut masks = self.masks(model, dropout, 1, 0)?;
        for start in (0..predicted).step_by(STREAM_STEPS) {
            let steps = STREAM_STEPS.min(predicted - start);
            if dropout.kind == DropoutKind::PerStep {
                masks = self.masks(model, dropout, steps, start)?;
            }
            let (inputs, targets) = (self.window(model, split, start, steps)?, self.window(model, split, start + 1, steps)?);
            let (window, next) = evaluator.nats(&inputs, &targets, &state, &masks)?;
            for (at, value) in finite(&window, start, self.lanes)?.into_iter().enumerate() {
                nats[at % self.lanes].push(value);
            }
            state = next;
            progress((self.lanes * (start + steps)) as u64);
        }
        nats.iter().for_each(|pass| mean.add(pass));
        Ok(())
    }

    /// The masks of these passes; `start` matters only where masks differ from step to step.
    fn masks(&self, model: &LanguageModel, dropout: &DropoutConfig, steps: usize, start: usize) -> Result<Masks> {
        let position = ((self.first as u64) << 40) + start as u64;
        Masks::draw_for_passes(model, dropout, steps, self.lanes, self.seed, position)
    }

    /// `(time, batch)`: the same tokens in every lane.
    fn window(&self, model: &LanguageModel, split: &Split<'_>, start: usize, steps: usize) -> Result<Tensor> {
        let mut column = vec![0u32; steps];
        split.text.tokens.copy_to(start, &mut column);
        let column = Tensor::from_vec(column, (steps, 1), model.device())?;
        Ok(column.broadcast_as((steps, self.lanes))?.contiguous()?)
    }
}

/// Token probabilities summed over the passes that were not rejected.
struct MeanProbability {
    sums: Vec<f64>,
    kept: usize,
    rejected: usize,
}

impl MeanProbability {
    fn new(tokens: usize) -> Self {
        Self { sums: vec![0.0; tokens], kept: 0, rejected: 0 }
    }

    /// Adds a pass, given its nats of each token.
    fn add(&mut self, nats: &[f64]) {
        let perplexity = (nats.iter().sum::<f64>() / nats.len() as f64).exp();
        if perplexity >= REJECTED_PERPLEXITY {
            self.rejected += 1;
            return;
        }
        self.kept += 1;
        self.sums.iter_mut().zip(nats).for_each(|(sum, value)| *sum += (-value).exp());
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
        Ok(self.sums.iter().map(|sum| -(sum / self.kept as f64).ln()).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::MeanProbability;

    #[test]
    fn probabilities_are_averaged_before_the_logarithm() {
        let mut mean = MeanProbability::new(2);
        mean.add(&[-(0.5f64.ln()), -(0.2f64.ln())]);
        mean.add(&[-(0.1f64.ln()), -(0.4f64.ln())]);
        let expected = -(0.3f64.ln()) - 0.3f64.ln(); // (0.5 + 0.1) / 2 and (0.2 + 0.4) / 2
        assert!((mean.nats().expect("two passes were kept") - expected).abs() < 1e-12);
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
}
