//! The errors to expect of a list whose hypotheses have probabilities.

/// The probabilities of a list's hypotheses, exp(sharpness · total) over their sum.
pub fn posterior(totals: &[f64], sharpness: f64) -> Vec<f64> {
    let highest = totals.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = totals.iter().map(|total| (sharpness * (total - highest)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// The mean of `errors` over the hypotheses by [`posterior`].
pub fn expected(totals: &[f64], errors: &[f64], sharpness: f64) -> f64 {
    posterior(totals, sharpness).iter().zip(errors).map(|(probability, errors)| probability * errors).sum()
}

#[cfg(test)]
mod tests {
    use super::expected;

    #[test]
    fn a_sharper_posterior_expects_what_the_best_has() {
        let totals = [-1000.0, -1000.0 - 3f64.ln(), -1000.0 - 3f64.ln()];
        let of = |sharpness| expected(&totals, &[1.0, 4.0, 7.0], sharpness);
        assert!((of(1.0) - (3.0 + 4.0 + 7.0) / 5.0).abs() < 1e-12);
        assert!((of(0.0) - 4.0).abs() < 1e-12);
        assert!((of(100.0) - 1.0).abs() < 1e-12);
    }
}
