//! Which values can be shown. What cannot is left out and named in the legend, and never drawn as another value.

use crate::study::plot::Axis;

/// Beyond this, distances on an axis are no longer finite.
const LARGEST: f64 = 1e250;

/// Whether an axis has a place for the value.
pub(super) fn can_show(axis: &Axis, value: f64) -> bool {
    value.abs() < LARGEST && (!axis.log || value > 1.0 / LARGEST) // a NaN is below nothing
}

/// Whether a cell of a heat map can be coloured.
pub(super) fn has_color(value: f64) -> bool {
    value.abs() < LARGEST
}

/// What the legend calls values that `axis` cannot show.
pub(super) fn reason(axis: &Axis) -> &'static str {
    if axis.log { "no finite value above 0" } else { "no finite value" }
}
