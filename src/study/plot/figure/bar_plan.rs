//! How wide and high bars are: the scale of their values, and the place of each.

use super::content::Bars;
use super::domain::Domain;
use super::marks::MARK_SIZE;
use crate::study::plot::axis::Scale;
use crate::study::plot::{font, ticks};

/// The share of a category's width that its bars take.
const FILLED: f64 = 0.76;
/// Between the names of two categories.
const BETWEEN: f64 = 12.0;
const WIDEST: f64 = 1400.0;
const NARROWEST_BAR: f64 = 3.0;
/// Room above the bars for their values.
const VALUES: f64 = 20.0;

/// Bars with their sizes; pixels are counted from the plot area's upper left corner.
pub(super) struct BarPlan<'a> {
    pub(super) bars: &'a Bars,
    pub(super) y: Scale,
    pub(super) width: f64,
    pub(super) height: f64,
    /// The width of a category.
    pub(super) slot: f64,
    /// The width of a bar.
    pub(super) thick: f64,
    /// The values stand above the bars: they are few enough.
    pub(super) values: bool,
}

impl<'a> BarPlan<'a> {
    /// In `width` × `height` pixels, or wider where the names of the categories need it.
    pub(super) fn new(bars: &'a Bars, domain: &Domain, (width, height): (f64, f64)) -> Self {
        let count = bars.categories.len().max(1) as f64;
        let groups = bars.groups.len().max(1) as f64;
        let numbered = bars.categories.iter().all(|name| name.parse::<usize>().is_ok());
        let names = bars.categories.iter().map(|name| font::reserved(name, MARK_SIZE) + BETWEEN);
        let name = if numbered { 0.0 } else { names.fold(0.0, f64::max) };
        let bars_need = NARROWEST_BAR * groups / FILLED;
        let slot = (width / count).max(name.min(WIDEST / count)).max(bars_need);
        let slot = slot.min(150.0); // a few bars need no wide ones
        let thick = FILLED * slot / groups;
        let all = || bars.groups.iter().flat_map(|group| group.bars.iter().flatten());
        let values = all().all(|bar| font::reserved(&value_text(bar.value), MARK_SIZE) <= thick + 4.0);
        let top = if values { VALUES } else { 0.0 };
        Self {
            bars,
            y: scale(bars, &domain.y, height, top),
            width: slot * count,
            height,
            slot,
            thick,
            values,
        }
    }

    /// The left edge of a group's bar in a category.
    pub(super) fn left_of(&self, category: usize, group: usize) -> f64 {
        let free = self.slot * (1.0 - FILLED) / 2.0;
        category as f64 * self.slot + free + group as f64 * self.thick
    }

    /// Where bars begin: at zero, or on a logarithmic axis at its lower end.
    pub(super) fn base(&self) -> f64 {
        if self.y.log { self.y.start } else { self.y.at(0.0) }
    }
}

/// A value as it stands above a bar.
pub(super) fn value_text(value: f64) -> String {
    ticks::significant(value, 3)
}

/// A linear axis has zero; a logarithmic one begins at a round number (1, 2 or 5 and zeros) below the least value.
fn scale(bars: &Bars, values: &[f64], bottom: f64, top: f64) -> Scale {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log = bars.y.log;
    let (low, high) = match (values.is_empty(), log) {
        (true, true) => (1.0, 10.0),
        (true, false) => (0.0, 1.0),
        (false, true) => {
            let low = round_below(least / 1.1);
            (low, greatest * (greatest / low).powf(0.03))
        }
        (false, false) if least >= 0.0 && greatest == 0.0 => (0.0, 1.0),
        (false, false) => {
            let beyond = 0.03 * (greatest.max(0.0) - least.min(0.0));
            let low = if least < 0.0 { least - beyond } else { 0.0 };
            let high = if greatest > 0.0 { greatest + beyond } else { 0.0 };
            (low, high)
        }
    };
    Scale { low, high, log, start: bottom, end: top }
}

fn round_below(value: f64) -> f64 {
    let power = 10f64.powi(value.log10().floor() as i32);
    [5.0, 2.0].map(|digit| digit * power).into_iter().find(|round| *round <= value).unwrap_or(power)
}

#[cfg(test)]
mod tests {
    use super::round_below;

    #[test]
    fn a_logarithmic_axis_of_bars_begins_at_a_round_number() {
        let found = [4.2, 2.4e-5, 0.06, 1.0].map(round_below);
        assert!(
            found
                .iter()
                .zip([2.0, 2e-5, 0.05, 1.0])
                .all(|(found, wanted)| (found / wanted - 1.0).abs() < 1e-9)
        );
    }
}
