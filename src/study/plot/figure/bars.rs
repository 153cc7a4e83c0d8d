//! Bars with whiskers, drawn.

use super::bar_plan::{BarPlan, value_text};
use super::blank::can_show;
use super::content::{Bar, Group};
use super::frame::Frame;
use super::legend::cross;
use super::marks::{self, MARK_SIZE};
use crate::study::plot::palette::{self, INK};
use crate::study::plot::picture::{Anchor, Picture, Point, Rectangle, Shape};

impl BarPlan<'_> {
    pub(super) fn frame(&self) -> Frame {
        let frame = Frame {
            width: self.width,
            height: self.height,
            x_marks: marks::of_parts(&self.bars.categories, self.slot, false),
            y_marks: marks::along_y(&self.y, self.bars.y.whole),
            x_name: self.bars.x_name.clone(),
            y_name: self.bars.y.name.clone(),
            grid: true,
            ..Frame::default()
        };
        frame.with_references(&self.bars.references, &self.y)
    }

    pub(super) fn draw(&self, origin: Point, picture: &mut Picture) {
        for (number, group) in self.bars.groups.iter().enumerate() {
            for (category, bar) in group.bars.iter().enumerate().take(self.bars.categories.len()) {
                let left = origin.0 + self.left_of(category, number);
                if let Some(bar) = bar {
                    self.bar(bar, group, category, (left, origin.1), picture);
                }
            }
        }
    }

    fn bar(&self, bar: &Bar, group: &Group, category: usize, (left, top): Point, picture: &mut Picture) {
        let middle = left + self.thick / 2.0;
        if !can_show(&self.bars.y, bar.value) {
            cross((middle, top + self.base() - 9.0), picture);
            return;
        }
        let ends = [self.base(), self.y.at(bar.value)];
        let upper = ends[0].min(ends[1]);
        picture.shapes.push(Shape::Rectangle(Rectangle {
            at: (left + 0.5, top + upper),
            width: (self.thick - 1.0).max(1.0),
            height: (ends[0] - ends[1]).abs(),
            color: palette::curve(group.color),
            title: Some(self.title(bar, group, category)),
        }));
        let highest = self.whisker(bar, middle, top, picture).min(top + upper);
        if self.values {
            let at = (middle, highest - 5.0);
            picture.text(at, value_text(bar.value), MARK_SIZE, INK, Anchor::Middle);
        }
    }

    /// The pixel of its upper end.
    fn whisker(&self, bar: &Bar, middle: f64, top: f64, picture: &mut Picture) -> f64 {
        let end = |end: Option<f64>| end.filter(|end| can_show(&self.bars.y, *end));
        let [low, high] = [end(bar.low), end(bar.high)];
        let from = top + self.y.at(low.unwrap_or(bar.value));
        let to = top + self.y.at(high.unwrap_or(bar.value));
        let half = (self.thick / 4.0).min(6.0);
        if low.or(high).is_some() {
            picture.line(vec![(middle, from), (middle, to)], INK, 1.4, None);
        }
        for y in [low.map(|_| from), high.map(|_| to)].into_iter().flatten() {
            picture.line(vec![(middle - half, y), (middle + half, y)], INK, 1.4, None);
        }
        to.min(from)
    }

    fn title(&self, bar: &Bar, group: &Group, category: usize) -> String {
        let name = &self.bars.categories[category];
        let label = if group.label.is_empty() { String::new() } else { format!("{}, ", group.label) };
        let range = match (bar.low, bar.high) {
            (Some(low), Some(high)) => format!(" ({} – {})", value_text(low), value_text(high)),
            _ => String::new(),
        };
        format!("{label}{} {name}: {}{range}", self.bars.x_name, value_text(bar.value))
    }
}
