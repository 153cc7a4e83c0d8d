//! The font that is part of the program: how wide a text is, and the outlines of its characters.

use std::sync::LazyLock;
use tiny_skia::{Path, PathBuilder};
use ttf_parser::{Face, GlyphId, OutlineBuilder};

static BYTES: &[u8] = include_bytes!("font/Roboto-Regular-subset.ttf");
static FACE: LazyLock<Face<'static>> =
    LazyLock::new(|| Face::parse(BYTES, 0).expect("the font that is part of the program is whole"));

/// Allowance for the fonts that a viewer of an SVG may have instead.
const OTHERS_ARE_WIDER: f64 = 1.1;

/// The width of the text, in pixels.
pub(super) fn width(text: &str, size: f64) -> f64 {
    text.chars().map(|character| advance(glyph(character))).sum::<f64>() * size / units()
}

/// The width to reserve for the text in whatever font it may be shown, in pixels.
pub(super) fn reserved(text: &str, size: f64) -> f64 {
    OTHERS_ARE_WIDER * width(text, size)
}

/// The text, or as much of its beginning as fits into `available` pixels, with an ellipsis.
pub(super) fn fit(text: &str, size: f64, available: f64) -> String {
    if reserved(text, size) <= available {
        return text.to_string();
    }
    let shortened = |length: usize| text.chars().take(length).collect::<String>() + "…";
    let fits = |text: &String| reserved(text, size) <= available;
    (0..text.chars().count()).rev().map(shortened).find(fits).unwrap_or_default()
}

/// The outlines of the text's characters, in pixels to the right and down; the baseline begins at `start`.
pub(super) fn outline(text: &str, size: f64, start: (f64, f64)) -> Option<Path> {
    let scale = size / units();
    let mut outline = Outline { path: PathBuilder::new(), start, scale, x: 0.0 };
    for character in text.chars() {
        let glyph = glyph(character);
        FACE.outline_glyph(glyph, &mut outline);
        outline.x += advance(glyph) * scale;
    }
    outline.path.finish()
}

/// A path to which glyphs are added, the next `x` pixels to the right of `start`.
struct Outline {
    path: PathBuilder,
    start: (f64, f64),
    scale: f64,
    x: f64,
}

impl Outline {
    /// The pixel of a point in the font's units.
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        let right = self.x + f64::from(x) * self.scale;
        let down = -f64::from(y) * self.scale;
        ((self.start.0 + right) as f32, (self.start.1 + down) as f32)
    }
}

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let (x1, y1) = self.at(x1, y1);
        let (x, y) = self.at(x, y);
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, _: f32, _: f32, _: f32, _: f32, x: f32, y: f32) {
        self.line_to(x, y); // TrueType outlines have no cubic curves
    }

    fn close(&mut self) {
        self.path.close();
    }
}

/// A character that the font lacks is its empty box.
fn glyph(character: char) -> GlyphId {
    FACE.glyph_index(character).unwrap_or(GlyphId(0))
}

fn advance(glyph: GlyphId) -> f64 {
    f64::from(FACE.glyph_hor_advance(glyph).unwrap_or(0))
}

fn units() -> f64 {
    f64::from(FACE.units_per_em())
}

#[cfg(test)]
mod tests {
    use super::{fit, reserved, width};

    #[test]
    fn a_text_is_as_wide_as_its_letters() {
        assert!((width("nn", 10.0) - 2.0 * width("n", 10.0)).abs() < 1e-9);
        assert!(width("n", 20.0) > 1.9 * width("n", 10.0) && width("", 10.0) == 0.0);
        let figures: Vec<f64> = "0123456789".chars().map(|figure| width(&figure.to_string(), 10.0)).collect();
        assert!(figures.iter().all(|width| (width - figures[0]).abs() < 1e-9), "figures stand in columns");
    }

    #[test]
    fn what_does_not_fit_ends_in_an_ellipsis() {
        assert_eq!(fit("short", 10.0, 1000.0), "short");
        let cut = fit("a very long name of a run", 10.0, 60.0);
        assert!(cut.starts_with("a very") && cut.ends_with('…') && reserved(&cut, 10.0) <= 60.0, "{cut}");
        assert_eq!(fit("name", 10.0, 0.0), "");
    }
}
