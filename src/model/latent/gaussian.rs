//! A Gaussian for each batch row, and how far it is from the standard one or another.
//!
//! ```text
//! z = μ + σ ⊙ ε               KL_j = ½ (μ_j² + σ_j² − 1 − log σ_j²)                        (Kingma and Welling, 2014, appendix B)
//! KL_j = ½ (((μ_j − m_j)² + σ_j²) / v_j − 1 − log (σ_j² / v_j))     from N(m, diag(v))
//! z = μ + σ ⊙ (ε + N ε)       KL_j = ½ (μ_j² + σ_j² (1 + Σ_k N_jk²) − 1 − log σ_j²)       with a full covariance
//! ```
//!
//! σ = exp(½ log σ²). N is strictly lower triangular, so that diag(σ) (I + N) is the Cholesky factor of the covariance, and its
//! determinant is that of diag(σ).

use crate::error::Result;
use candle_core::{D, DType, Device, Tensor};

/// A Gaussian for each batch row, `(batch, size)` each.
#[derive(Clone, Debug)]
pub struct Gaussian {
    /// μ.
    pub mean: Tensor,
    /// log σ².
    pub log_variance: Tensor,
    /// N, `(batch, size, size)` and strictly lower triangular; none where the covariance is diagonal.
    pub mixing: Option<Tensor>,
}

impl Gaussian {
    /// Of a diagonal covariance.
    pub fn diagonal(mean: Tensor, log_variance: Tensor) -> Self {
        Self { mean, log_variance, mixing: None }
    }

    /// z for `epsilon`, standard normal numbers, `(batch, size)`.
    pub fn sample(&self, epsilon: &Tensor) -> Result<Tensor> {
        let deviation = (&self.log_variance * 0.5)?.exp()?;
        let mixed = match &self.mixing {
            None => (deviation * epsilon)?,
            Some(mixing) => (deviation * (epsilon + mixing.matmul(&epsilon.unsqueeze(2)?)?.squeeze(2)?)?)?,
        };
        Ok((&self.mean + mixed)?)
    }

    /// Σ⁻¹ (z − μ) of each row at the z that `epsilon` gives, `(batch, size)`: the slope of −ln q(z | x) there. It has no history.
    pub(crate) fn slope(&self, epsilon: &Tensor) -> Result<Tensor> {
        let mut solved = epsilon.detach();
        if let Some(mixing) = &self.mixing {
            // With z − μ = diag(σ) (I + N) ε what is wanted is w / σ, where (I + N)ᵀ w = ε: the last number first.
            let plain = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.to_device(&Device::Cpu);
            let mixing = plain(&mixing.detach())?.to_vec3::<f64>()?;
            let mut rows = plain(&solved)?.to_vec2::<f64>()?;
            for (row, mixing) in rows.iter_mut().zip(&mixing) {
                for number in (0..row.len()).rev() {
                    let solved = row[number];
                    let (before, _) = row.split_at_mut(number);
                    before
                        .iter_mut()
                        .zip(&mixing[number])
                        .for_each(|(value, weight)| *value -= weight * solved);
                }
            }
            let numbers = Tensor::from_vec(rows.concat(), epsilon.dims2()?, &Device::Cpu)?;
            solved = numbers.to_dtype(epsilon.dtype())?.to_device(epsilon.device())?;
        }
        Ok((solved * (self.log_variance.detach() * -0.5)?.exp()?)?)
    }

    /// KL(q ‖ N(0, I)), the part of each number, `(batch, size)`, in nats; exact. Of a diagonal covariance each is the KL of
    /// the number alone, and never negative; of any, the sum is not.
    pub fn divergence(&self) -> Result<Tensor> {
        let spread = ((self.variances()? - &self.log_variance)? - 1.0)?;
        Ok(((self.mean.sqr()? + spread)? * 0.5)?)
    }

    /// KL(q ‖ N(m, diag(v))) likewise, of `mean` m and `log_variance` ln v, `(size)` each.
    pub(super) fn divergence_from(&self, [mean, log_variance]: [&Tensor; 2]) -> Result<Tensor> {
        let precision = log_variance.neg()?.exp()?;
        let far = (self.mean.broadcast_sub(mean)?.sqr()? + self.variances()?)?.broadcast_mul(&precision)?;
        let spread = (self.log_variance.broadcast_sub(log_variance)? + 1.0)?;
        Ok(((far - spread)? * 0.5)?)
    }

    /// The variance of each number, `(batch, size)`: the diagonal of the covariance.
    fn variances(&self) -> Result<Tensor> {
        let variance = self.log_variance.exp()?;
        Ok(match &self.mixing {
            None => variance,
            Some(mixing) => (&variance * (mixing.sqr()?.sum(D::Minus1)? + 1.0)?)?,
        })
    }

