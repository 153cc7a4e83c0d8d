//! A learned prior: a mixture of Gaussians in place of the standard one (the "MoG" prior of Tomczak and Welling, 2018, arXiv
//! 1705.07120).
//!
//! ```text
//! p(z) = Σ_k π_k N(z; m_k, diag(s_k²))        π = softmax(a)
//! KL(q ‖ p) = KL(q ‖ G) + E_q [ ln G(z) − ln p(z) ]        G = N(m, diag(v)), with the mean and the variances of p
//! ```
//!
//! The posteriors of all sentences together are no standard Gaussian, and what they differ by is paid for in the KL of each.
//! The first part of the KL is exact, the second is the mean over the vectors that are drawn. It is small where G is near the
//! mixture, and 0 where the mixture is one Gaussian: drawing both parts, or the distance to a Gaussian that is elsewhere, would
//! add the noise of two large numbers that cancel.
//!
//! Weights: `latent.prior.logits` (components), `latent.prior.mean` and `latent.prior.log_variance` (components, size).

use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::output::log_softmax::{log_softmax, log_sum_exp};
use candle_core::{D, DType, Tensor};

/// First means are uniform in ± this. With the variance that is left of 1 the mixture has, on the average of what is drawn, the mean
/// and the variances of the standard Gaussian.
const SPREAD: f64 = 0.5;

/// A mixture of Gaussians.
pub(super) struct Mixture {
    /// a, `(components)`.
    logits: Tensor,
    /// m, `(components, size)`.
    mean: Tensor,
    /// ln s², `(components, size)`.
    log_variance: Tensor,
}

/// The same as plain numbers, to draw from.
pub struct MixtureNumbers {
    /// π.
    shares: Vec<f64>,
    mean: Vec<Vec<f64>>,
    deviation: Vec<Vec<f64>>,
}

impl Mixture {
    /// Of `components` Gaussians of vectors of `size`; `builder` is under `latent.prior`.
    pub(super) fn build((components, size): (usize, usize), builder: &Builder<'_>) -> Result<Self> {
        let left = (1.0 - SPREAD * SPREAD / 3.0).ln();
        Ok(Self {
            logits: builder.biases_with("logits", components, |_, _| 0.0)?,
            mean: builder.weight_within("mean", (components, size), SPREAD)?,
            log_variance: builder.weight_with("log_variance", (components, size), |_, _| left)?,
        })
    }

    /// m and ln v of the Gaussian with the mean and the variances of the mixture, `(size)` each.
    pub(super) fn matched(&self) -> Result<[Tensor; 2]> {
        let shares = log_softmax(&self.logits)?.exp()?.unsqueeze(1)?;
        let over = |each: Tensor| each.broadcast_mul(&shares)?.sum(0);
        let mean = over(self.mean.clone())?;
        let spread = self.mean.broadcast_sub(&mean)?.sqr()?;
        Ok([mean, over((self.log_variance.exp()? + spread)?)?.log()?])
    }

    /// ln G(z) − ln p(z) of each row of `z`, `(batch, size)` to `(batch)`.
    pub(super) fn remainder(&self, z: &Tensor) -> Result<Tensor> {
        let [mean, log_variance] = self.matched()?;
        let scaled = z.broadcast_sub(&mean)?.broadcast_mul(&(&log_variance * -0.5)?.exp()?)?;
        let matched = (scaled.sqr()?.sum(D::Minus1)?.broadcast_add(&log_variance.sum_all()?)? * -0.5)?;
        Ok((matched - self.log_density(z)?)?)
    }

    /// ln p(z) of each row of `z`, `(batch, size)` to `(batch)`, without the −½ ln 2π of each number.
    pub(super) fn log_density(&self, z: &Tensor) -> Result<Tensor> {
        let precision = (&self.log_variance * -0.5)?.exp()?;
        let scaled = z.unsqueeze(1)?.broadcast_sub(&self.mean)?.broadcast_mul(&precision)?;
        let spread =
            (scaled.sqr()?.sum(D::Minus1)?.broadcast_add(&self.log_variance.sum(D::Minus1)?)? * -0.5)?;
        let each = spread.broadcast_add(&log_softmax(&self.logits)?)?;
        Ok(log_sum_exp(&each)?.squeeze(D::Minus1)?)
    }

