//! Training losses that Srivastava, Greff and Schmidhuber (2015, arXiv 1507.06228v2) published as curves, read off the
//! vector figures: the best of 100 runs for each net.

/// The epochs that losses were read at.
const EPOCHS: [u64; 8] = [1, 5, 10, 20, 50, 100, 200, 400];

/// Kind, depth, nats at each of [`EPOCHS`].
const CURVES: [(&str, usize, [f64; 8]); 8] = [
    ("plain", 10, [0.25, 0.12, 0.056, 0.027, 0.0060, 2.1e-5, 7.3e-6, 6.6e-6]),
    ("plain", 20, [0.32, 0.11, 0.077, 0.031, 0.0057, 1.4e-4, 1.8e-5, 1.4e-5]),
    ("plain", 50, [0.58, 0.18, 0.14, 0.052, 0.011, 0.0034, 0.0017, 1.3e-3]),
    ("plain", 100, [0.92, 0.32, 0.25, 0.16, 0.070, 0.038, 0.032, 3.0e-2]),
    ("highway", 10, [0.22, 0.11, 0.049, 0.023, 1.1e-4, 2.2e-5, 1.2e-5, 1.0e-5]),
    ("highway", 20, [0.14, 0.042, 0.013, 4.4e-4, 1.0e-4, 5.7e-5, 4.5e-5, 4.3e-5]),
    ("highway", 50, [0.32, 0.083, 0.051, 0.017, 7.8e-5, 1.2e-5, 7.4e-6, 6.8e-6]),
    ("highway", 100, [0.34, 0.12, 0.063, 0.027, 0.0021, 1.8e-4, 7.8e-5, 6.6e-5]),
];

/// The last epoch up to `epochs` that a loss was read at, and that loss; `None` for nets that were not published.
pub(super) fn loss(kind: &str, depth: usize, epochs: u64) -> Option<(u64, f64)> {
    let (_, _, losses) = CURVES.iter().find(|(of, layers, _)| *of == kind && *layers == depth)?;
    EPOCHS.into_iter().zip(*losses).take_while(|(epoch, _)| *epoch <= epochs).last()
}

#[cfg(test)]
mod tests {
    use super::loss;

    #[test]
    fn a_loss_is_that_of_the_last_epoch_that_was_read() {
        assert_eq!(loss("highway", 50, 20), Some((20, 0.017)));
        assert_eq!(loss("plain", 100, 399), Some((200, 0.032)));
        assert_eq!((loss("plain", 30, 20), loss("plain", 10, 0)), (None, None));
    }
}
