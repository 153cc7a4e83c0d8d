//! A picture as a list of shapes, the same for every format.

/// In pixels from the upper left corner: to the right, down.
pub(super) type Point = (f64, f64);

/// Red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Color(pub u8, pub u8, pub u8);

/// Shapes on white, the later over the earlier.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// What it shows, for those who cannot see it.
    pub about: String,
    /// From the lowest to the topmost.
    pub shapes: Vec<Shape>,
}

/// A part of a picture.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// Straight lines from point to point.
    Polyline(Polyline),
    /// A filled circle with a white rim.
    Dot(Dot),
    /// A line of text.
    Caption(Caption),
}

/// Straight lines from point to point.
#[derive(Clone, Debug)]
pub(crate) struct Polyline {
    /// From here to there.
    pub points: Vec<(f64, f64)>,
    /// Its colour.
    pub color: Color,
    /// In pixels.
    pub width: f64,
    /// Pixels drawn and left out, if it is dashed.
    pub dash: Option<[f64; 2]>,
    /// What it is, where a format can hold it.
    pub title: Option<String>,
}

/// A filled circle with a white rim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dot {
    /// Its middle.
    pub center: (f64, f64),
    /// Without the rim.
    pub radius: f64,
    /// Its colour.
    pub color: Color,
}

/// A line of text with a white rim.
#[derive(Clone, Debug)]
pub(crate) struct Caption {
    /// Where it begins, is centred or ends, on the baseline.
    pub at: (f64, f64),
    /// What it says.
    pub text: String,
    /// Pixels of an em.
    pub size: f64,
    /// Its colour.
    pub color: Color,
    /// What of it is at `at`.
    pub anchor: Anchor,
}

/// Which part of a text is where it was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

impl Picture {
    pub(super) fn line(&mut self, points: Vec<Point>, color: Color, width: f64, dash: Option<[f64; 2]>) {
        self.shapes.push(Shape::Polyline(Polyline { points, color, width, dash, title: None }));
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
