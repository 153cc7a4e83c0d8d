//! Neural cache (Grave et al., 2017): which words came lately after states like the present one.
//!
//! ```text
//! p_cache(w) ∝ Σ_{i in the last N positions} exp(θ h_t · h_i) [w_{i+1} = w]      p = (1 − λ) p_model + λ p_cache
//! ```
//!
//! h is what the output layer sees, before dropout and not normalized. A position enters after its word was predicted,
//! and whatever history there is counts, from the second word on.

use super::super::log_sum::ln_of_sum;
use crate::error::Result;
use candle_core::{DType, Tensor};
use rhn_kernels::linear::{Stored, linear};

/// The last positions of a text: states in a ring of rows, and the words that followed them.
pub(super) struct NeuralCache {
    window: usize,
    /// `(rows, hidden)`, of which the first are filled: as many rows as there were states so far and room for as many more, at
    /// most `window`. None before the first block is read.
    states: Option<Tensor>,
    /// The word after each state.
    words: Vec<u32>,
    /// The row that is written next, once all are filled.
    oldest: usize,
}

impl NeuralCache {
    /// An empty cache of `window` positions.
    pub(super) fn new(window: usize) -> Self {
        Self { window, states: None, words: Vec::new(), oldest: 0 }
    }

    /// For each position of a block what `of` makes of the positions in the cache, each the product of its state with the
    /// present one and the word that followed it, and of the present target; none without a history. Then the block's
    /// positions enter. `states`: `(time, hidden)`.
    pub(super) fn read<R>(
        &mut self,
        states: &Tensor,
        targets: &[u32],
        of: impl Fn(&[(f64, u32)], u32) -> R,
    ) -> Result<Vec<Option<R>>> {
        let filled = self.words.len();
        let past = self.past(states)?;
        let block = products(states, states)?;
        let mut found = Vec::with_capacity(targets.len());
        let mut seen = Vec::new();
        for (step, (past, block)) in past.iter().zip(&block).enumerate() {
            let dropped = (filled + step).saturating_sub(self.window);
            let rows = (dropped..filled).map(|age| (self.oldest + age) % filled.max(1));
            seen.clear();
            seen.extend(rows.map(|row| (past[row], self.words[row])));
            let of_block = dropped.saturating_sub(filled)..step;
            seen.extend(of_block.map(|before| (block[before], targets[before])));
            found.push((!seen.is_empty()).then(|| of(&seen, targets[step])));
        }
        self.enter(states, targets)?;
        Ok(found)
    }

    /// The positions in the cache beside `state`, `(1, hidden)`: products and words.
    pub(super) fn seen(&self, state: &Tensor) -> Result<Vec<(f64, u32)>> {
        let products = self.past(state)?.swap_remove(0);
        Ok(products.into_iter().zip(self.words.iter().copied()).collect())
    }

    /// The same positions with memory of their own.
    pub(super) fn copy(&self) -> Result<Self> {
        let states = self.states.as_ref().map(Tensor::copy).transpose()?;
        Ok(Self { states, words: self.words.clone(), ..*self })
    }

    /// The products of each of `states` with those in the cache, as they lie there.
    fn past(&self, states: &Tensor) -> Result<Vec<Vec<f64>>> {
        let filled = self.words.len();
        match &self.states {
            Some(rows) if filled > 0 => products(states, &rows.narrow(0, 0, filled)?),
            _ => Ok(vec![Vec::new(); states.dim(0)?]),
        }
    }

    /// The rows with room for `more` positions, or all that the window has: a window may be larger than any text.
    fn with_room(&self, more: usize, like: &Tensor) -> Result<Tensor> {
        let filled = self.words.len();
        let needed = filled.saturating_add(more).min(self.window);
        if let Some(rows) = self.states.as_ref().filter(|rows| rows.dims()[0] >= needed) {
            return Ok(rows.clone());
        }
        let room = needed.saturating_mul(2).min(self.window);
        let rows = Tensor::zeros((room, like.dim(1)?), like.dtype(), like.device())?;
        if let Some(before) = self.states.as_ref().filter(|_| filled > 0) {
            rows.slice_set(&before.narrow(0, 0, filled)?, 0, 0)?;
        }
        Ok(rows)
    }

