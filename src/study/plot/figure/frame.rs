//! A panel's plot area with its marks and names, before it has a place in the picture.

use super::marks::{self, MARK_SIZE, Mark};
use crate::study::plot::Reference;
use crate::study::plot::axis::Scale;
use crate::study::plot::font;
use crate::study::plot::labels::spread;
use crate::study::plot::palette::{AXIS, FAINT_INK, GRID, INK};
use crate::study::plot::picture::{Anchor, Picture, Point};

pub(super) const PANEL_TITLE_SIZE: f64 = 14.0;
pub(super) const NAME_SIZE: f64 = 13.0;
/// The share of a text's size from its foot to where it looks centred.
pub(super) const MIDDLE: f64 = 0.35;
/// A reference's text is cut to this.
const REFERENCE_WIDTH: f64 = 170.0;
/// From one reference's text to the next.
const REFERENCE_GAP: f64 = 16.0;
/// Room below the plot area: marks, and the name of the axis.
const BELOW: f64 = 44.0;

/// Everything of a panel but its content; pixels are counted from the plot area's upper left corner.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) x_marks: Vec<Mark>,
    pub(super) y_marks: Vec<Mark>,
    pub(super) x_name: String,
    pub(super) y_name: String,
    /// A name above the right edge, say that of the colours.
    pub(super) right_name: String,
    /// Room that the content takes to the right of the plot area.
    pub(super) right: f64,
    /// The marks of the vertical axis have lines.
    pub(super) grid: bool,
    /// The marks of the horizontal axis have short lines.
    pub(super) ticks: bool,
    /// Levels with their texts, in pixels from the top.
    pub(super) references: Vec<Mark>,
}

impl Frame {
    /// Room to the left of the plot area.
    pub(super) fn left(&self) -> f64 {
        marks::widest(&self.y_marks) + 10.0
    }

    /// Room above it: a title if `titled`, and the name of the vertical axis.
    pub(super) fn above(titled: bool) -> f64 {
        (if titled { PANEL_TITLE_SIZE + 10.0 } else { 0.0 }) + NAME_SIZE + 12.0
    }

    /// Room below it.
    pub(super) fn below() -> f64 {
        BELOW
    }

    /// Room to the right of it.
    pub(super) fn right(&self) -> f64 {
        let texts = if self.references.is_empty() { 0.0 } else { marks::widest(&self.references) + 16.0 };
        let last = self
            .x_marks
            .last()
            .map_or(0.0, |mark| mark.at + font::reserved(&mark.text, MARK_SIZE) / 2.0 - self.width);
        self.right.max(texts).max(last)
    }

    /// Adds levels with their texts beside the plot area.
    pub(super) fn with_references(mut self, references: &[Reference], y: &Scale) -> Self {
        let mark = |reference: &Reference| Mark {
            at: y.at(reference.value),
            text: font::fit(&reference.label, MARK_SIZE, REFERENCE_WIDTH),
        };
        self.references = references.iter().filter(|one| y.holds(one.value)).map(mark).collect();
        self
    }

    /// What lies below the content: title, names, marks and the lines of the marks.
    pub(super) fn draw(&self, title: &str, (left, top): Point, picture: &mut Picture) {
        let bottom = top + self.height;
        let right = left + self.width;
        let outer_left = left - self.left();
        let outer_right = right + self.right();
        let room = outer_right - outer_left;
        if !title.is_empty() {
            let foot = top - NAME_SIZE - 22.0;
            picture.text(
                (outer_left, foot),
                font::fit(title, PANEL_TITLE_SIZE, room),
                PANEL_TITLE_SIZE,
                INK,
                Anchor::Start,
            );
        }
        let name = font::fit(&self.y_name, NAME_SIZE, room);
        let rest = room - font::reserved(&name, NAME_SIZE) - 16.0;
        picture.text((outer_left, top - 12.0), name, NAME_SIZE, FAINT_INK, Anchor::Start);
        if !self.right_name.is_empty() {
            let name = font::fit(&self.right_name, NAME_SIZE, rest);
            picture.text((outer_right, top - 12.0), name, NAME_SIZE, FAINT_INK, Anchor::End);
        }
        for mark in &self.y_marks {
            let y = top + mark.at;
            if self.grid {
                picture.line(vec![(left, y), (right, y)], GRID, 1.0, None);
            }
            picture.text((left - 8.0, y + MIDDLE * MARK_SIZE), &mark.text, MARK_SIZE, FAINT_INK, Anchor::End);
        }
        for mark in &self.x_marks {
            let x = left + mark.at;
            if self.ticks {
                picture.line(vec![(x, bottom), (x, bottom + 5.0)], AXIS, 1.0, None);
            }
            picture.text((x, bottom + 19.0), &mark.text, MARK_SIZE, FAINT_INK, Anchor::Middle);
        }
        let name = font::fit(&self.x_name, NAME_SIZE, room);
        picture.text((f64::midpoint(left, right), bottom + 38.0), name, NAME_SIZE, FAINT_INK, Anchor::Middle);
    }

    /// What lies above the content: the base line, and the levels to compare with.
    pub(super) fn draw_over(&self, (left, top): Point, picture: &mut Picture) {
        let bottom = top + self.height;
        let right = left + self.width;
        if self.grid {
            picture.line(vec![(left, bottom), (right, bottom)], AXIS, 1.0, None);
        }
        let wanted: Vec<f64> = self.references.iter().map(|mark| top + mark.at).collect();
        let places = spread(&wanted, REFERENCE_GAP, top, bottom);
        for ((mark, level), place) in self.references.iter().zip(wanted).zip(places) {
            picture.line(vec![(left, level), (right, level)], INK, 1.4, Some([2.0, 4.0]));
            picture.line(vec![(right, level), (right + 10.0, place)], AXIS, 1.0, None);
            let foot = place + MIDDLE * MARK_SIZE;
            picture.text((right + 14.0, foot), &mark.text, MARK_SIZE, INK, Anchor::Start);
        }
    }
}
