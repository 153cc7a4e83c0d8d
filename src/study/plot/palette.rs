//! Colours that the colour-blind can distinguish on white: Okabe and Ito's without yellow, then three of Tol's.

use super::picture::Color;

pub(super) const WHITE: Color = Color(255, 255, 255);
pub(super) const INK: Color = Color(34, 34, 34);
pub(super) const FAINT_INK: Color = Color(102, 102, 102);
pub(super) const AXIS: Color = Color(140, 140, 140);
pub(super) const GRID: Color = Color(230, 230, 230);

const CURVES: [Color; 10] = [
    Color(0, 114, 178),
    Color(213, 94, 0),
    Color(0, 158, 115),
    Color(204, 121, 167),
    Color(230, 159, 0),
    Color(86, 180, 233),
    Color(68, 68, 68),
    Color(136, 34, 85),
    Color(153, 153, 51),
    Color(51, 34, 136),
];

/// The colour of curve `number`, counted from 0; after ten they come again.
pub(super) fn curve(number: usize) -> Color {
    CURVES[number % CURVES.len()]
}

/// Half way to white.
pub(super) fn faded(Color(red, green, blue): Color) -> Color {
    let half = |part: u8| u8::midpoint(part, 255);
    Color(half(red), half(green), half(blue))
}