    /// The block's positions replace the oldest ones.
    pub(super) fn enter(&mut self, states: &Tensor, targets: &[u32]) -> Result<()> {
        let time = states.dim(0)?;
        let rows = self.with_room(time, states)?;
        let mut next = time.saturating_sub(self.window);
        while next < time {
            let full = self.words.len() == self.window;
            let row = if full { self.oldest } else { self.words.len() };
            let count = (self.window - row).min(time - next);
            rows.slice_set(&states.narrow(0, next, count)?.contiguous()?, 0, row)?;
            let words = &targets[next..next + count];
            if full {
                self.words[row..row + count].copy_from_slice(words);
                self.oldest = (row + count) % self.window;
            } else {
                self.words.extend_from_slice(words);
            }
            next += count;
        }
        self.states = Some(rows);
        Ok(())
    }
}

/// The products of all rows of `states` with all of `others`, in f64.
fn products(states: &Tensor, others: &Tensor) -> Result<Vec<Vec<f64>>> {
    let products = linear(states, others, Stored::ByOutput, states.dtype().into())?;
    Ok(products.to_dtype(DType::F64)?.to_vec2()?)
}

/// ln of the share that words with `wanted` have of exp(θ · product), summed over the positions; −∞ if none came.
pub(super) fn ln_share(seen: &[(f64, u32)], theta: f64, wanted: impl Fn(u32) -> bool) -> f64 {
    let of_words = seen.iter().filter(|&&(_, next)| wanted(next)).map(|&(product, _)| theta * product);
    ln_of_sum(of_words) - ln_of_sum(seen.iter().map(|&(product, _)| theta * product))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// A cache of `window` that reads these states and words, `at_once` at a time: ln p_cache of each word.
    fn read(window: usize, at_once: usize, states: &[[f64; 2]], words: &[u32]) -> Vec<Option<f64>> {
        let mut cache = NeuralCache::new(window);
        let blocks = states.chunks(at_once).zip(words.chunks(at_once));
        let read = blocks.flat_map(|(states, words)| {
            let rows = Tensor::new(states.concat(), &Device::Cpu).unwrap().reshape((words.len(), 2)).unwrap();
            cache.read(&rows, words, |seen, target| ln_share(seen, 0.5, |word| word == target)).unwrap()
        });
        read.collect()
    }

    #[test]
    fn a_word_has_the_share_of_the_states_that_it_came_after() {
        let states = [[1.0, 0.0], [0.0, 2.0], [2.0, 0.0], [3.0, 1.0]];
        let found = read(3, 4, &states, &[7, 8, 7, 8]);
        let e = |x: f64| (0.5 * x).exp();
        assert_eq!(found[0], None);
        assert_eq!(found[1], Some(f64::NEG_INFINITY)); // 8 did not come yet
        assert!((found[2].unwrap() - (e(2.0) / (e(2.0) + e(0.0))).ln()).abs() < 1e-12);
        assert!((found[3].unwrap() - (e(2.0) / (e(3.0) + e(2.0) + e(6.0))).ln()).abs() < 1e-12);
    }

    #[test]
    fn what_is_seen_does_not_depend_on_the_blocks_nor_on_how_the_ring_turns() {
        let states: Vec<[f64; 2]> =
            (0..40).map(|i| [f64::from(i % 7) - 3.0, f64::from(i * i % 11) - 5.0]).collect();
        let words: Vec<u32> = (0..40).map(|i| i * i % 5).collect();
        for window in [1, 3, 8, 39, 100, usize::MAX] {
            let whole = read(window, 40, &states, &words);
            let alone = |step: usize| {
                let start = step.saturating_sub(window); // the last positions are all that there is
                read(window, 40, &states[start..=step], &words[start..=step]).pop().unwrap()
            };
            let same = |a: Option<f64>, b: Option<f64>| match (a, b) {
                (Some(a), Some(b)) => a == b || (a - b).abs() < 1e-12,
                (a, b) => a == b,
            };
            for (step, &found) in whole.iter().enumerate() {
                assert!(same(found, alone(step)), "window {window}, step {step}");
            }
            for at_once in [1, 2, 5, 7, 39] {
                let cut = read(window, at_once, &states, &words);
                assert!(
                    whole.iter().zip(&cut).all(|(&a, &b)| same(a, b)),
                    "window {window}, blocks of {at_once}"
                );
            }
        }
    }
}
