//! A range coder (Martin, 1979) of 64 bits, with carries into what is already written.
//!
//! ```text
//! unit = ⌊range / total⌋      low += unit · start      range = unit · size
//! ```
//!
//! While the range is below 2^48 the highest byte of low goes out, so a unit of a total of 2^32 or less has 16 bits or
//! more and rounding it costs less than 2^-15 of a bit a symbol. The last bytes are the shortest number in the interval;
//! the decoder reads zeros after them.

use crate::error::{Error, Result};

/// Totals are at most this.
pub(super) const MOST_TOTAL: u64 = 1 << 32;

const LOWEST_RANGE: u64 = 1 << 48;

/// One end of the coded text: the same calls write it and read it.
pub(super) trait Coder {
    /// Codes one of `counts.len()` symbols with these frequencies, at least 1 each, whose sum is `total`. The encoder writes
    /// `symbol`; the decoder does not look at it. Returns the symbol that was written.
    fn code(&mut self, symbol: usize, counts: &[u32], total: u64) -> Result<usize>;
}

/// What is wrong with a compressed text; who knows the file adds its name.
pub(super) fn damaged(what: impl Into<String>) -> Error {
    Error::data("compressed text", what)
}

/// Writes.
pub(super) struct Encoder {
    low: u64,
    range: u64,
    out: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { low: 0, range: u64::MAX, out: Vec::new() }
    }
}

impl Encoder {
    fn add(&mut self, amount: u64) {
        let (low, carry) = self.low.overflowing_add(amount);
        self.low = low;
        if carry {
            self.carry();
        }
    }

    /// Adds one to the number that was written.
    fn carry(&mut self) {
        for byte in self.out.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
    }

    /// The bytes of everything that was coded.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let low = u128::from(self.low);
        for count in 0..=8 {
            let unit = 1u128 << (64 - 8 * count);
            let value = low.div_ceil(unit) * unit;
            if value < low + u128::from(self.range) {
                if value >> 64 == 1 {
                    self.carry();
                }
                self.out.extend_from_slice(&(value as u64).to_be_bytes()[..count]);
                break;
            }
        }
        self.out
    }
}

impl Coder for Encoder {
    fn code(&mut self, symbol: usize, counts: &[u32], total: u64) -> Result<usize> {
        debug_assert!(total <= MOST_TOTAL);
        debug_assert_eq!(counts.iter().copied().map(u64::from).sum::<u64>(), total);
        let start: u64 = counts[..symbol].iter().copied().map(u64::from).sum();
        let unit = self.range / total;
        self.add(unit * start);
        self.range = unit * u64::from(counts[symbol]);
        while self.range < LOWEST_RANGE {
            self.out.push((self.low >> 56) as u8);
            self.low <<= 8;
            self.range <<= 8;
        }
        Ok(symbol)
    }
}

/// Reads.
pub(super) struct Decoder<'a> {
    bytes: &'a [u8],
    /// Bytes that were taken, those past the end too.
    taken: usize,
    /// The number's distance from low.
    code: u64,
    range: u64,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self { bytes, taken: 0, code: 0, range: u64::MAX };
        (0..8).for_each(|_| decoder.take());
        decoder
    }

    fn take(&mut self) {
        let byte = self.bytes.get(self.taken).copied().unwrap_or(0);
        self.code = self.code << 8 | u64::from(byte);
        self.taken += 1;
    }

    /// Whether every byte was needed.
    pub(super) fn is_at_end(&self) -> bool {
        self.taken >= self.bytes.len()
    }
}

