//! Where everything of a plot goes.

use super::axis::Scale;
use super::labels::spread;
use super::palette::{self, AXIS, FAINT_INK, GRID, INK};
use super::picture::{Anchor, Picture, Point, Polyline, Shape};
use super::{Plot, Series, font, ticks};

const TITLE_SIZE: f64 = 18.0;
const NAME_SIZE: f64 = 13.0;
const TICK_SIZE: f64 = 12.0;
const LABEL_SIZE: f64 = 13.0;
const MARGIN: f64 = 16.0;
/// From one curve's name to the next.
const LABEL_GAP: f64 = 18.0;
/// From the curves to their names.
const LEADER: f64 = 34.0;
/// At most this part of the width is names.
const LABEL_PART: f64 = 0.42;
/// The share of a text's size from its foot to where it looks centred.
const MIDDLE: f64 = 0.35;
const X_GAP: f64 = 64.0;
const Y_GAP: f64 = 36.0;
/// Up to this many points, each is marked.
const FEW_POINTS: usize = 12;

/// The plot as shapes. Curves without a point are not drawn.
pub(crate) fn draw(plot: &Plot) -> Picture {
    let layout = Layout::of(plot);
    let about = plot.title.clone().unwrap_or_else(|| format!("{} over {}", plot.y.name, plot.x.name));
    let mut picture = Picture { width: plot.width, height: plot.height, about, shapes: Vec::new() };
    layout.axes(&mut picture);
    layout.references(&mut picture);
    layout.labels(&mut picture);
    let shown = || plot.series.iter().filter(|series| !series.points.is_empty());
    shown().for_each(|series| layout.curve(series, &mut picture));
    shown().for_each(|series| layout.dots(series, &mut picture));
    picture
}

struct Layout<'a> {
    plot: &'a Plot,
    x: Scale,
    y: Scale,
    x_ticks: Vec<f64>,
    y_ticks: Vec<f64>,
}

impl<'a> Layout<'a> {
    fn of(plot: &'a Plot) -> Self {
        let points = || plot.series.iter().flat_map(|series| &series.points);
        let levels = plot.references.iter().map(|reference| reference.value);
        let title = if plot.title.is_some() { TITLE_SIZE + 8.0 } else { 0.0 };
        let top = MARGIN + title + NAME_SIZE + 14.0;
        let bottom = f64::from(plot.height) - 52.0;
        let y = plot.y.scale(points().map(|point| point.1).chain(levels), bottom, top);
        let y_ticks = ticks::ticks(&y, Y_GAP, plot.y.whole);
        let left = MARGIN + widest(&ticks::labels(&y_ticks), TICK_SIZE) + 10.0;
        let right = f64::from(plot.width) - MARGIN - label_width(plot) - LEADER;
        let x = plot.x.scale(points().map(|point| point.0), left, right);
        let x_ticks = ticks::ticks(&x, X_GAP, plot.x.whole);
        Self { plot, x, y, x_ticks, y_ticks }
    }

    fn at(&self, (x, y): (f64, f64)) -> Point {
        (self.x.at(x), self.y.at(y))
    }

    fn axes(&self, picture: &mut Picture) {
        let left = self.x.start;
        let right = self.x.end;
        let bottom = self.y.start;
        let top = self.y.end;
        if let Some(title) = &self.plot.title {
            let title = font::fit(title, TITLE_SIZE, f64::from(self.plot.width) - 2.0 * MARGIN);
            picture.text((MARGIN, MARGIN + TITLE_SIZE - 2.0), title, TITLE_SIZE, INK, Anchor::Start);
        }
        picture.text((MARGIN, top - 14.0), &self.plot.y.name, NAME_SIZE, FAINT_INK, Anchor::Start);
        for (tick, label) in self.y_ticks.iter().zip(ticks::labels(&self.y_ticks)) {
            let y = self.y.at(*tick);
            picture.line(vec![(left, y), (right, y)], GRID, 1.0, None);
            picture.text((left - 8.0, y + MIDDLE * TICK_SIZE), label, TICK_SIZE, FAINT_INK, Anchor::End);
        }
        picture.line(vec![(left, bottom), (right, bottom)], AXIS, 1.0, None);
        for (tick, label) in self.x_ticks.iter().zip(ticks::labels(&self.x_ticks)) {
            let x = self.x.at(*tick);
            picture.line(vec![(x, bottom), (x, bottom + 5.0)], AXIS, 1.0, None);
            picture.text((x, bottom + 19.0), label, TICK_SIZE, FAINT_INK, Anchor::Middle);
        }
        let middle = f64::midpoint(left, right);
        picture.text((middle, bottom + 41.0), &self.plot.x.name, NAME_SIZE, FAINT_INK, Anchor::Middle);
    }

