//! What a figure shows, as plain data.

use super::ColorScale;
use crate::study::plot::{Axis, Reference};

/// Panels in a grid, row by row.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// Above the panels.
    pub title: String,
    pub panels: Vec<Panel>,
    /// How many panels stand side by side.
    pub columns: usize,
    /// Panels of one kind have the same axes (heat maps the same colours), so that they can be compared.
    pub equal_axes: bool,
}

/// A plot of a figure.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    /// Above it; may be empty.
    pub title: String,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Lines(Lines),
    Bars(Bars),
    HeatMap(HeatMap),
    Points(Points),
}

/// Lines over a common axis. Those of equal label and colour in several panels share an entry of the legend.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    pub references: Vec<Reference>,
}

#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// In the legend; none if empty.
    pub label: String,
    /// Which of the palette's colours, counted from 0.
    pub color: usize,
    pub dashed: bool,
    /// From left to right; a value that cannot be shown is a gap.
    pub points: Vec<LinePoint>,
}

/// A point of a line, and how far the band around the line reaches there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinePoint {
    pub x: f64,
    pub y: f64,
    /// The lower and the upper end of the band, say mean ∓ standard deviation.
    pub band: Option<(f64, f64)>,
}

/// Bars over named categories, in each a bar of every group.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    /// What the categories are.
    pub x_name: String,
    pub y: Axis,
    pub categories: Vec<String>,
    pub groups: Vec<Group>,
    /// Levels to compare with, say that of the untouched model.
    pub references: Vec<Reference>,
}

/// Bars of one colour.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// In the legend; none if empty.
    pub label: String,
    /// Which of the palette's colours, counted from 0.
    pub color: usize,
    /// One for each category; none where nothing was measured.
    pub bars: Vec<Option<Bar>>,
}

/// A value, and the ends of its whisker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    pub value: f64,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

/// A matrix of colours, the first row at the top.
#[derive(Clone, Debug)]
pub(crate) struct HeatMap {
    pub rows: CellAxis,
    pub columns: CellAxis,
    /// Row by row; what is not finite, and what a short row lacks, is hatched in grey.
    pub values: Vec<Vec<f64>>,
    /// What the colours show, with the unit.
    pub value_name: String,
    pub scale: ColorScale,
}

/// What the rows or columns of a heat map are.
#[derive(Clone, Debug)]
pub(crate) struct CellAxis {
    pub name: String,
    /// Their names; if there are none they are numbered from `first`.
    pub labels: Vec<String>,
    pub first: usize,
}

/// Points that no line joins.
#[derive(Clone, Debug)]
pub(crate) struct Points {
    pub x: Axis,
    pub y: Axis,
    pub clouds: Vec<Cloud>,
    pub references: Vec<Reference>,
}

/// Points of one colour.
#[derive(Clone, Debug)]
pub(crate) struct Cloud {
    /// In the legend; none if empty.
    pub label: String,
    /// Which of the palette's colours, counted from 0.
    pub color: usize,
    pub points: Vec<(f64, f64)>,
}