    /// ln q(z | x) of each row at the z that `epsilon` gives, `(batch)`, without the −½ ln 2π of each number.
    pub(super) fn log_density(&self, epsilon: &Tensor) -> Result<Tensor> {
        Ok(((epsilon.sqr()? + &self.log_variance)?.sum(D::Minus1)? * -0.5)?)
    }

    /// The same values without their history.
    pub(crate) fn detach(&self) -> Self {
        let mixing = self.mixing.as_ref().map(Tensor::detach);
        Self { mean: self.mean.detach(), log_variance: self.log_variance.detach(), mixing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f64]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap().unsqueeze(0).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_divergence_is_zero_for_the_standard_normal_and_known_elsewhere() {
        let log_four = 4f64.ln();
        let gaussian = Gaussian::diagonal(row(&[0.0, 2.0, 0.0]), row(&[0.0, 0.0, log_four]));
        let wanted = [0.0, 2.0, 0.5 * (4.0 - 1.0 - log_four)]; // ½ μ², ½ (σ² − 1 − log σ²)
        for (found, wanted) in values(&gaussian.divergence().unwrap()).into_iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-15, "{found} is not {wanted}");
        }
        assert_eq!(values(&gaussian.sample(&row(&[1.0, -1.0, 0.5])).unwrap()), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn the_ratio_of_prior_and_posterior_is_that_of_their_densities() {
        let gaussian = Gaussian::diagonal(row(&[0.3, -1.2]), row(&[0.4, -0.7]));
        let epsilon = row(&[0.8, -0.5]);
        let z = values(&gaussian.sample(&epsilon).unwrap());
        let log_density = |x: f64, mean: f64, variance: f64| {
            -0.5 * ((x - mean).powi(2) / variance + (std::f64::consts::TAU * variance).ln())
        };
        let wanted: f64 = [(z[0], 0.3, 0.4f64), (z[1], -1.2, -0.7)]
            .into_iter()
            .map(|(z, mean, log)| log_density(z, 0.0, 1.0) - log_density(z, mean, log.exp()))
            .sum();
        let square: f64 = z.iter().map(|z| z * z).sum();
        let found = -0.5 * square - values(&gaussian.log_density(&epsilon).unwrap())[0];
        assert!((found - wanted).abs() < 1e-12, "{found} is not {wanted}");
    }

    /// Two numbers with σ = (2, ½) and N₂₁ = 3: L = ((2, 0), (1.5, 0.5)), the covariance ((4, 3), (3, 2.5)) with determinant 1.
    #[test]
    fn a_full_covariance_has_the_divergence_and_the_density_of_its_matrix() {
        let mean = [0.3, -1.2];
        let mixing = Tensor::new(&[[[0.0, 0.0], [3.0, 0.0]]], &Device::Cpu).unwrap();
        let logs = [4f64.ln(), 0.25f64.ln()];
        let gaussian = Gaussian { mean: row(&mean), log_variance: row(&logs), mixing: Some(mixing) };
        let epsilon = [0.8, -0.5];
        let z = values(&gaussian.sample(&row(&epsilon)).unwrap());
        assert!((z[0] - (0.3 + 1.6)).abs() < 1e-15 && (z[1] - (-1.2 + 1.2 - 0.25)).abs() < 1e-15, "{z:?}");
        // ½ (trace + |μ|² − 2 − ln 1)
        let wanted = 0.5 * (6.5 + 0.09 + 1.44 - 2.0);
        let found: f64 = values(&gaussian.divergence().unwrap()).iter().sum();
        assert!((found - wanted).abs() < 1e-12, "{found} is not {wanted}");
        // From N((1, −1), diag(2, ½)): ½ (trace of Σ/V + distance − 2 + ln 1 − ln 1)
        let other =
            [&[1.0, -1.0], &[2f64.ln(), 0.5f64.ln()]].map(|row| Tensor::new(row, &Device::Cpu).unwrap());
        let wanted = 0.5 * (4.0 / 2.0 + 2.5 / 0.5 + 0.7 * 0.7 / 2.0 + 0.2 * 0.2 / 0.5 - 2.0);
        let found: f64 = values(&gaussian.divergence_from(other.each_ref()).unwrap()).iter().sum();
        assert!((found - wanted).abs() < 1e-12, "{found} is not {wanted}");
        let from = [z[0] - mean[0], z[1] - mean[1]];
        // The inverse of the covariance is ((2.5, −3), (−3, 4)).
        let far = 2.5 * from[0] * from[0] - 6.0 * from[0] * from[1] + 4.0 * from[1] * from[1];
        let slope = values(&gaussian.slope(&row(&epsilon)).unwrap());
        let wanted = [2.5 * from[0] - 3.0 * from[1], -3.0 * from[0] + 4.0 * from[1]];
        assert!(slope.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < 1e-12), "{slope:?}");
        let found = values(&gaussian.log_density(&row(&epsilon)).unwrap())[0];
        assert!((found + 0.5 * far).abs() < 1e-12, "{found} is not {}", -0.5 * far);
    }
}
