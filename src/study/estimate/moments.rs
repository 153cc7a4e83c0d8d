//! Means, variances and covariances over weighted rows, each unit by itself.
//!
//! A new row moves the mean by its share of the difference to it (West, 1979), so that nothing cancels where the mean is
//! large and the deviations are small. All sums are in f64.

/// Mean and variance of each unit.
#[derive(Clone, Debug)]
pub(super) struct Moments {
    weight: f64,
    mean: Vec<f64>,
    /// Weighted squares of deviations from the mean.
    squares: Vec<f64>,
}

impl Moments {
    pub(super) fn new(units: usize) -> Self {
        Self { weight: 0.0, mean: vec![0.0; units], squares: vec![0.0; units] }
    }

    /// Adds a row that counts `weight` times.
    pub(super) fn add(&mut self, row: impl IntoIterator<Item = f64>, weight: f64) {
        self.weight += weight;
        let share = weight / self.weight;
        for ((mean, squares), x) in self.mean.iter_mut().zip(&mut self.squares).zip(row) {
            let before = x - *mean;
            *mean += share * before;
            *squares += weight * before * (x - *mean);
        }
    }

    /// The mean of each unit.
    pub(super) fn means(&self) -> &[f64] {
        &self.mean
    }

    /// The standard deviation of each unit, of the rows themselves.
    pub(super) fn deviations(&self) -> impl Iterator<Item = f64> + '_ {
        self.squares.iter().map(|squares| (squares / self.weight).max(0.0).sqrt())
    }
}

/// Variances and covariance of two quantities of each unit.
#[derive(Clone, Debug)]
pub(super) struct Pairs {
    weight: f64,
    units: Vec<Pair>,
}

/// One unit's sums of deviations.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    mean: [f64; 2],
    squares: [f64; 2],
    product: f64,
}

impl Pairs {
    pub(super) fn new(units: usize) -> Self {
        Self { weight: 0.0, units: vec![Pair::default(); units] }
    }

    /// Adds a row of both quantities that counts `weight` times.
    pub(super) fn add(&mut self, row: impl IntoIterator<Item = [f64; 2]>, weight: f64) {
        self.weight += weight;
        let share = weight / self.weight;
        for (pair, [x, y]) in self.units.iter_mut().zip(row) {
            let before = [x - pair.mean[0], y - pair.mean[1]];
            pair.mean[0] += share * before[0];
            pair.mean[1] += share * before[1];
            let after = [x - pair.mean[0], y - pair.mean[1]];
            pair.squares[0] += weight * before[0] * after[0];
            pair.squares[1] += weight * before[1] * after[1];
            pair.product += weight * before[0] * after[1];
        }
    }

    /// For each unit the weight of the second quantity in the best unbiased linear mix of the two, within 0 … 1; none
    /// where their difference does not vary, so that every mix is as good. What is left of it by rounding varies by less than a
    /// millionth of what they do.
    pub(super) fn best_weights(&self) -> impl Iterator<Item = Option<f64>> + '_ {
        self.units.iter().map(|pair| {
            let difference = pair.squares[0] + pair.squares[1] - 2.0 * pair.product;
            let weight = (pair.squares[0] - pair.product) / difference;
            (difference > 1e-12 * (pair.squares[0] + pair.squares[1]) && weight.is_finite())
                .then(|| weight.clamp(0.0, 1.0))
        })
    }
}

/// The correlation over pairs of numbers; none if one of them does not vary.
pub(super) fn correlation(pairs: &[[f64; 2]]) -> Option<f64> {
    let mut sums = Pairs::new(1);
    pairs.iter().for_each(|&pair| sums.add([pair], 1.0));
    let Pair { squares: [a, b], product, .. } = sums.units[0];
    let found = product / (a.sqrt() * b.sqrt());
    found.is_finite().then(|| found.clamp(-1.0, 1.0))
}

/// The mean of some numbers.
pub(super) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values.into_iter().fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count)
}

#[cfg(test)]
mod tests {
    use super::{Moments, Pairs, correlation};

    #[test]
    fn a_weight_counts_like_that_many_rows() {
        let mut weighted = Moments::new(1);
        let mut repeated = Moments::new(1);
        for (x, weight) in [(1.0, 3), (5.0, 1)] {
            weighted.add([x], f64::from(weight));
            (0..weight).for_each(|_| repeated.add([x], 1.0));
        }
        for moments in [weighted, repeated] {
            assert!((moments.means()[0] - 2.0).abs() < 1e-15); // (3 · 1 + 5) / 4
            assert!((moments.deviations().next().unwrap() - 3f64.sqrt()).abs() < 1e-15); // (3 · 1² + 3²) / 4 = 3
        }
    }

    #[test]
    fn small_deviations_from_a_large_mean_do_not_cancel() {
        let mut moments = Moments::new(1);
        (0..10_000).for_each(|i| moments.add([1e9 + f64::from(i % 2)], 1.0));
        assert!((moments.deviations().next().unwrap() - 0.5).abs() < 1e-6);
    }

    #[test]
    fn of_two_independent_estimates_the_better_one_gets_the_larger_weight() {
        let mut pairs = Pairs::new(1);
        for (x, y) in [(2.0, 1.0), (2.0, -1.0), (-2.0, 1.0), (-2.0, -1.0)] {
            pairs.add([[x, y]], 1.0);
        }
        assert_eq!(pairs.best_weights().collect::<Vec<_>>(), [Some(0.8)]); // 4 / (4 + 1)
    }

    #[test]
    fn estimates_that_differ_by_a_constant_have_no_best_mix() {
        let mut pairs = Pairs::new(1);
        [1.0, 2.0, 4.0].into_iter().for_each(|x| pairs.add([[x, x + 1.0]], 1.0));
        assert_eq!(pairs.best_weights().collect::<Vec<_>>(), [None]);
        // The same with numbers that are rounded: the difference of the sums is not 0 then, and has either sign.
        for shift in 0..40 {
            let mut pairs = Pairs::new(1);
            for x in [0.1, 0.7, -0.3, 0.9, 1.3, -2.2, 0.45] {
                let x = x * (1.0 + 0.37 * f64::from(shift));
                pairs.add([[x, x - 0.123]], 1.0);
            }
            assert_eq!(pairs.best_weights().collect::<Vec<_>>(), [None], "{shift}");
        }
    }

    #[test]
    fn numbers_in_a_line_are_correlated_and_constant_ones_are_not() {
        assert!((correlation(&[[1.0, 5.0], [2.0, 3.0], [3.0, 1.0]]).unwrap() + 1.0).abs() < 1e-15);
        assert_eq!(correlation(&[[1.0, 5.0], [2.0, 5.0]]), None);
    }
}
