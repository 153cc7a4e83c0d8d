//! A picture as a list of shapes, the same for every format.

/// In pixels from the upper left corner: to the right, down.
pub(super) type Point = (f64, f64);

/// Red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Color(pub u8, pub u8, pub u8);

/// Shapes on white, the later over the earlier.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    /// Width and height are in pixels.
    pub width: u32,
    pub height: u32,
    /// What it shows, for those who cannot see it.
    pub about: String,
    /// From the lowest to the topmost.
    pub shapes: Vec<Shape>,
}

#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Polyline(Polyline),
    Polygon(Polygon),
    Rectangle(Rectangle),
    Dot(Dot),
    Caption(Caption),
}

#[derive(Clone, Debug)]
pub(crate) struct Polyline {
    pub points: Vec<(f64, f64)>,
    pub color: Color,
    /// In pixels.
    pub width: f64,
    /// Pixels drawn and left out, if it is dashed.
    pub dash: Option<[f64; 2]>,
    /// What it is, where a format can hold it.
    pub title: Option<String>,
}

/// A filled area without a rim, through which what is below can be seen.
#[derive(Clone, Debug)]
pub(crate) struct Polygon {
    /// Its corners, one after another around it.
    pub points: Vec<(f64, f64)>,
    pub color: Color,
    /// From 0, invisible, to 1.
    pub opacity: f64,
}

/// A filled rectangle without a rim.
#[derive(Clone, Debug)]
pub(crate) struct Rectangle {
    /// Its upper left corner.
    pub at: (f64, f64),
    pub width: f64,
    pub height: f64,
    pub color: Color,
    /// What it is, where a format can hold it.
    pub title: Option<String>,
}

/// A filled circle with a white rim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dot {
    pub center: (f64, f64),
    /// Without the rim.
    pub radius: f64,
    pub color: Color,
}

/// A line of text with a white rim.
#[derive(Clone, Debug)]
pub(crate) struct Caption {
    /// Where it begins, is centred or ends, on the baseline.
    pub at: (f64, f64),
    pub text: String,
    /// Pixels of an em.
    pub size: f64,
    pub color: Color,
    /// What of it is at `at`.
    pub anchor: Anchor,
}

/// Which part of a text is where it was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Picture {
    pub(super) fn line(&mut self, points: Vec<Point>, color: Color, width: f64, dash: Option<[f64; 2]>) {
        self.shapes.push(Shape::Polyline(Polyline { points, color, width, dash, title: None }));
    }

    pub(super) fn polygon(&mut self, points: Vec<Point>, color: Color, opacity: f64) {
        self.shapes.push(Shape::Polygon(Polygon { points, color, opacity }));
    }

    pub(super) fn rectangle(&mut self, at: Point, width: f64, height: f64, color: Color) {
        self.shapes.push(Shape::Rectangle(Rectangle { at, width, height, color, title: None }));
    }

    pub(super) fn dot(&mut self, center: Point, radius: f64, color: Color) {
        self.shapes.push(Shape::Dot(Dot { center, radius, color }));
    }

    pub(super) fn text(
        &mut self,
        at: Point,
        text: impl Into<String>,
        size: f64,
        color: Color,
        anchor: Anchor,
    ) {
        self.shapes.push(Shape::Caption(Caption { at, text: text.into(), size, color, anchor }));
    }
}