    /// Left, where a falling curve is still above.
    fn references(&self, picture: &mut Picture) {
        for reference in &self.plot.references {
            let y = self.y.at(reference.value);
            picture.line(vec![(self.x.start, y), (self.x.end, y)], FAINT_INK, 1.2, Some([2.0, 4.0]));
            let at = (self.x.start + 6.0, y - 5.0);
            picture.text(at, &reference.label, TICK_SIZE, FAINT_INK, Anchor::Start);
        }
    }

    fn curve(&self, series: &Series, picture: &mut Picture) {
        picture.shapes.push(Shape::Polyline(Polyline {
            points: series.points.iter().map(|&point| self.at(point)).collect(),
            color: palette::curve(series.color),
            width: if series.second { 1.4 } else { 2.2 },
            dash: series.second.then_some([5.0, 5.0]),
            title: Some(series.label.clone()),
        }));
    }

    /// Each point where they are few, and the best one, larger.
    fn dots(&self, series: &Series, picture: &mut Picture) {
        let color = palette::curve(series.color);
        if series.points.len() <= FEW_POINTS && !series.second {
            series.points.iter().for_each(|&point| picture.dot(self.at(point), 2.8, color));
        }
        if let Some((best, _)) = series.best {
            picture.dot(self.at(series.points[best]), 4.5, color);
        }
    }

    /// The curves' names, each joined to its curve's end.
    fn labels(&self, picture: &mut Picture) {
        let named: Vec<&Series> = self.plot.series.iter().filter(|series| is_named(series)).collect();
        let end = |series: &&Series| self.at(*series.points.last().expect("a named curve has a point"));
        let ends: Vec<Point> = named.iter().map(end).collect();
        let wanted: Vec<f64> = ends.iter().map(|point| point.1).collect();
        let positions = spread(&wanted, LABEL_GAP, self.y.end, self.y.start);
        for ((series, &end), &y) in named.iter().zip(&ends).zip(&positions) {
            self.label(series, end, y, picture);
        }
    }

    fn label(&self, series: &Series, end: Point, y: f64, picture: &mut Picture) {
        let color = palette::curve(series.color);
        let right = self.x.end;
        let dash = (end.0 < right - 1.0).then_some([1.0, 4.0]);
        let faded = palette::faded(color);
        picture.line(vec![end, (right, end.1)], faded, 1.2, dash);
        picture.line(vec![(right, end.1), (right + 14.0, y)], faded, 1.2, None);
        picture.line(vec![(right + 14.0, y), (right + LEADER - 8.0, y)], color, 2.2, None);
        let (name, value) = label_texts(self.plot, series);
        let x = right + LEADER;
        let foot = y + MIDDLE * LABEL_SIZE;
        picture.text((x, foot), name, LABEL_SIZE, INK, Anchor::Start);
        let edge = f64::from(self.plot.width) - MARGIN;
        picture.text((edge, foot), value, LABEL_SIZE, FAINT_INK, Anchor::End);
    }
}

fn is_named(series: &Series) -> bool {
    !series.second && !series.points.is_empty()
}

/// A curve's name, cut if it is very long, and its best value.
fn label_texts(plot: &Plot, series: &Series) -> (String, String) {
    let value = series.best.as_ref().map(|(_, value)| value.clone()).unwrap_or_default();
    let most = LABEL_PART * f64::from(plot.width) - font::reserved(&value, LABEL_SIZE);
    (font::fit(&series.label, LABEL_SIZE, most), value)
}

/// How wide the names are: in two columns, names and values.
fn label_width(plot: &Plot) -> f64 {
    let texts = plot.series.iter().filter(|series| is_named(series)).map(|series| label_texts(plot, series));
    let (names, values): (Vec<String>, Vec<String>) = texts.unzip();
    let name = widest(&names, LABEL_SIZE);
    let value = widest(&values, LABEL_SIZE);
    if value > 0.0 { name + 12.0 + value } else { name }
}

fn widest(texts: &[String], size: f64) -> f64 {
    texts.iter().map(|text| font::reserved(text, size)).fold(0.0, f64::max)
}
