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
use candle_core::{DType, Tensor};
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
    /// The rows of what mixes the numbers, below the diagonal, where covariances are full.
    mixings: Vec<f32>,
}

/// One sentence's posterior.
struct Posterior<'a> {
    mean: &'a [f32],
    log_variance: &'a [f32],
    /// Empty where the covariance is diagonal.
    mixing: &'a [f32],
}

impl Posterior<'_> {
    /// Row `row` of what mixes the numbers, below the diagonal.
    fn mixing(&self, row: usize) -> &[f32] {
        let first = row * (row.max(1) - 1) / 2;
        self.mixing.get(first..first + row).unwrap_or_default()
    }

    /// What a row adds to its own number.
    fn mixed(&self, row: usize, epsilon: &[f64]) -> f64 {
        self.mixing(row).iter().zip(epsilon).map(|(weight, epsilon)| f64::from(*weight) * epsilon).sum()
    }

    fn draw(&self, rng: &mut Rng) -> Vec<f64> {
        let epsilon: Vec<f64> = self.mean.iter().map(|_| rng.normal()).collect();
        let number = |(row, (mean, log)): (usize, (&f32, &f32))| {
            let mixed = epsilon[row] + self.mixed(row, &epsilon);
            f64::from(*mean) + (0.5 * f64::from(*log)).exp() * mixed
        };
        self.mean.iter().zip(self.log_variance).enumerate().map(number).collect()
    }

    /// ln q(z | x), but for what all have.
    fn log_density(&self, z: &[f64]) -> f64 {
        let mut epsilon = Vec::with_capacity(z.len());
        let mut sum = 0.0;
        for (row, (z, (mean, log))) in z.iter().zip(self.mean.iter().zip(self.log_variance)).enumerate() {
            let log = f64::from(*log);
            let own = (z - f64::from(*mean)) * (-0.5 * log).exp() - self.mixed(row, &epsilon);
            sum += log + own * own;
            epsilon.push(own);
        }
        -0.5 * sum
    }
}

impl Posteriors {
    /// For vectors of `size` numbers, of `sentences` in all.
    pub(super) fn new(size: usize, sentences: usize) -> Self {
        let every = sentences.div_ceil(MOST).max(1);
        Self { size, every, seen: 0, means: Vec::new(), log_variances: Vec::new(), mixings: Vec::new() }
    }

    /// Adds the posteriors of a batch, `(batch, size)`.
    pub(super) fn add(&mut self, posterior: &Gaussian) -> Result<()> {
        let rows = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.to_vec2::<f32>();
        let mixings = posterior.mixing.as_ref().map(|mixing| mixing.to_dtype(DType::F32)?.to_vec3::<f32>());
        let mixings = mixings.transpose()?;
        let rows = rows(&posterior.mean)?.into_iter().zip(rows(&posterior.log_variance)?);
        for (index, (mean, log_variance)) in rows.enumerate() {
            if self.seen.is_multiple_of(self.every) {
                self.means.extend(mean);
                self.log_variances.extend(log_variance);
                for (row, weights) in mixings.iter().flat_map(|all| all[index].iter().enumerate()) {
                    self.mixings.extend(&weights[..row]);
                }
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
        let z = self.at(place).draw(&mut Rng::keyed(seed, "latent.information", place as u64));
        let others: Vec<f64> = (0..count).map(|other| self.at(other).log_density(&z)).collect();
        others[place] - (ln_of_sum(others.iter().copied()) - (count as f64).ln())
    }

    fn at(&self, place: usize) -> Posterior<'_> {
        let range = place * self.size..(place + 1) * self.size;
        let weights = self.size * (self.size - 1) / 2;
        Posterior {
            mean: &self.means[range.clone()],
            log_variance: &self.log_variances[range],
            mixing: self.mixings.get(place * weights..(place + 1) * weights).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Posterior, Posteriors};
    use crate::model::latent::Gaussian;
    use candle_core::{Device, Tensor};
    use rhn_kernels::rng::Rng;

    /// The estimate for sentences with these means, of one number each, and one log σ².
    fn information(means: &[f64], log_variance: f64) -> f64 {
        let column = |values: Vec<f64>| Tensor::from_vec(values, (means.len(), 1), &Device::Cpu).unwrap();
        let posterior = Gaussian::diagonal(column(means.to_vec()), column(vec![log_variance; means.len()]));
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

    /// ln q of two numbers with the covariance ((4, 3), (3, 2.5)), whose inverse is ((2.5, −3), (−3, 4)), as in `gaussian.rs`.
    #[test]
    fn the_density_of_a_full_covariance_is_that_of_its_matrix() {
        let log_variance = [4f32.ln(), 0.25f32.ln()];
        let posterior = Posterior { mean: &[0.5, -1.0], log_variance: &log_variance, mixing: &[3.0] };
        let far = |[x, y]: [f64; 2]| 2.5 * x * x - 6.0 * x * y + 4.0 * y * y;
        for from in [[0.0, 0.0], [1.0, 0.5], [-2.0, 0.25]] {
            let found = posterior.log_density(&[from[0] + 0.5, from[1] - 1.0]);
            assert!((found + 0.5 * far(from)).abs() < 1e-6, "{found} at {from:?}");
        }
        let draws = (0..20_000).map(|place| {
            let z = posterior.draw(&mut Rng::keyed(1, "test", place));
            (z[0] - 0.5) * (z[1] + 1.0)
        });
        let covariance = draws.sum::<f64>() / 20_000.0;
        assert!((covariance - 3.0).abs() < 0.16, "{covariance}"); // five standard errors
    }

    #[test]
    fn three_numbers_are_drawn_with_the_density_that_is_computed() {
        let tensor =
            |values: Vec<f64>, shape: &[usize]| Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        let mixing = vec![0.0, 0.0, 0.0, 0.7, 0.0, 0.0, -0.4, 1.1, 0.0];
        let posterior = Gaussian {
            mean: tensor(vec![0.2, -0.3, 0.5], &[1, 3]),
            log_variance: tensor(vec![0.4, -0.6, 0.1], &[1, 3]),
            mixing: Some(tensor(mixing, &[1, 3, 3])),
        };
        let mut posteriors = Posteriors::new(3, 1);
        posteriors.add(&posterior).unwrap();
        let of = posteriors.at(0);
        let mut rng = Rng::keyed(3, "test", 0);
        let epsilon: Vec<f64> = (0..3).map(|_| rng.normal()).collect();
        let z = of.draw(&mut Rng::keyed(3, "test", 0));
        let wanted = posterior.sample(&tensor(epsilon.clone(), &[1, 3])).unwrap();
        let wanted: Vec<f64> = wanted.flatten_all().unwrap().to_vec1().unwrap();
        assert!(
            z.iter().zip(&wanted).all(|(found, wanted)| (found - wanted).abs() < 1e-6),
            "{z:?}, {wanted:?}"
        );
        let wanted = -0.5 * (epsilon.iter().map(|epsilon| epsilon * epsilon).sum::<f64>() - 0.1);
        assert!((of.log_density(&z) - wanted).abs() < 1e-6);
    }

    #[test]
    fn of_many_sentences_every_so_many_are_kept() {
        let ones = Tensor::ones((7, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let posterior = Gaussian::diagonal(ones.clone(), ones);
        let mut posteriors = Posteriors::new(2, 50_000);
        (0..3).for_each(|_| posteriors.add(&posterior).unwrap());
        assert_eq!((posteriors.every, posteriors.means.len()), (3, 7 * 2));
    }
}
