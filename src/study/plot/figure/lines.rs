//! Lines with bands over a common axis.

use super::blank::can_show;
use super::content::{Line, LinePoint, Lines};
use super::domain::{self, Domain};
use super::frame::Frame;
use super::marks;
use crate::study::plot::axis::Scale;
use crate::study::plot::palette;
use crate::study::plot::picture::{Picture, Point, Polyline, Shape};

/// Up to this many points, each is marked.
const FEW_POINTS: usize = 12;
const BAND: f64 = 0.18;

/// Lines with the scales of their panel; pixels are counted from the plot area's upper left corner.
pub(super) struct LinePlan<'a> {
    lines: &'a Lines,
    pub(super) x: Scale,
    pub(super) y: Scale,
}

impl<'a> LinePlan<'a> {
    pub(super) fn new(lines: &'a Lines, domain: &Domain, (width, height): (f64, f64)) -> Self {
        let x = domain::scale(&lines.x, &domain.x, 0.0, width);
        let y = domain::scale(&lines.y, &domain.y, height, 0.0);
        Self { lines, x, y }
    }

    pub(super) fn frame(&self) -> Frame {
        let frame = Frame {
            width: self.x.end,
            height: self.y.start,
            x_marks: marks::along_x(&self.x, self.lines.x.whole),
            y_marks: marks::along_y(&self.y, self.lines.y.whole),
            x_name: self.lines.x.name.clone(),
            y_name: self.lines.y.name.clone(),
            grid: true,
            ticks: true,
            ..Frame::default()
        };
        frame.with_references(&self.lines.references, &self.y)
    }

    /// All bands, then all lines, so that no band covers a line.
    pub(super) fn draw(&self, origin: Point, picture: &mut Picture) {
        let runs = || self.lines.lines.iter().flat_map(|line| self.runs(line).map(move |run| (line, run)));
        runs().for_each(|(line, run)| self.band(line, run, origin, picture));
        runs().for_each(|(line, run)| self.line(line, run, origin, picture));
    }

    /// The parts of a line between its gaps.
    fn runs<'b>(&self, line: &'b Line) -> impl Iterator<Item = &'b [LinePoint]> {
        let shown = |point: &LinePoint| can_show(&self.lines.x, point.x) && can_show(&self.lines.y, point.y);
        let parts: Vec<&[LinePoint]> = line.points.split(|point| !shown(point)).collect();
        parts.into_iter().filter(|run| !run.is_empty())
    }

    fn at(&self, (left, top): Point, x: f64, y: f64) -> Point {
        (left + self.x.at(x), top + self.y.at(y))
    }

    /// An end of a band that cannot be shown is the end of the axis.
    fn band(&self, line: &Line, run: &[LinePoint], origin: Point, picture: &mut Picture) {
        let banded: Vec<(f64, f64, f64)> =
            run.iter().filter_map(|point| point.band.map(|(low, high)| (point.x, low, high))).collect();
        if banded.len() < 2 {
            return;
        }
        let end = |value: f64, otherwise: f64| {
            let value = if can_show(&self.lines.y, value) { value } else { otherwise };
            value.clamp(self.y.low, self.y.high)
        };
        let upper = banded.iter().map(|&(x, _, high)| self.at(origin, x, end(high, self.y.high)));
        let lower = banded.iter().rev().map(|&(x, low, _)| self.at(origin, x, end(low, self.y.low)));
        picture.polygon(upper.chain(lower).collect(), palette::curve(line.color), BAND);
    }

    fn line(&self, line: &Line, run: &[LinePoint], origin: Point, picture: &mut Picture) {
        let color = palette::curve(line.color);
        let points: Vec<Point> = run.iter().map(|point| self.at(origin, point.x, point.y)).collect();
        let dots =
            if line.points.len() <= FEW_POINTS || run.len() == 1 { points.clone() } else { Vec::new() };
        picture.shapes.push(Shape::Polyline(Polyline {
            points,
            color,
            width: 2.0,
            dash: line.dashed.then_some([5.0, 5.0]),
            title: (!line.label.is_empty()).then(|| line.label.clone()),
        }));
        dots.into_iter().for_each(|point| picture.dot(point, 2.8, color));
    }
}
