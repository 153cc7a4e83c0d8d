//! Heat maps: a matrix of coloured cells, and beside it a bar that says what the colours mean.
//!
//! Cells are whole pixels wide and high, so that no seams show between them, and at least one pixel.

use super::blank::has_color;
use super::color_scale::{Colors, LEVELS};
use super::content::{CellAxis, HeatMap};
use super::frame::{Frame, MIDDLE};
use super::marks::{self, MARK_SIZE, Mark};
use crate::study::plot::axis::Scale;
use crate::study::plot::palette::{AXIS, FAINT_INK};
use crate::study::plot::picture::{Anchor, Color, Picture, Point};

const BLANK: Color = Color(206, 206, 206);
const HATCH: Color = Color(150, 150, 150);
/// In smaller cells a hatch would be a blur.
const SMALLEST_HATCHED: f64 = 5.0;
const LARGEST_CELL: f64 = 40.0;
const BAR_GAP: f64 = 16.0;
const BAR_WIDTH: f64 = 14.0;
const BAR_HEIGHT: f64 = 260.0;
/// How far the bar's end points beyond it.
const TIP: f64 = 8.0;
/// A colour bar beside a flat map is higher than the map, so that it can be read.
const LEAST_BAR: f64 = 90.0;

/// A heat map with its sizes.
pub(super) struct HeatPlan<'a> {
    map: &'a HeatMap,
    colors: Colors,
    columns: usize,
    cell_width: f64,
    cell_height: f64,
    bar: Scale,
}

impl<'a> HeatPlan<'a> {
    /// In about `width` × `height` pixels, its colours over `values`.
    pub(super) fn new(map: &'a HeatMap, values: &[f64], (width, height): (f64, f64)) -> Self {
        let columns = columns(map);
        let cell = |room: f64, count: usize| (room / count.max(1) as f64).floor().clamp(1.0, LARGEST_CELL);
        let cell_height = cell(height, map.values.len());
        let colors = Colors::new(map.scale, values);
        let bar_height = (cell_height * map.values.len() as f64).clamp(LEAST_BAR, BAR_HEIGHT);
        let bar = Scale { low: colors.low, high: colors.high, log: false, start: bar_height, end: 0.0 };
        Self { map, colors, columns, cell_width: cell(width, columns), cell_height, bar }
    }

    pub(super) fn frame(&self) -> Frame {
        let bar_marks = marks::along_y(&self.bar, false);
        Frame {
            width: self.width(),
            height: self.height(),
            x_marks: marks::of_parts(&texts(&self.map.columns, self.columns), self.cell_width, false),
            y_marks: marks::of_parts(&texts(&self.map.rows, self.map.values.len()), self.cell_height, true),
            x_name: self.map.columns.name.clone(),
            y_name: self.map.rows.name.clone(),
            right_name: self.map.value_name.clone(),
            right: BAR_GAP + BAR_WIDTH + 8.0 + marks::widest(&bar_marks),
            ticks: self.cell_width >= 3.0,
            ..Frame::default()
        }
    }

    fn width(&self) -> f64 {
        self.cell_width * self.columns as f64
    }

    fn height(&self) -> f64 {
        (self.cell_height * self.map.values.len() as f64).max(LEAST_BAR)
    }

    /// Cells of one colour after another, which the formats can write as one; equal neighbours of a row are one.
    pub(super) fn draw(&self, (left, top): Point, picture: &mut Picture) {
        let mut levels: Vec<Vec<(Point, f64)>> = vec![Vec::new(); LEVELS];
        for (row, values) in self.map.values.iter().enumerate() {
            for column in 0..self.columns {
                let at = (left + column as f64 * self.cell_width, top + row as f64 * self.cell_height);
                match values.get(column) {
                    Some(value) if has_color(*value) => {
                        let cells = &mut levels[self.colors.level(*value)];
                        match cells.last_mut() {
                            Some(((left, top), width)) if (*left + *width, *top) == at => {
                                *width += self.cell_width
                            }
                            _ => cells.push((at, self.cell_width)),
                        }
                    }
                    _ => blank_cell(at, self.cell_width, self.cell_height, picture),
                }
            }
        }
        for (level, cells) in levels.into_iter().enumerate() {
            let color = self.colors.color(level);
            cells.into_iter().for_each(|(at, width)| picture.rectangle(at, width, self.cell_height, color));
        }
        self.draw_bar((left + self.width() + BAR_GAP, top), picture);
    }

    fn draw_bar(&self, (left, top): Point, picture: &mut Picture) {
        let height = self.bar.start;
        let edge = |level: usize| (top + height * (1.0 - level as f64 / LEVELS as f64)).round();
        for level in 0..LEVELS {
            let upper = edge(level + 1);
            let color = self.colors.color(level);
            picture.rectangle((left, upper), BAR_WIDTH, edge(level) - upper, color);
        }
        self.draw_tips(left, (top, top + height), picture);
        for Mark { at, text } in marks::along_y(&self.bar, false) {
            let y = top + at;
            picture.line(vec![(left + BAR_WIDTH, y), (left + BAR_WIDTH + 4.0, y)], AXIS, 1.0, None);
            let start = (left + BAR_WIDTH + 8.0, y + MIDDLE * MARK_SIZE);
            picture.text(start, text, MARK_SIZE, FAINT_INK, Anchor::Start);
        }
    }

    /// The bar ends in a point where values lie beyond it: they have the colour of that end.
    fn draw_tips(&self, left: f64, (top, bottom): (f64, f64), picture: &mut Picture) {
        let ends = [(0, bottom, bottom + TIP), (LEVELS - 1, top, top - TIP)];
        for ((level, base, tip), beyond) in ends.into_iter().zip(self.colors.beyond) {
            if beyond {
                let corners = vec![(left, base), (left + BAR_WIDTH, base), (left + BAR_WIDTH / 2.0, tip)];
                picture.polygon(corners, self.colors.color(level), 1.0);
            }
        }
    }
}

/// A cell without a value: grey, and hatched where it is large enough.
pub(super) fn blank_cell((x, y): Point, width: f64, height: f64, picture: &mut Picture) {
    picture.rectangle((x, y), width, height, BLANK);
    if width.min(height) >= SMALLEST_HATCHED {
        picture.line(vec![(x + 1.5, y + height - 1.5), (x + width - 1.5, y + 1.5)], HATCH, 1.0, None);
    }
}

/// Whether a cell has no finite value.
pub(super) fn has_blanks(map: &HeatMap) -> bool {
    let columns = columns(map);
    map.values.iter().any(|row| row.len() < columns || row.iter().any(|value| !has_color(*value)))
}

fn columns(map: &HeatMap) -> usize {
    map.values.iter().map(Vec::len).max().unwrap_or(0)
}

/// The names of `count` rows or columns, or their numbers.
fn texts(axis: &CellAxis, count: usize) -> Vec<String> {
    if axis.labels.is_empty() {
        return (axis.first..axis.first + count).map(|number| number.to_string()).collect();
    }
    axis.labels.iter().take(count).cloned().collect()
}