    /// The mixture as plain numbers.
    pub(super) fn numbers(&self) -> Result<MixtureNumbers> {
        let rows = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.to_vec2::<f64>();
        let logits = self.logits.to_dtype(DType::F64)?;
        Ok(MixtureNumbers {
            shares: log_softmax(&logits)?.exp()?.to_vec1()?,
            mean: rows(&self.mean)?,
            deviation: rows(&(self.log_variance.to_dtype(DType::F64)? * 0.5)?.exp()?)?,
        })
    }
}

impl MixtureNumbers {
    /// A vector of the mixture, for a `uniform` number from 0 to 1 that chooses the Gaussian, and standard normal numbers.
    pub fn draw(&self, uniform: f64, normals: &[f64]) -> Vec<f64> {
        let mut left = uniform;
        let passes = |share: &f64| {
            left -= share;
            left < 0.0
        };
        let chosen = self.shares.iter().position(passes).unwrap_or(self.shares.len() - 1);
        let numbers = self.mean[chosen].iter().zip(&self.deviation[chosen]).zip(normals);
        numbers.map(|((mean, deviation), normal)| mean + deviation * normal).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn mixture(logits: &[f64; 2], mean: &[[f64; 2]; 2], log_variance: &[[f64; 2]; 2]) -> Mixture {
        let tensor = |values: &[[f64; 2]; 2]| Tensor::new(values, &Device::Cpu).unwrap();
        let logits = Tensor::new(logits, &Device::Cpu).unwrap();
        Mixture { logits, mean: tensor(mean), log_variance: tensor(log_variance) }
    }

    #[test]
    fn of_a_mixture_that_is_one_gaussian_nothing_is_drawn() {
        let z = Tensor::new(&[[0.3f64, -2.0], [5.0, 0.1]], &Device::Cpu).unwrap();
        let same = mixture(&[0.4, -1.0], &[[3.0, -1.0]; 2], &[[0.7, -0.2]; 2]);
        let [mean, log_variance] = same.matched().unwrap().map(|tensor| tensor.to_vec1::<f64>().unwrap());
        let found = same.remainder(&z).unwrap().to_vec1::<f64>().unwrap();
        let wanted = [(mean[0], 3.0), (mean[1], -1.0), (log_variance[0], 0.7), (log_variance[1], -0.2)];
        assert!(wanted.iter().all(|(found, wanted)| (found - wanted).abs() < 1e-12), "{wanted:?}");
        assert!(found.iter().all(|nats| nats.abs() < 1e-12), "{found:?}");
    }

    #[test]
    fn the_matched_gaussian_has_the_mean_and_the_variances_of_the_mixture() {
        let two = mixture(&[0.0, 3f64.ln()], &[[-1.0, 0.0], [1.0, 2.0]], &[[0.0, -1.0], [-2.0, 0.5]]);
        let [mean, log_variance] = two.matched().unwrap().map(|tensor| tensor.to_vec1::<f64>().unwrap());
        let variance = [
            0.25 * (1.0 + 1.5 * 1.5) + 0.75 * ((-2f64).exp() + 0.25),
            0.25 * ((-1f64).exp() + 2.25) + 0.75 * (0.5f64.exp() + 0.25),
        ];
        assert!((mean[0] - 0.5).abs() < 1e-12 && (mean[1] - 1.5).abs() < 1e-12, "{mean:?}");
        let all = variance.iter().zip(&log_variance);
        assert!(all.clone().all(|(wanted, found)| (wanted.ln() - found).abs() < 1e-12), "{all:?}");
    }

    #[test]
    fn the_uniform_number_chooses_by_the_shares() {
        let numbers = MixtureNumbers {
            shares: vec![0.25, 0.5, 0.25 - 1e-12],
            mean: vec![vec![-1.0], vec![0.0], vec![1.0]],
            deviation: vec![vec![2.0], vec![3.0], vec![4.0]],
        };
        let drawn = [0.0, 0.2499, 0.25, 0.7499, 0.75, 1.0 - 1e-16].map(|at| numbers.draw(at, &[0.5])[0]);
        assert_eq!(drawn, [0.0, 0.0, 1.5, 1.5, 3.0, 3.0]);
    }
}
