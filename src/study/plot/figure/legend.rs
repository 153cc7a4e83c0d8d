//! One legend for all panels: a label that several panels share is there once.

use super::blank;
use super::content::{Content, Figure};
use super::frame::MIDDLE;
use super::heat_map;
use crate::study::plot::font;
use crate::study::plot::palette::{self, FAINT_INK, INK};
use crate::study::plot::picture::{Anchor, Picture, Point};

const SIZE: f64 = 13.0;
const ROW: f64 = 22.0;
const SAMPLE: f64 = 20.0;
const AFTER: f64 = 20.0;

/// What an entry shows beside its text.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sample {
    Line { color: usize, dashed: bool },
    Block { color: usize },
    Dot { color: usize },
    Hatch,
    Cross,
    Gap,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    sample: Sample,
    text: String,
}

/// The entries of a figure, with where each begins.
#[derive(Clone, Debug)]
pub(super) struct Legend(Vec<(Point, Entry)>);

impl Legend {
    /// Side by side, in as many rows as `width` needs.
    pub(super) fn new(figure: &Figure, width: f64) -> Self {
        let mut placed = Vec::new();
        let mut x = 0.0;
        let mut y = 0.0;
        for mut entry in entries(figure) {
            entry.text = font::fit(&entry.text, SIZE, width - SAMPLE - 8.0);
            let wide = SAMPLE + 8.0 + font::reserved(&entry.text, SIZE);
            if x > 0.0 && x + wide > width {
                (x, y) = (0.0, y + ROW);
            }
            placed.push(((x, y), entry));
            x += wide + AFTER;
        }
        Self(placed)
    }

    /// Its height, in pixels.
    pub(super) fn height(&self) -> f64 {
        self.0.last().map_or(0.0, |((_, y), _)| y + ROW)
    }

    pub(super) fn draw(&self, (left, top): Point, picture: &mut Picture) {
        for ((x, y), Entry { sample, text }) in &self.0 {
            let at = (left + x, top + y + ROW / 2.0);
            sample.draw(at, picture);
            let color =
                if matches!(sample, Sample::Hatch | Sample::Cross | Sample::Gap) { FAINT_INK } else { INK };
            let start = (at.0 + SAMPLE + 8.0, at.1 + MIDDLE * SIZE);
            picture.text(start, text, SIZE, color, Anchor::Start);
        }
    }
}

fn entries(figure: &Figure) -> Vec<Entry> {
    let mut entries = Vec::new();
    for panel in &figure.panels {
        for entry in series(&panel.content) {
            if !entry.text.is_empty() && !entries.contains(&entry) {
                entries.push(entry);
            }
        }
    }
    let notes = figure.panels.iter().flat_map(|panel| notes(&panel.content));
    for note in notes {
        if !entries.contains(&note) {
            entries.push(note);
        }
    }
    entries
}

fn series(content: &Content) -> Vec<Entry> {
    let entry = |text: &String, sample| Entry { sample, text: text.clone() };
    match content {
        Content::Lines(lines) => {
            let sample = |line: &super::Line| Sample::Line { color: line.color, dashed: line.dashed };
            lines.lines.iter().map(|line| entry(&line.label, sample(line))).collect()
        }
        Content::Bars(bars) => bars
            .groups
            .iter()
            .map(|group| entry(&group.label, Sample::Block { color: group.color }))
            .collect(),
        Content::HeatMap(_) => Vec::new(),
        Content::Points(points) => points
            .clouds
            .iter()
            .map(|cloud| entry(&cloud.label, Sample::Dot { color: cloud.color }))
            .collect(),
    }
}

/// How values that cannot be shown are drawn, if there are any.
fn notes(content: &Content) -> Option<Entry> {
    let note = |sample, text: String| Some(Entry { sample, text });
    match content {
        Content::Lines(lines) => {
            let blank = |point: &super::LinePoint| {
                !blank::can_show(&lines.x, point.x) || !blank::can_show(&lines.y, point.y)
            };
            let any = lines.lines.iter().flat_map(|line| &line.points).any(blank);
            if any { note(Sample::Gap, format!("gap: {}", blank::reason(&lines.y))) } else { None }
        }
        Content::Bars(bars) => {
            let mut all = bars.groups.iter().flat_map(|group| group.bars.iter().flatten());
            let any = all.any(|bar| !blank::can_show(&bars.y, bar.value));
            if any { note(Sample::Cross, blank::reason(&bars.y).into()) } else { None }
        }
        Content::HeatMap(map) => {
            let any = heat_map::has_blanks(map);
            if any { note(Sample::Hatch, "no finite value".into()) } else { None }
        }
        Content::Points(points) => {
            let blank =
                |&&(x, y): &&(f64, f64)| !blank::can_show(&points.x, x) || !blank::can_show(&points.y, y);
            let count = points.clouds.iter().flat_map(|cloud| &cloud.points).filter(blank).count();
            if count > 0 {
                note(Sample::Gap, format!("{count} left out: {}", blank::reason(&points.y)))
            } else {
                None
            }
        }
    }
}

impl Sample {
    /// Its middle is half of [`SAMPLE`] right of `x`, at `y`.
    fn draw(self, (x, y): Point, picture: &mut Picture) {
        let middle = x + SAMPLE / 2.0;
        match self {
            Self::Line { color, dashed } => {
                let dash = dashed.then_some([5.0, 5.0]);
                picture.line(vec![(x, y), (x + SAMPLE, y)], palette::curve(color), 2.4, dash);
            }
            Self::Block { color } => {
                picture.rectangle((x + 3.0, y - 7.0), 14.0, 14.0, palette::curve(color));
            }
            Self::Dot { color } => picture.dot((middle, y), 4.0, palette::curve(color)),
            Self::Hatch => heat_map::blank_cell((x + 3.0, y - 7.0), 14.0, 14.0, picture),
            Self::Cross => cross((middle, y), picture),
            Self::Gap => {
                picture.line(vec![(x, y), (x + 6.0, y)], FAINT_INK, 2.4, None);
                picture.line(vec![(x + SAMPLE - 6.0, y), (x + SAMPLE, y)], FAINT_INK, 2.4, None);
            }
        }
    }
}

/// Stands where a bar has no value that can be shown.
pub(super) fn cross((x, y): Point, picture: &mut Picture) {
    const ARM: f64 = 4.0;
    picture.line(vec![(x - ARM, y - ARM), (x + ARM, y + ARM)], FAINT_INK, 1.6, None);
    picture.line(vec![(x - ARM, y + ARM), (x + ARM, y - ARM)], FAINT_INK, 1.6, None);
}
