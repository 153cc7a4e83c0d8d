//! Logarithms of sums of numbers that are given by their logarithms: no double need hold the numbers themselves.

/// ln (e^a + e^b).
pub(crate) fn ln_of_two(a: f64, b: f64) -> f64 {
    let (less, more) = if a < b { (a, b) } else { (b, a) };
    more + (less - more).exp().ln_1p()
}

/// ln Σ e^x, without overflow.
pub(crate) fn ln_of_sum(logits: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        most
    } else {
        most + logits.map(|logit| (logit - most).exp()).sum::<f64>().ln()
    }
}