impl Coder for Decoder<'_> {
    fn code(&mut self, _: usize, counts: &[u32], total: u64) -> Result<usize> {
        let unit = self.range / total;
        let position = self.code / unit;
        let mut start = 0;
        let mut end = 0;
        let found = counts.iter().position(|&count| {
            start = end;
            end += u64::from(count);
            position < end
        });
        let symbol = found.ok_or_else(|| damaged("is damaged: its numbers leave their range"))?;
        self.code -= unit * start;
        self.range = unit * (end - start);
        while self.range < LOWEST_RANGE {
            self.take();
            self.range <<= 8;
        }
        // The encoder has written all but the last 8 bytes by then.
        if self.taken > self.bytes.len() + 8 {
            return Err(damaged("ends before its text does"));
        }
        Ok(symbol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhn_kernels::rng::Rng;

    /// Symbols and the frequencies that each is coded with.
    fn drawn(seed: u64, length: usize, most: u64) -> Vec<(usize, Vec<u32>)> {
        let mut rng = Rng::keyed(seed, "coder", 0);
        let mut below = |limit: u64| (rng.uniform() * limit as f64) as u64;
        let one = |_| {
            let alphabet = if below(10) == 0 { 300 } else { 5 };
            let symbols = 1 + below(alphabet);
            let widest = (most / symbols).max(1);
            let count = |below: &mut dyn FnMut(u64) -> u64| match below(3) {
                0 => 1,
                _ => 1 + below(widest),
            };
            let counts: Vec<u32> =
                (0..symbols).map(|_| count(&mut below).min(u32::MAX.into()) as u32).collect();
            (below(symbols) as usize, counts)
        };
        (0..length).map(one).collect()
    }

    fn total(counts: &[u32]) -> u64 {
        counts.iter().copied().map(u64::from).sum()
    }

    fn encoded(symbols: &[(usize, Vec<u32>)]) -> Vec<u8> {
        let mut encoder = Encoder::default();
        for (symbol, counts) in symbols {
            encoder.code(*symbol, counts, total(counts)).unwrap();
        }
        encoder.finish()
    }

    #[test]
    fn what_was_coded_is_read_and_every_byte_is_needed() {
        for (seed, most) in (0..200).zip([2, 300, 1 << 16, 1 << 24, MOST_TOTAL].into_iter().cycle()) {
            let symbols = drawn(seed, seed as usize * 7, most);
            let bytes = encoded(&symbols);
            let mut decoder = Decoder::new(&bytes);
            for (symbol, counts) in &symbols {
                assert_eq!(decoder.code(usize::MAX, counts, total(counts)).unwrap(), *symbol, "seed {seed}");
            }
            assert!(decoder.is_at_end(), "seed {seed}");
        }
    }

    #[test]
    fn the_size_is_the_information_and_at_most_three_bytes() {
        for most in [300, 1 << 16, 1 << 24, MOST_TOTAL] {
            let symbols = drawn(7, 20_000, most);
            let bits = symbols
                .iter()
                .map(|(symbol, counts)| (total(counts) as f64 / f64::from(counts[*symbol])).log2());
            let ideal = bits.sum::<f64>() / 8.0;
            let found = encoded(&symbols).len() as f64;
            assert!(found >= ideal - 2.0 && found <= ideal * 1.000_01 + 3.0, "{found} bytes, ideal {ideal}");
        }
    }

    #[test]
    fn a_carry_runs_through_all_that_was_written() {
        // Always the last of three: low comes within a hair of 1, and the smallest further step carries.
        let mut symbols = vec![(2, vec![1, 1, u32::MAX - 2]); 3000];
        symbols.extend(vec![(1, vec![1, 1]); 3000]);
        let bytes = encoded(&symbols);
        let mut decoder = Decoder::new(&bytes);
        for (symbol, counts) in &symbols {
            assert_eq!(decoder.code(0, counts, total(counts)).unwrap(), *symbol);
        }
    }

    #[test]
    fn certainty_costs_nothing_and_nothing_is_no_bytes() {
        assert!(encoded(&vec![(0, vec![5]); 1000]).is_empty());
    }

    #[test]
    fn a_text_that_is_cut_off_is_an_error_and_never_a_panic() {
        let symbols = drawn(3, 2000, 1 << 24);
        let bytes = encoded(&symbols);
        for length in 0..bytes.len() / 2 {
            let mut decoder = Decoder::new(&bytes[..length]);
            let mut read = symbols.iter().map(|(_, counts)| decoder.code(0, counts, total(counts)));
            assert!(read.any(|symbol| symbol.is_err()), "{length} of {} bytes", bytes.len());
        }
        let mut rng = Rng::keyed(1, "noise", 0);
        let noise: Vec<u8> = (0..10_000).map(|_| (rng.uniform() * 256.0) as u8).collect();
        let mut decoder = Decoder::new(&noise);
        symbols.iter().for_each(|(_, counts)| drop(decoder.code(0, counts, total(counts))));
        let mut highest = Decoder::new(&[0xff; 20]);
        assert!(highest.code(0, &[1, 2], 3).is_err());
    }
}
