//! Windows of drawn lengths (Merity et al., 2017, section 4.1), so that no token always begins one.
//!
//! ```text
//! T' = min(max(5, ⌊N(b, 5)⌋), bptt + 10)      b = bptt with probability 0.95, else bptt / 2
//! ```
//!
//! The cap, of the authors' code, bounds the memory. All windows of an epoch follow from the run's seed and the epoch, so
//! that a resumed run has the same and the number of steps is known before the epoch begins.

use rhn_kernels::rng::Rng;

/// The least steps of a window, the deviation of their number, and how far beyond `bptt` the longest may be.
const LEAST: usize = 5;
const DEVIATION: f64 = 5.0;
const BEYOND: usize = 10;
/// How often the mean is `bptt` itself.
const USUAL: f64 = 0.95;

/// Where each window of `epoch` starts within its batch row, and how many steps it has; a batch row predicts `tokens`. The
/// last window has what is left; fewer than five tokens are left out, unless there are no more.
pub(crate) fn windows(tokens: usize, bptt: usize, seed: u64, epoch: u64) -> Vec<(usize, usize)> {
    let mut rng = Rng::keyed(seed, "train.window", epoch);
    let mut windows = Vec::with_capacity(tokens / bptt + 1);
    let mut start = 0;
    while tokens - start >= LEAST || windows.is_empty() {
        let steps = draw(&mut rng, bptt).min(tokens - start);
        windows.push((start, steps));
        start += steps;
    }
    windows
}

/// The steps of a window.
fn draw(rng: &mut Rng, bptt: usize) -> usize {
    let mean = if rng.uniform() < USUAL { bptt as f64 } else { bptt as f64 / 2.0 };
    let steps = mean + DEVIATION * rng.normal(); // a number below 0 becomes 0
    (steps as usize).clamp(LEAST, (bptt + BEYOND).max(LEAST))
}

#[cfg(test)]
mod tests {
    use super::windows;

    const TOKENS: usize = 200_000;

    #[test]
    fn windows_follow_each_other_and_leave_out_fewer_than_five_tokens() {
        for (tokens, bptt) in [(TOKENS, 70), (1003, 20), (64, 5), (7, 70), (3, 2)] {
            let windows = windows(tokens, bptt, 1, 0);
            let mut next = 0;
            for &(start, steps) in &windows {
                assert_eq!(start, next);
                assert!(steps >= 5.min(tokens) && steps <= bptt + 10, "{steps} of {bptt}");
                next += steps;
            }
            assert!(tokens - next < 5, "{next} of {tokens}");
        }
    }

    #[test]
    fn lengths_are_normal_around_the_length_or_one_time_in_twenty_around_half_of_it() {
        let windows = windows(TOKENS, 70, 3, 0);
        let lengths: Vec<f64> = windows.iter().rev().skip(1).map(|&(_, steps)| steps as f64).collect();
        let (short, long): (Vec<f64>, Vec<f64>) = lengths.iter().partition(|&&steps| steps < 52.5);
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        let share = short.len() as f64 / lengths.len() as f64;
        assert!((share - 0.05).abs() < 5.0 * (0.05 * 0.95 / lengths.len() as f64).sqrt(), "{share}");
        // Rounded down, so half a step less; the cap at 80 takes 0.04 of the mean.
        assert!((mean(&long) - 69.46).abs() < 5.0 * 5.0 / (long.len() as f64).sqrt(), "{}", mean(&long));
        assert!((mean(&short) - 34.5).abs() < 5.0 * 5.0 / (short.len() as f64).sqrt(), "{}", mean(&short));
        let squares: Vec<f64> = long.iter().map(|steps| (steps - mean(&long)).powi(2)).collect();
        assert!((mean(&squares).sqrt() - 5.0).abs() < 0.5, "{}", mean(&squares).sqrt());
        assert_eq!(lengths.iter().copied().fold(0.0, f64::max), 80.0);
    }

    #[test]
    fn an_epoch_has_the_same_windows_each_time_and_others_than_the_next() {
        assert_eq!(windows(5000, 35, 1, 4), windows(5000, 35, 1, 4));
        assert_ne!(windows(5000, 35, 1, 4), windows(5000, 35, 1, 5));
        assert_ne!(windows(5000, 35, 1, 4), windows(5000, 35, 2, 4));
    }
}
