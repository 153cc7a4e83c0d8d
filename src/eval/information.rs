//! How much the vector of a sentence VAE says of which sentence it was made from.
//!
//! ```text
//! I(x; z) = E_x E_{z ~ q(z | x)} [ ln q(z | x) − ln q(z) ]        q(z) = 1/N Σ_n q(z | x_n)
//! ```
//!
//! It is the mean KL of the posteriors from the prior less the KL of q(z) from the prior (Hoffman and Johnson, 2016), and at most
//! ln N. Drawn are a part of the sentences and a z for each of them; q(z) is summed over all that are kept.

use super::log_sum::ln_of_sum;
use crate::error::Result;
use crate::model::latent::Gaussian;
use candle_core::DType;
use rhn_kernels::rng::Rng;

/// Of more sentences every second, third, … is taken, so that memory and time stay bounded.
const MOST: usize = 20_000;

/// For so many of these a z is drawn.
const DRAWN: usize = 2_000;

/// The posteriors of some sentences.
pub(super) struct Posteriors {
    size: usize,
    /// One sentence of so many is kept.
    every: usize,
    seen: usize,
    means: Vec<f32>,
    log_variances: Vec<f32>,
}

impl Posteriors {
    /// For vectors of `size` numbers, of `sentences` in all.
    pub(super) fn new(size: usize, sentences: usize) -> Self {
        let every = sentences.div_ceil(MOST).max(1);
        Self { size, every, seen: 0, means: Vec::new(), log_variances: Vec::new() }
    }

    /// Adds the posteriors of a batch, `(batch, size)`.
    pub(super) fn add(&mut self, posterior: &Gaussian) -> Result<()> {
        let rows = |tensor: &candle_core::Tensor| tensor.to_dtype(DType::F32)?.to_vec2::<f32>();
        for (mean, log_variance) in rows(&posterior.mean)?.iter().zip(rows(&posterior.log_variance)?) {
            if self.seen.is_multiple_of(self.every) {
                self.means.extend(mean);
                self.log_variances.extend(log_variance);
            }
            self.seen += 1;
        }
        Ok(())
    }

    /// I(x; z) in nats of the sentences that are kept; what is drawn is drawn from `seed`.
    pub(super) fn information(&self, seed: u64) -> f64 {
        let count = self.means.len() / self.size;
        let drawn = count.min(DRAWN);
        let places = (0..drawn).map(|number| number * count / drawn);
        let each = places.map(|place| self.information_of(place, count, seed));
        each.sum::<f64>() / drawn as f64
    }

    /// ln q(z | x) − ln q(z) for a z of the sentence at `place`.
    fn information_of(&self, place: usize, count: usize, seed: u64) -> f64 {
        let mut rng = Rng::keyed(seed, "latent.information", place as u64);
        let (mean, log_variance) = self.at(place);
        let z: Vec<f64> = mean
            .iter()
            .zip(log_variance)
            .map(|(mean, log)| f64::from(*mean) + (0.5 * f64::from(*log)).exp() * rng.normal())
            .collect();
        let others: Vec<f64> = (0..count).map(|other| self.log_density(other, &z)).collect();
        others[place] - (ln_of_sum(others.iter().copied()) - (count as f64).ln())
    }

    /// ln q(z | x) of the sentence at `place`, but for what all have.
    fn log_density(&self, place: usize, z: &[f64]) -> f64 {
        let (mean, log_variance) = self.at(place);
        let numbers = z.iter().zip(mean.iter().zip(log_variance));
        let each = numbers.map(|(z, (mean, log))| {
            let log = f64::from(*log);
            log + (z - f64::from(*mean)).powi(2) * (-log).exp()
        });
        -0.5 * each.sum::<f64>()
    }

    fn at(&self, place: usize) -> (&[f32], &[f32]) {
        let range = place * self.size..(place + 1) * self.size;
        (&self.means[range.clone()], &self.log_variances[range])
    }
}

#[cfg(test)]
mod tests {
    use super::Posteriors;
    use crate::model::latent::Gaussian;
    use candle_core::{Device, Tensor};

    /// The estimate for sentences with these means, of one number each, and one log σ².
    fn information(means: &[f64], log_variance: f64) -> f64 {
        let column = |values: Vec<f64>| Tensor::from_vec(values, (means.len(), 1), &Device::Cpu).unwrap();
        let posterior =
            Gaussian { mean: column(means.to_vec()), log_variance: column(vec![log_variance; means.len()]) };
        let mut posteriors = Posteriors::new(1, means.len());
        posteriors.add(&posterior).unwrap();
        posteriors.information(1)
    }

    #[test]
    fn a_vector_that_is_the_same_for_all_says_nothing_and_one_that_never_is_says_all() {
        assert!(information(&[0.7; 40], -1.0).abs() < 1e-12);
        let apart: Vec<f64> = (0..40).map(|number| 10.0 * f64::from(number)).collect();
        assert!((information(&apart, 0.0) - 40f64.ln()).abs() < 1e-4);
    }

    /// Two kinds of sentences, half each, at −1 and 1 with σ = 1: I = ∫ N(z; 1, 1) ln (2 / (1 + e^{−2z})) dz.
    #[test]
    fn what_is_drawn_comes_to_the_integral() {
        let step = 1e-3;
        let density = |z: f64| (-0.5 * (z - 1.0f64).powi(2)).exp() / std::f64::consts::TAU.sqrt();
        let points = (-9_000..11_000).map(|number| f64::from(number) * step);
        let wanted: f64 = points.map(|z| step * density(z) * (2.0 / (1.0 + (-2.0 * z).exp())).ln()).sum();
        let means: Vec<f64> = (0..2_000).map(|number| if number % 2 == 0 { -1.0 } else { 1.0 }).collect();
        let found = information(&means, 0.0);
        assert!((found - wanted).abs() < 0.03, "{found} is not {wanted}"); // 2.4 standard errors of 2,000 draws
    }

    #[test]
    fn of_many_sentences_every_so_many_are_kept() {
        let ones = Tensor::ones((7, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let posterior = Gaussian { mean: ones.clone(), log_variance: ones };
        let mut posteriors = Posteriors::new(2, 50_000);
        (0..3).for_each(|_| posteriors.add(&posterior).unwrap());
        assert_eq!((posteriors.every, posteriors.means.len()), (3, 7 * 2));
    }
}
