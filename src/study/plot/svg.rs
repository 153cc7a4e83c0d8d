//! A picture as SVG: text stays text, so it can be searched, and is shown in the viewer's own font.

use super::palette::WHITE;
use super::picture::{Anchor, Caption, Color, Dot, Picture, Polyline, Shape};
use std::fmt::Write;

const FONTS: &str = "Roboto, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif";

pub(crate) fn to_svg(picture: &Picture) -> String {
    let Picture { width, height, .. } = picture;
    let about = escape(&picture.about);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"{FONTS}\" role=\"img\" aria-label=\"{about}\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>\n",
        hex(WHITE)
    );
    for shape in &picture.shapes {
        let _ = writeln!(svg, "{}", element(shape)); // writing to a String cannot fail
    }
    svg + "</svg>\n"
}

fn element(shape: &Shape) -> String {
    match shape {
        Shape::Polyline(shape) => line(shape),
        Shape::Dot(shape) => dot(shape),
        Shape::Caption(shape) => text(shape),
    }
}

fn line(line: &Polyline) -> String {
    let points: Vec<String> =
        line.points.iter().map(|(x, y)| format!("{},{}", number(*x), number(*y))).collect();
    let dash = line.dash.map(|[on, off]| format!(" stroke-dasharray=\"{on} {off}\"")).unwrap_or_default();
    let title =
        line.title.as_ref().map(|title| format!("<title>{}</title>", escape(title))).unwrap_or_default();
    format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\" \
         stroke-linecap=\"round\"{dash}>{title}</polyline>",
        points.join(" "),
        hex(line.color),
        number(line.width)
    )
}

fn dot(dot: &Dot) -> String {
    let [x, y, radius] = [dot.center.0, dot.center.1, dot.radius].map(number);
    let [fill, rim] = [dot.color, WHITE].map(hex);
    format!(
        "<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\" fill=\"{fill}\" stroke=\"{rim}\" stroke-width=\"1.5\"/>"
    )
}

fn text(text: &Caption) -> String {
    let anchor = match text.anchor {
        Anchor::Start => "",
        Anchor::Middle => " text-anchor=\"middle\"",
        Anchor::End => " text-anchor=\"end\"",
    };
    let [x, y, size] = [text.at.0, text.at.1, text.size].map(number);
    let [fill, rim] = [text.color, WHITE].map(hex);
    format!(
        "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{fill}\" stroke=\"{rim}\" stroke-width=\"3\" \
         stroke-linejoin=\"round\" paint-order=\"stroke\"{anchor}>{}</text>",
        escape(&text.text)
    )
}

fn hex(Color(red, green, blue): Color) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// To a hundredth of a pixel.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// What XML may hold: signs that mean something are named, control characters become a question mark.
fn escape(text: &str) -> String {
    let escaped = |character: char| match character {
        '&' => "&amp;".to_string(),
        '<' => "&lt;".to_string(),
        '>' => "&gt;".to_string(),
        '"' => "&quot;".to_string(),
        control if control.is_control() => "?".to_string(),
        other => other.to_string(),
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::{escape, number};

    #[test]
    fn what_a_run_is_called_cannot_break_the_file() {
        assert_eq!(escape("a<b & \"c\">\u{1}ü"), "a&lt;b &amp; &quot;c&quot;&gt;?ü");
        assert_eq!([1.0, 0.5, 12.345, -0.001].map(number), ["1", "0.5", "12.35", "-0"]);
    }
}
