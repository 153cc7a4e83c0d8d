//! The values that a panel's axes have to hold; with equal axes those of all panels of its kind.

use super::blank::{can_show, has_color};
use super::content::{Bar, Content, Figure};
use crate::study::plot::Axis;
use crate::study::plot::axis::Scale;
use std::mem::discriminant;

/// Values along both axes; of a heat map the values are those of the colours, along `y`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Domain {
    pub(super) x: Vec<f64>,
    pub(super) y: Vec<f64>,
}

/// A domain for each panel.
pub(super) fn domains(figure: &Figure) -> Vec<Domain> {
    let own: Vec<Domain> = figure.panels.iter().map(|panel| Domain::of(&panel.content)).collect();
    if !figure.equal_axes {
        return own;
    }
    let kinds = || figure.panels.iter().map(|panel| discriminant(&panel.content));
    let of_kind = |kind| {
        let mut all = Domain::default();
        for (_, domain) in kinds().zip(&own).filter(|(other, _)| *other == kind) {
            all.x.extend(&domain.x);
            all.y.extend(&domain.y);
        }
        all
    };
    kinds().map(of_kind).collect()
}

impl Domain {
    fn of(content: &Content) -> Self {
        match content {
            Content::Lines(lines) => {
                let points = || lines.lines.iter().flat_map(|line| &line.points);
                let shown = || points().filter(|point| can_show(&lines.x, point.x));
                let ends = |(low, high): (f64, f64)| [low, high];
                let bands = shown().filter_map(|point| point.band).flat_map(ends);
                let levels = lines.references.iter().map(|one| one.value);
                let y = shown().map(|point| point.y).chain(bands).chain(levels);
                Self { x: shown().map(|point| point.x).collect(), y: shown_on(&lines.y, y) }
            }
            Content::Bars(bars) => {
                let all = bars.groups.iter().flat_map(|group| group.bars.iter().flatten());
                let ends = |bar: &Bar| [Some(bar.value), bar.low, bar.high].into_iter().flatten();
                let levels = bars.references.iter().map(|one| one.value);
                Self { x: Vec::new(), y: shown_on(&bars.y, all.flat_map(ends).chain(levels)) }
            }
            Content::HeatMap(map) => {
                let values = map.values.iter().flatten().copied();
                Self { x: Vec::new(), y: values.filter(|value| has_color(*value)).collect() }
            }
            Content::Points(points) => {
                let shown = |&&(x, y): &&(f64, f64)| can_show(&points.x, x) && can_show(&points.y, y);
                let all = || points.clouds.iter().flat_map(|cloud| &cloud.points).filter(shown);
                let levels = points.references.iter().map(|one| one.value);
                let y = all().map(|point| point.1).chain(levels);
                Self { x: all().map(|point| point.0).collect(), y: shown_on(&points.y, y) }
            }
        }
    }
}

fn shown_on(axis: &Axis, values: impl Iterator<Item = f64>) -> Vec<f64> {
    values.filter(|value| can_show(axis, *value)).collect()
}

/// The axis over these values, from 1 to 10 if there are none.
pub(super) fn scale(axis: &Axis, values: &[f64], start: f64, end: f64) -> Scale {
    let values = if values.is_empty() { &[1.0, 10.0] } else { values };
    axis.scale(values.iter().copied(), start, end)
}
