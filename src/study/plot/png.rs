//! A picture as PNG, drawn with the program's own font: the same on every machine.

use super::font;
use super::palette::WHITE;
use super::picture::{Anchor, Caption, Color, Dot, Picture, Point, Polygon, Polyline, Rectangle, Shape};
use crate::error::{Error, Result};
use tiny_skia::{
    FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, StrokeDash, Transform,
};

/// The picture as a PNG file of `scale` times its pixels in each direction. Fails if so many pixels cannot be
/// had.
pub(crate) fn to_png(picture: &Picture, scale: u32) -> Result<Vec<u8>> {
    let width = picture.width * scale;
    let height = picture.height * scale;
    let too_large = || Error::config(format!("a picture of {width} × {height} pixels cannot be made"));
    let pixels = Pixmap::new(width, height).ok_or_else(too_large)?;
    let mut canvas = Canvas { pixels, transform: Transform::from_scale(scale as f32, scale as f32) };
    canvas.pixels.fill(tiny_skia::Color::WHITE);
    for shape in &picture.shapes {
        match shape {
            Shape::Polyline(line) => canvas.line(line),
            Shape::Polygon(area) => canvas.area(area),
            Shape::Rectangle(rectangle) => canvas.rectangle(rectangle),
            Shape::Dot(dot) => canvas.dot(dot),
            Shape::Caption(text) => canvas.text(text),
        }
    }
    canvas.pixels.encode_png().map_err(|error| Error::config(format!("the picture cannot be made: {error}")))
}

struct Canvas {
    pixels: Pixmap,
    transform: Transform,
}

impl Canvas {
    fn line(&mut self, line: &Polyline) {
        let path = through(&line.points);
        let dash = line.dash.and_then(|[on, off]| StrokeDash::new(vec![on as f32, off as f32], 0.0));
        self.stroke(path.finish(), line.color, &Stroke { dash, ..stroke(line.width) });
    }

    fn area(&mut self, area: &Polygon) {
        let mut path = through(&area.points);
        path.close();
        if let Some(path) = path.finish() {
            let mut paint = paint(area.color);
            paint.shader.apply_opacity(area.opacity as f32);
            self.pixels.fill_path(&path, &paint, FillRule::Winding, self.transform, None);
        }
    }

    fn rectangle(&mut self, rectangle: &Rectangle) {
        let (x, y) = rectangle.at;
        let width = rectangle.width as f32;
        let height = rectangle.height as f32;
        if let Some(area) = tiny_skia::Rect::from_xywh(x as f32, y as f32, width, height) {
            self.pixels.fill_rect(area, &paint(rectangle.color), self.transform, None);
        }
    }

    fn dot(&mut self, dot: &Dot) {
        let circle = PathBuilder::from_circle(dot.center.0 as f32, dot.center.1 as f32, dot.radius as f32);
        self.fill(circle.clone(), dot.color);
        self.stroke(circle, WHITE, &stroke(1.5));
    }

    fn text(&mut self, text: &Caption) {
        let before = match text.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => 0.5,
            Anchor::End => 1.0,
        };
        let start = (text.at.0 - before * font::width(&text.text, text.size), text.at.1);
        let glyphs = font::outline(&text.text, text.size, start);
        self.stroke(glyphs.clone(), WHITE, &stroke(3.0));
        self.fill(glyphs, text.color);
    }

    fn stroke(&mut self, path: Option<Path>, color: Color, stroke: &Stroke) {
        if let Some(path) = path {
            self.pixels.stroke_path(&path, &paint(color), stroke, self.transform, None);
        }
    }

    fn fill(&mut self, path: Option<Path>, color: Color) {
        if let Some(path) = path {
            self.pixels.fill_path(&path, &paint(color), FillRule::Winding, self.transform, None);
        }
    }
}

/// A path from point to point.
fn through(points: &[Point]) -> PathBuilder {
    let mut path = PathBuilder::new();
    for (index, &(x, y)) in points.iter().enumerate() {
        if index == 0 { path.move_to(x as f32, y as f32) } else { path.line_to(x as f32, y as f32) }
    }
    path
}

fn stroke(width: f64) -> Stroke {
    Stroke { width: width as f32, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() }
}

fn paint(Color(red, green, blue): Color) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(red, green, blue, 255);
    paint
}
