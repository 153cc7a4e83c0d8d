//! Learning curves in one picture, and figures of panels, as SVG or PNG.
//!
//! Each learning curve is named at its right end, so that no legend covers another; a [`Figure`] has one legend for all
//! its panels. What is drawn is first laid out as [`picture::Shape`]s, and both formats are written from these.

mod axis;
mod draw;
mod figure;
mod font;
mod labels;
mod palette;
mod picture;
mod png;
mod svg;
mod ticks;

pub(crate) use axis::Axis;
pub(crate) use draw::draw;
pub(crate) use figure::{
    Bar, Bars, Cloud, Content, Figure, Group, Line, LinePoint, Lines, Panel, Points, draw_figure,
};
pub(crate) use figure::{
    ColorScale, DepthCurve, KindBars, KindCurves, depth_bars, layer_map, training_curves,
};
pub(crate) use png::to_png;
pub(crate) use svg::to_svg;
pub(crate) use ticks::significant;

#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// Above the picture.
    pub title: Option<String>,
    /// From left to right.
    pub x: Axis,
    /// From below to above.
    pub y: Axis,
    /// At least one has a point.
    pub series: Vec<Series>,
    pub references: Vec<Reference>,
    /// Width and height are in pixels.
    pub width: u32,
    pub height: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Its name, at its right end.
    pub label: String,
    /// Which of the palette's colours, counted from 0.
    pub color: usize,
    /// A second curve of the same run, dashed and without a name.
    pub second: bool,
    /// From left to right; finite.
    pub points: Vec<(f64, f64)>,
    /// The best point and its value as the label shows it.
    pub best: Option<(usize, String)>,
}

/// A level to compare with, say a published result.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub value: f64,
    pub label: String,
}
