//! An axis: what it shows, how far it reaches, where a value lies on it.

#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// Its name, with the unit.
    pub name: String,
    /// Equal ratios are equally far apart, instead of equal differences.
    pub log: bool,
    /// Only whole numbers are marked.
    pub whole: bool,
    /// A linear axis reaches down to zero, and no further than to its greatest value.
    pub from_zero: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) log: bool,
    /// The pixel of `low`.
    pub(super) start: f64,
    /// The pixel of `high`.
    pub(super) end: f64,
}

/// How much of its length an axis goes beyond the values.
const BEYOND: f64 = 0.04;

impl Axis {
    /// Over these values (above zero, if logarithmic), on these pixels.
    pub(super) fn scale(&self, values: impl Iterator<Item = f64>, start: f64, end: f64) -> Scale {
        let bounds = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
        let (least, greatest) = values.fold((f64::INFINITY, f64::NEG_INFINITY), bounds);
        let (low, high) = match (self.from_zero, self.log) {
            (true, false) => (0.0, if greatest > 0.0 { greatest } else { 1.0 }),
            (true, true) if least < greatest => (least, greatest),
            (_, true) => stretch(least.ln(), greatest.ln(), f64::exp),
            (_, false) => stretch(least, greatest, |value| value),
        };
        Scale { low, high, log: self.log, start, end }
    }
}

/// A little beyond both; a single value is in the middle.
fn stretch(low: f64, high: f64, back: impl Fn(f64) -> f64) -> (f64, f64) {
    let beyond = if low < high { BEYOND * (high - low) } else { BEYOND * low.abs().max(1.0) };
    (back(low - beyond), back(high + beyond))
}

impl Scale {
    /// The pixel of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        self.start + self.part(value) * (self.end - self.start)
    }

    pub(super) fn holds(&self, value: f64) -> bool {
        const SLACK: f64 = 1e-9;
        (-SLACK..=1.0 + SLACK).contains(&self.part(value))
    }

    /// How far along the axis a value is: 0 at `low`, 1 at `high`.
    fn part(&self, value: f64) -> f64 {
        let along = |value: f64| if self.log { value.ln() } else { value };
        (along(value) - along(self.low)) / (along(self.high) - along(self.low))
    }
}

#[cfg(test)]
mod tests {
    use super::Axis;

    fn axis(log: bool, from_zero: bool) -> Axis {
        Axis { name: String::new(), log, whole: false, from_zero }
    }

    #[test]
    fn equal_ratios_are_equally_far_apart_on_a_logarithmic_axis() {
        let scale = axis(true, true).scale([1.0, 100.0].into_iter(), 0.0, 200.0);
        assert!(
            [(1.0, 0.0), (10.0, 100.0), (100.0, 200.0)]
                .iter()
                .all(|(value, at)| (scale.at(*value) - at).abs() < 1e-9)
        );
    }

    #[test]
    fn a_logarithmic_axis_holds_nothing_below_its_end_however_long_it_is() {
        let scale = axis(true, true).scale([1e-7, 1e5].into_iter(), 0.0, 200.0);
        assert!([1e-7, 1.0, 1e5].iter().all(|value| scale.holds(*value)));
        assert!([0.0, -1.0, 9e-8, 1.1e5, f64::NAN].iter().all(|value| !scale.holds(*value)));
    }

    #[test]
    fn a_single_value_is_in_the_middle() {
        for log in [false, true] {
            let scale = axis(log, false).scale([7.0].into_iter(), 0.0, 10.0);
            assert!((scale.at(7.0) - 5.0).abs() < 1e-9 && scale.low < 7.0 && scale.high > 7.0);
        }
        let scale = axis(false, true).scale([7.0].into_iter(), 0.0, 10.0);
        assert_eq!((scale.low, scale.high), (0.0, 7.0));
    }
}
