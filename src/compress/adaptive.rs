//! Frequencies of what the model does not predict: they begin alike and count what came.

use super::coder::Coder;
use crate::error::Result;

/// Counts are halved once their sum is above this.
const MOST_TOTAL: u64 = 1 << 24;

/// Frequencies of `N` symbols.
pub(super) struct Adaptive<const N: usize> {
    counts: [u32; N],
    total: u64,
    increment: u32,
}

impl<const N: usize> Adaptive<N> {
    /// Every symbol has come once; each further time counts as `increment`.
    pub(super) fn new(increment: u32) -> Self {
        Self { counts: [1; N], total: N as u64, increment }
    }

    /// As [`Coder::code`]; adds what it took to `bits`.
    pub(super) fn code(&mut self, symbol: usize, coder: &mut impl Coder, bits: &mut f64) -> Result<usize> {
        let symbol = coder.code(symbol, &self.counts, self.total)?;
        *bits += (self.total as f64 / f64::from(self.counts[symbol])).log2();
        self.counts[symbol] += self.increment;
        self.total += u64::from(self.increment);
        if self.total > MOST_TOTAL {
            self.counts.iter_mut().for_each(|count| *count = count.div_ceil(2));
            self.total = self.counts.iter().copied().map(u64::from).sum();
        }
        Ok(symbol)
    }
}

#[cfg(test)]
mod tests {
    use super::super::coder::Encoder;
    use super::Adaptive;

    /// Bits that these symbols take.
    fn bits(increment: u32, symbols: impl Iterator<Item = usize>) -> f64 {
        let mut adaptive = Adaptive::<2>::new(increment);
        let mut encoder = Encoder::default();
        let mut bits = 0.0;
        for symbol in symbols {
            adaptive.code(symbol, &mut encoder, &mut bits).unwrap();
        }
        bits
    }

    #[test]
    fn what_never_comes_costs_half_the_logarithm_of_the_times_and_a_bit() {
        // Krichevsky and Trofimov: n times the same of two symbols have probability 1/2 · 3/4 · 5/6 …, about 1/√(π n).
        let found = bits(2, std::iter::repeat_n(0, 10_000));
        assert!((found - (10_000.0 * std::f64::consts::PI).log2() / 2.0).abs() < 0.01, "{found} bits");
    }

    #[test]
    fn counts_that_were_halved_go_on_counting() {
        let count = 100_000; // six times beyond the highest total
        let found = bits(1000, (0..count).map(|i| usize::from(i % 4 == 0)));
        let ideal = f64::from(count) * 0.811_278;
        assert!((found / ideal - 1.0).abs() < 1e-3, "{found} bits for {ideal}");
    }
}
