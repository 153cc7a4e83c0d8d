//! From logits to integer frequencies, by operations that every machine rounds alike: additions, multiplications and
//! divisions of IEEE 754 in a fixed order, and an exponential made of them.
//!
//! ```text
//! w_v = exp(x_v − max x)      Z = Σ w_v, in the order of the ids
//! c_v = 1 + ⌊w_v · ((2^k − V) / Z)⌋, and the rest of 2^k to the most probable; of equals to that of the lowest id
//! ```
//!
//! k is 24: the ones take V · 2^-24 of the probability, 0.0004 bits a token for 4,096 byte pairs. With 2^16 they took 0.0056
//! for 256 bytes, half a per cent of what a good model needs. A larger vocabulary gets 8 bits more than number it.

use crate::error::{Error, Result};

const LEAST_PRECISION: u32 = 24;
const MOST_PRECISION: u32 = 32;

/// The frequencies of `vocabulary` symbols sum to 2 to this power.
pub(super) fn precision(vocabulary: usize) -> u32 {
    let numbered = usize::BITS - vocabulary.leading_zeros();
    (numbered + 8).clamp(LEAST_PRECISION, MOST_PRECISION)
}

/// The distribution of the next token.
pub(super) struct Frequencies {
    counts: Vec<u32>,
    weights: Vec<f64>,
    total: u64,
    /// The highest logit, and Z.
    highest: f64,
    sum: f64,
}

impl Frequencies {
    /// For a `vocabulary` of at least one; the frequencies sum to 2 to `precision`.
    pub(super) fn new(vocabulary: usize, precision: u32) -> Self {
        let total = 1u64 << precision;
        assert!(vocabulary as u64 <= total / 2, "{vocabulary} symbols in {total} parts");
        Self { counts: vec![0; vocabulary], weights: vec![0.0; vocabulary], total, highest: 0.0, sum: 1.0 }
    }

    /// The distribution of these logits, a number each. Fails if one is not finite.
    pub(super) fn set(&mut self, logits: &[f32]) -> Result<()> {
        if let Some(logit) = logits.iter().find(|logit| !logit.is_finite()) {
            let what = format!("the model gives a logit of {logit}; its weights are unusable");
            return Err(Error::NotFinite { step: 0, what });
        }
        let mut best = 0;
        for (id, &logit) in logits.iter().enumerate() {
            best = if logit > logits[best] { id } else { best };
        }
        self.highest = f64::from(logits[best]);
        self.sum = 0.0;
        for (weight, &logit) in self.weights.iter_mut().zip(logits) {
            *weight = exp(f64::from(logit) - self.highest);
            self.sum += *weight;
        }
        let scale = (self.total - self.counts.len() as u64) as f64 / self.sum;
        let mut assigned = 0;
        for (count, weight) in self.counts.iter_mut().zip(&self.weights) {
            *count = 1 + (weight * scale) as u32;
            assigned += u64::from(*count);
        }
        // Rounding can also leave a few too many; the most probable has more than those.
        let rest = self.total as i64 - assigned as i64;
        self.counts[best] = (i64::from(self.counts[best]) + rest) as u32;
        Ok(())
    }

    /// The frequency of each symbol.
    pub(super) fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Their sum.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// −log2 of the model's own probability of a symbol with this logit, before it was made an integer.
    pub(super) fn bits(&self, logit: f32) -> f64 {
        (self.highest - f64::from(logit)) * std::f64::consts::LOG2_E + self.sum.log2()
    }
}

/// 1/n! for n = 0 … 14, each rounded once.
const INVERSE_FACTORIALS: [f64; 15] = {
    let mut terms = [1.0; 15];
    let mut factorial = 1.0;
    let mut n = 1;
    while n < terms.len() {
        factorial *= n as f64;
        terms[n] = 1.0 / factorial;
        n += 1;
    }
    terms
};

/// The exponential of a number that is at most 0, to about a unit in the last place; 0 below the smallest normal numbers.
fn exp(x: f64) -> f64 {
    const LN_2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000); // so short that n times it is exact
    const LN_2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 · 2^52: adding it leaves the nearest integer
    if x < -700.0 {
        return 0.0;
    }
    let n = x * std::f64::consts::LOG2_E + ROUND - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW; // |r| ≤ ln 2 / 2, where the series below has 2e-17 left
    let series = INVERSE_FACTORIALS.iter().rev().fold(0.0, |sum, term| sum * r + term);
    series * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhn_kernels::rng::Rng;

    fn counts(logits: &[f32], precision: u32) -> Vec<u32> {
        let mut frequencies = Frequencies::new(logits.len(), precision);
        frequencies.set(logits).unwrap();
        frequencies.counts
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in 0..200_000 {
            let x = -f64::from(i) * 0.003_491;
            let wanted = x.exp();
            assert!((exp(x) - wanted).abs() <= 2.0 * f64::EPSILON * wanted, "exp({x}): {:e}", exp(x));
        }
        assert_eq!([exp(0.0), exp(-701.0), exp(f64::NEG_INFINITY)], [1.0, 0.0, 0.0]);
    }

    #[test]
    fn exp_has_these_bits_on_every_machine() {
        let found = [-0.1, -1.0, -10.5, -333.25].map(|x| exp(x).to_bits());
        assert_eq!(found, EXP_BITS);
    }

    const EXP_BITS: [u64; 4] =
        [0x3fec_f46d_99d5_2b3a, 0x3fd7_8b56_362c_ef38, 0x3efc_dfc2_63f6_a0ba, 0x21e2_a8f6_3851_e867];

    #[test]
    fn frequencies_follow_the_rule() {
        // 2^4 parts, three symbols with p = 1/2, 1/4, 1/4: 1 + ⌊13 p⌋ = 7, 4, 4, and the rest to the first
        let quarter = 0.5f32.ln();
        assert_eq!(counts(&[0.0, quarter, quarter], 4), [8, 4, 4]);
        assert_eq!(counts(&[quarter, 0.0, quarter], 4), [4, 8, 4]);
        assert_eq!(counts(&[0.0, 0.0, 0.0], 4), [6, 5, 5]); // of equals the first
        assert_eq!(counts(&[-2000.0, 0.0], 24), [1, (1 << 24) - 1]); // never 0
        assert_eq!(counts(&[3.0], 24), [1 << 24]);
    }

    #[test]
    fn frequencies_are_at_least_one_and_sum_to_the_whole() {
        let mut rng = Rng::keyed(1, "frequencies", 0);
        for size in [1, 2, 3, 65, 256, 10_000, 70_000] {
            for scale in [0.0, 1e-3, 1.0, 30.0, 1e4, 1e30] {
                let logits: Vec<f32> = (0..size).map(|_| ((rng.uniform() - 0.5) * scale) as f32).collect();
                let precision = precision(size);
                let counts = counts(&logits, precision);
                assert!(counts.iter().all(|&count| count > 0));
                assert_eq!(
                    counts.iter().copied().map(u64::from).sum::<u64>(),
                    1 << precision,
                    "{size} {scale}"
                );
            }
        }
    }

    #[test]
    fn a_vocabulary_gets_24_bits_or_8_more_than_number_it() {
        assert_eq!([1, 256, 65_535, 65_536, 1 << 24].map(precision), [24, 24, 24, 25, 32]);
    }

    #[test]
    fn a_logit_that_is_not_finite_is_refused() {
        for logit in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = Frequencies::new(2, 24).set(&[0.0, logit]).unwrap_err();
            assert_eq!(error.exit_code(), 5);
        }
    }
}
