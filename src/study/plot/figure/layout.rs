//! Where the panels of a figure go, and how large it is.

use super::bar_plan::BarPlan;
use super::content::{Content, Figure, Panel};
use super::domain::{self, Domain};
use super::frame::Frame;
use super::heat_map::HeatPlan;
use super::legend::Legend;
use super::lines::LinePlan;
use super::points::PointPlan;
use crate::study::plot::font;
use crate::study::plot::palette::INK;
use crate::study::plot::picture::{Anchor, Picture, Point};

const MARGIN: f64 = 16.0;
const TITLE_SIZE: f64 = 18.0;
const TITLE: f64 = TITLE_SIZE + 14.0;
/// Between two panels side by side.
const GUTTER: f64 = 28.0;
/// Between two rows of panels.
const BETWEEN_ROWS: f64 = 14.0;
/// A narrower figure would cut its title.
const NARROWEST: f64 = 420.0;

/// The figure as shapes, as large as its panels need.
pub(crate) fn draw_figure(figure: &Figure) -> Picture {
    let domains = domain::domains(figure);
    let area = area(figure);
    let plans: Vec<Plan> =
        figure.panels.iter().zip(&domains).map(|(panel, domain)| Plan::new(panel, domain, area)).collect();
    let grid = Grid::new(figure, &plans);
    let legend = Legend::new(figure, grid.width - 2.0 * MARGIN);
    let top = MARGIN + TITLE + legend.height() + 6.0;
    let height = top + grid.height + MARGIN;
    let about = about(figure);
    let mut picture =
        Picture { width: grid.width as u32, height: height.ceil() as u32, about, shapes: Vec::new() };
    let title = font::fit(&figure.title, TITLE_SIZE, grid.width - 2.0 * MARGIN);
    picture.text((MARGIN, MARGIN + TITLE_SIZE - 2.0), title, TITLE_SIZE, INK, Anchor::Start);
    legend.draw((MARGIN, MARGIN + TITLE - 4.0), &mut picture);
    for ((panel, plan), (x, y)) in figure.panels.iter().zip(&plans).zip(&grid.origins) {
        plan.draw(&panel.title, (*x, top + y), &mut picture);
    }
    picture
}

/// The size of a plot area: the more stand side by side, the smaller.
fn area(figure: &Figure) -> (f64, f64) {
    match figure.columns.min(figure.panels.len()) {
        0 | 1 => (600.0, 340.0),
        2 => (420.0, 300.0),
        _ => (290.0, 220.0),
    }
}

fn about(figure: &Figure) -> String {
    let titles: Vec<&str> =
        figure.panels.iter().map(|panel| panel.title.as_str()).filter(|title| !title.is_empty()).collect();
    if titles.is_empty() { figure.title.clone() } else { format!("{}: {}", figure.title, titles.join("; ")) }
}

/// A panel with its scales and its frame.
struct Plan<'a> {
    frame: Frame,
    content: Planned<'a>,
}

enum Planned<'a> {
    Lines(LinePlan<'a>),
    Bars(BarPlan<'a>),
    HeatMap(HeatPlan<'a>),
    Points(PointPlan<'a>),
}

impl<'a> Plan<'a> {
    fn new(panel: &'a Panel, domain: &Domain, area: (f64, f64)) -> Self {
        match &panel.content {
            Content::Lines(lines) => {
                let plan = LinePlan::new(lines, domain, area);
                Self { frame: plan.frame(), content: Planned::Lines(plan) }
            }
            Content::Bars(bars) => {
                let plan = BarPlan::new(bars, domain, area);
                Self { frame: plan.frame(), content: Planned::Bars(plan) }
            }
            Content::HeatMap(map) => {
                let square = (area.0.min(520.0), area.1.max(400.0)); // matrices are rather square than wide
                let plan = HeatPlan::new(map, &domain.y, square);
                Self { frame: plan.frame(), content: Planned::HeatMap(plan) }
            }
            Content::Points(points) => {
                let plan = PointPlan::new(points, domain, area);
                Self { frame: plan.frame(), content: Planned::Points(plan) }
            }
        }
    }

    fn draw(&self, title: &str, origin: Point, picture: &mut Picture) {
        self.frame.draw(title, origin, picture);
        match &self.content {
            Planned::Lines(plan) => plan.draw(origin, picture),
            Planned::Bars(plan) => plan.draw(origin, picture),
            Planned::HeatMap(plan) => plan.draw(origin, picture),
            Planned::Points(plan) => plan.draw(origin, picture),
        }
        self.frame.draw_over(origin, picture);
    }
}

/// The upper left corners of the plot areas: those of a column are one below another, those of a row side by side.
struct Grid {
    origins: Vec<Point>,
    width: f64,
    /// From the upper edge of the first row's titles.
    height: f64,
}

impl Grid {
    fn new(figure: &Figure, plans: &[Plan<'_>]) -> Self {
        let columns = figure.columns.clamp(1, plans.len().max(1));
        let titled = figure.panels.iter().any(|panel| !panel.title.is_empty());
        let of_column = |column: usize| plans.iter().skip(column).step_by(columns).map(|plan| &plan.frame);
        let most =
            |column: usize, size: fn(&Frame) -> f64| of_column(column).map(size).fold(0.0, f64::max).ceil();
        let mut lefts = Vec::new();
        let mut x = MARGIN;
        for column in 0..columns {
            let left = x + most(column, Frame::left);
            lefts.push(left);
            x = left + most(column, |frame| frame.width + frame.right()) + GUTTER;
        }
        let mut origins = Vec::new();
        let mut y = 0.0;
        for row in plans.chunks(columns) {
            y += Frame::above(titled);
            origins.extend(lefts.iter().take(row.len()).map(|&left| (left, y)));
            y += row.iter().map(|plan| plan.frame.height).fold(0.0, f64::max).ceil()
                + Frame::below()
                + BETWEEN_ROWS;
        }
        let height = (y - BETWEEN_ROWS).max(0.0);
        Self { origins, width: (x - GUTTER + MARGIN).max(NARROWEST), height }
    }
}
