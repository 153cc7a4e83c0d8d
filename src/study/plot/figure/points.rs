//! Points that no line joins.

use super::blank::can_show;
use super::content::Points;
use super::domain::{self, Domain};
use super::frame::Frame;
use super::marks;
use crate::study::plot::axis::Scale;
use crate::study::plot::palette;
use crate::study::plot::picture::{Picture, Point};

/// Points with the scales of their panel; pixels are counted from the plot area's upper left corner.
pub(super) struct PointPlan<'a> {
    points: &'a Points,
    x: Scale,
    y: Scale,
}

impl<'a> PointPlan<'a> {
    pub(super) fn new(points: &'a Points, domain: &Domain, (width, height): (f64, f64)) -> Self {
        let x = domain::scale(&points.x, &domain.x, 0.0, width);
        let y = domain::scale(&points.y, &domain.y, height, 0.0);
        Self { points, x, y }
    }

    pub(super) fn frame(&self) -> Frame {
        let frame = Frame {
            width: self.x.end,
            height: self.y.start,
            x_marks: marks::along_x(&self.x, self.points.x.whole),
            y_marks: marks::along_y(&self.y, self.points.y.whole),
            x_name: self.points.x.name.clone(),
            y_name: self.points.y.name.clone(),
            grid: true,
            ticks: true,
            ..Frame::default()
        };
        frame.with_references(&self.points.references, &self.y)
    }

    pub(super) fn draw(&self, (left, top): Point, picture: &mut Picture) {
        for cloud in &self.points.clouds {
            let color = palette::curve(cloud.color);
            for &(x, y) in &cloud.points {
                if can_show(&self.points.x, x) && can_show(&self.points.y, y) {
                    picture.dot((left + self.x.at(x), top + self.y.at(y)), 4.0, color);
                }
            }
        }
    }
}
