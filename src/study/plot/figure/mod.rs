//! Figures of one or more panels: heat maps, bars with whiskers, lines with bands, points.
//!
//! [`content`] is what a caller fills in. Each panel first becomes a [`frame::Frame`], a plot area with its marks, then
//! [`layout`] finds where each goes and how large the picture is, so that no text lies on another. A value that is not
//! finite, or not above zero on a logarithmic axis, is never drawn as another one: the legend says how it is shown.

mod bar_plan;
mod bars;
mod blank;
mod color_scale;
mod content;
mod domain;
#[cfg(test)]
mod examples;
mod frame;
mod heat_map;
mod layout;
mod legend;
mod lines;
mod marks;
mod points;
mod presets;
#[cfg(test)]
mod tests;

pub(crate) use color_scale::ColorScale;
pub(crate) use content::{Bar, Bars, Cloud, Content, Figure, Group, Line, LinePoint, Lines, Panel, Points};
pub(crate) use layout::draw_figure;
pub(crate) use presets::{DepthCurve, KindBars, KindCurves, depth_bars, layer_map, training_curves};
