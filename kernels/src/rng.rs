//! The one generator: ChaCha8, keyed by seed, purpose and position, so that nothing has to be saved to resume.
//!
//! Every draw belongs to a stream named by what it is for and where in the run it happens. A resumed run asks
//! for the same names and gets the same numbers; no draw depends on how many others came before it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream for `purpose` (say `"init.core.0.weight"`) at `position` (say the step) of a run with `seed`.
    pub fn keyed(seed: u64, purpose: &str, position: u64) -> Self {
        Self(ChaCha8Rng::from_seed(key(seed, purpose, position)))
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// The bits that one uniform number is made of.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Of the standard normal distribution (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt(); // 1 − u is above 0
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// The `index`-th uniform number of this stream, whatever was drawn before.
    pub fn uniform_at(&mut self, index: u64) -> f64 {
        self.skip_to(index);
        self.uniform()
    }

    /// Goes to the `index`-th uniform number of this stream, which is drawn next.
    pub(crate) fn skip_to(&mut self, index: u64) {
        self.0.set_word_pos(u128::from(index) * 2);
    }
}

/// The key of [`Rng::keyed`]'s stream.
fn key(seed: u64, purpose: &str, position: u64) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(position.to_le_bytes());
    hash.update(purpose.as_bytes());
    hash.finalize().into()
}

/// The key of [`Rng::keyed`]'s stream as a device's generator takes it.
pub fn key_words(seed: u64, purpose: &str, position: u64) -> [u32; 8] {
    let key = key(seed, purpose, position);
    std::array::from_fn(|word| u32::from_le_bytes(key.as_chunks().0[word]))
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn equal_keys_give_equal_streams_and_every_part_of_the_key_matters() {
        let first = |seed, purpose, position| Rng::keyed(seed, purpose, position).uniform();
        assert_eq!(first(1, "mask", 7), first(1, "mask", 7));
        for other in [first(2, "mask", 7), first(1, "init", 7), first(1, "mask", 8)] {
            assert_ne!(first(1, "mask", 7), other);
        }
    }

    #[test]
    fn a_number_can_be_reached_by_its_index() {
        let mut stream = Rng::keyed(1, "mask", 0);
        let drawn: Vec<f64> = (0..20).map(|_| stream.uniform()).collect();
        assert_eq!(Rng::keyed(1, "mask", 0).uniform_at(17), drawn[17]);
    }

    #[test]
    fn uniform_numbers_have_mean_one_half() {
        let mut stream = Rng::keyed(3, "test", 0);
        let mean = (0..100_000).map(|_| stream.uniform()).sum::<f64>() / 1e5;
        assert!((mean - 0.5).abs() < 0.005, "{mean}"); // five standard deviations
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let mut stream = Rng::keyed(3, "test", 1);
        let numbers: Vec<f64> = (0..100_000).map(|_| stream.normal()).collect();
        let mean = numbers.iter().sum::<f64>() / 1e5;
        let variance = numbers.iter().map(|number| number * number).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.016 && (variance - 1.0).abs() < 0.023, "{mean} {variance}"); // five standard deviations
    }
}
