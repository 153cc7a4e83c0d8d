//! A Gaussian with a diagonal covariance for each batch row, and how far it is from the standard one.
//!
//! ```text
//! z = μ + exp(½ log σ²) ⊙ ε        KL_j = ½ (μ_j² + σ_j² − 1 − log σ_j²)        (Kingma and Welling, 2014, appendix B)
//! ```

use crate::error::Result;
use candle_core::{D, Tensor};

/// A Gaussian for each batch row, `(batch, size)` each.
#[derive(Clone, Debug)]
pub struct Gaussian {
    /// μ.
    pub mean: Tensor,
    /// log σ².
    pub log_variance: Tensor,
}

impl Gaussian {
    /// z for `epsilon`, standard normal numbers, `(batch, size)`.
    pub fn sample(&self, epsilon: &Tensor) -> Result<Tensor> {
        Ok((&self.mean + ((&self.log_variance * 0.5)?.exp()? * epsilon)?)?)
    }

    /// KL(N(μ, σ²) ‖ N(0, 1)) of each number, `(batch, size)`, in nats; exact, and never negative.
    pub fn divergence(&self) -> Result<Tensor> {
        let spread = ((self.log_variance.exp()? - &self.log_variance)? - 1.0)?;
        Ok(((self.mean.sqr()? + spread)? * 0.5)?)
    }

    /// ln p(z) − ln q(z | x) of each row at the z that `epsilon` gives, `(batch)`: with the reconstruction's −ln p(x | z) it
    /// makes the weight of a sample in an importance-weighted bound.
    pub fn log_prior_ratio(&self, epsilon: &Tensor) -> Result<Tensor> {
        let z = self.sample(epsilon)?;
        let each = ((epsilon.sqr()? - z.sqr()?)? + &self.log_variance)?;
        Ok((each.sum(D::Minus1)? * 0.5)?)
    }

    /// The same values without their history.
    pub(crate) fn detach(&self) -> Self {
        Self { mean: self.mean.detach(), log_variance: self.log_variance.detach() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn row(values: &[f64]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap().unsqueeze(0).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_divergence_is_zero_for_the_standard_normal_and_known_elsewhere() {
        let log_four = 4f64.ln();
        let gaussian = Gaussian { mean: row(&[0.0, 2.0, 0.0]), log_variance: row(&[0.0, 0.0, log_four]) };
        let wanted = [0.0, 2.0, 0.5 * (4.0 - 1.0 - log_four)]; // ½ μ², ½ (σ² − 1 − log σ²)
        for (found, wanted) in values(&gaussian.divergence().unwrap()).into_iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-15, "{found} is not {wanted}");
        }
        assert_eq!(values(&gaussian.sample(&row(&[1.0, -1.0, 0.5])).unwrap()), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn the_ratio_of_prior_and_posterior_is_that_of_their_densities() {
        let gaussian = Gaussian { mean: row(&[0.3, -1.2]), log_variance: row(&[0.4, -0.7]) };
        let epsilon = row(&[0.8, -0.5]);
        let z = values(&gaussian.sample(&epsilon).unwrap());
        let log_density = |x: f64, mean: f64, variance: f64| {
            -0.5 * ((x - mean).powi(2) / variance + (std::f64::consts::TAU * variance).ln())
        };
        let wanted: f64 = [(z[0], 0.3, 0.4f64), (z[1], -1.2, -0.7)]
            .into_iter()
            .map(|(z, mean, log)| log_density(z, 0.0, 1.0) - log_density(z, mean, log.exp()))
            .sum();
        let found = values(&gaussian.log_prior_ratio(&epsilon).unwrap())[0];
        assert!((found - wanted).abs() < 1e-12, "{found} is not {wanted}");
    }
}
