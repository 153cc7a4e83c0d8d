//! Colours for values: viridis for those that rise from one end, blue over white to orange for those around a middle.
//! Both can be told apart by the colour-blind, and in viridis also in grey.

use super::blank::has_color;
use crate::study::plot::picture::Color;

/// How values become colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ColorScale {
    /// From the darkest to the lightest colour; an end that is not given is the least or the greatest value.
    Sequential { low: Option<f64>, high: Option<f64> },
    /// Blue below `middle`, orange above it, as far as `reach` on both sides or as the farthest value.
    Diverging { middle: f64, reach: Option<f64> },
}

/// So many colours; an odd number has one for the middle. Fewer different ones make a smaller file, and the eye does
/// not distinguish more.
pub(super) const LEVELS: usize = 65;

/// Sixteen steps through viridis (Stéfan van der Walt and Nathaniel Smith, CC0).
const VIRIDIS: [Color; 17] = [
    Color(68, 1, 84),
    Color(72, 24, 106),
    Color(71, 45, 123),
    Color(66, 64, 134),
    Color(59, 82, 139),
    Color(51, 99, 141),
    Color(44, 114, 142),
    Color(38, 130, 142),
    Color(33, 145, 140),
    Color(31, 160, 136),
    Color(40, 174, 128),
    Color(63, 188, 115),
    Color(94, 201, 98),
    Color(132, 212, 75),
    Color(173, 220, 48),
    Color(216, 226, 25),
    Color(253, 231, 37),
];

/// From the palette's blue to its orange, both also darker, over nearly white.
const BLUE_ORANGE: [Color; 7] = [
    Color(0, 48, 92),
    Color(0, 114, 178),
    Color(138, 190, 224),
    Color(246, 246, 246),
    Color(244, 180, 136),
    Color(213, 94, 0),
    Color(122, 44, 0),
];

/// A scale whose ends are known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Colors {
    pub(super) low: f64,
    pub(super) high: f64,
    diverging: bool,
    /// Whether values lie below `low` and above `high`, which then have the colours of the ends.
    pub(super) beyond: [bool; 2],
}

impl Colors {
    /// Over these finite values.
    pub(super) fn new(scale: ColorScale, values: &[f64]) -> Self {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let or = |given: Option<f64>, found: f64| given.filter(|end| has_color(*end)).unwrap_or(found);
        let (low, high, diverging) = match scale {
            ColorScale::Sequential { low, high } => (or(low, least), or(high, greatest), false),
            ColorScale::Diverging { middle, reach } => {
                let middle = if has_color(middle) { middle } else { 0.0 };
                let reach = or(reach, (greatest - middle).max(middle - least)).abs();
                (middle - reach, middle + reach, true)
            }
        };
        let (low, high) = match (low.is_finite(), high.is_finite()) {
            (true, true) if low < high => (low, high),
            (true, _) => (low - 0.5 * low.abs().max(1.0), low + 0.5 * low.abs().max(1.0)),
            _ => (0.0, 1.0),
        };
        Self { low, high, diverging, beyond: [least < low, greatest > high] }
    }

    /// Which of the [`LEVELS`] a finite value has; beyond the ends it is the end's.
    pub(super) fn level(&self, value: f64) -> usize {
        let part = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        (part * (LEVELS - 1) as f64).round() as usize
    }

    /// The colour of a level.
    pub(super) fn color(&self, level: usize) -> Color {
        let anchors: &[Color] = if self.diverging { &BLUE_ORANGE } else { &VIRIDIS };
        let place = level as f64 / (LEVELS - 1) as f64 * (anchors.len() - 1) as f64;
        let before = (place as usize).min(anchors.len() - 2);
        between(anchors[before], anchors[before + 1], place - before as f64)
    }
}

fn between(first: Color, second: Color, part: f64) -> Color {
    let mix = |first: u8, second: u8| {
        (f64::from(first) + part * (f64::from(second) - f64::from(first))).round() as u8
    };
    Color(mix(first.0, second.0), mix(first.1, second.1), mix(first.2, second.2))
}

#[cfg(test)]
mod tests {
    use super::{BLUE_ORANGE, ColorScale, Colors, LEVELS, VIRIDIS};

    #[test]
    fn the_ends_of_a_scale_are_the_ends_of_its_colours() {
        let colors = Colors::new(ColorScale::Sequential { low: Some(0.0), high: None }, &[0.25, 0.5]);
        assert_eq!((colors.low, colors.high), (0.0, 0.5));
        assert_eq!(colors.color(colors.level(0.0)), VIRIDIS[0]);
        assert_eq!(colors.color(colors.level(0.25)), VIRIDIS[8]);
        assert_eq!(colors.color(colors.level(7.0)), VIRIDIS[16], "beyond the end it is the end's");
        assert_eq!(colors.beyond, [false, false]);
        let narrow = ColorScale::Sequential { low: None, high: Some(0.4) };
        assert_eq!(Colors::new(narrow, &[0.25, 0.5]).beyond, [false, true]);
    }

    #[test]
    fn the_middle_of_a_diverging_scale_is_nearly_white() {
        let colors = Colors::new(ColorScale::Diverging { middle: -2.0, reach: None }, &[-2.5, -1.0]);
        assert_eq!((colors.low, colors.high), (-3.0, -1.0));
        assert_eq!(colors.color(colors.level(-2.0)), BLUE_ORANGE[3]);
        assert_eq!(colors.color(LEVELS - 1), BLUE_ORANGE[6]);
    }

    #[test]
    fn a_scale_of_nothing_or_of_one_value_has_two_ends() {
        for values in [&[][..], &[7.0], &[3.0, 3.0]] {
            for scale in [
                ColorScale::Sequential { low: None, high: None },
                ColorScale::Diverging { middle: f64::NAN, reach: Some(0.0) },
            ] {
                let colors = Colors::new(scale, values);
                assert!(colors.low < colors.high && colors.level(7.0) < LEVELS, "{colors:?}");
            }
        }
    }
}
