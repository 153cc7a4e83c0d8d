//! A picture as SVG: text stays text, so it can be searched, and is shown in the viewer's own font.

use super::palette::WHITE;
use super::picture::{Anchor, Caption, Color, Dot, Picture, Point, Polygon, Polyline, Rectangle, Shape};
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
    for shapes in picture.shapes.chunk_by(one_element) {
        let _ = writeln!(svg, "{}", element(shapes)); // writing to a String cannot fail
    }
    svg + "</svg>\n"
}

/// Rectangles of one colour without a title are one path: the cells of a heat map would else take four times the
/// bytes.
fn one_element(first: &Shape, second: &Shape) -> bool {
    match (first, second) {
        (Shape::Rectangle(first), Shape::Rectangle(second)) => {
            first.color == second.color && first.title.is_none() && second.title.is_none()
        }
        _ => false,
    }
}

fn element(shapes: &[Shape]) -> String {
    match shapes {
        [Shape::Polyline(shape)] => line(shape),
        [Shape::Polygon(shape)] => area(shape),
        [Shape::Rectangle(shape)] => rectangle(shape),
        [Shape::Dot(shape)] => dot(shape),
        [Shape::Caption(shape)] => text(shape),
        shapes => cells(shapes),
    }
}

fn line(line: &Polyline) -> String {
    let dash = line.dash.map(|[on, off]| format!(" stroke-dasharray=\"{on} {off}\"")).unwrap_or_default();
    let title = titled(line.title.as_ref());
    format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\" \
         stroke-linecap=\"round\"{dash}>{title}</polyline>",
        coordinates(&line.points),
        hex(line.color),
        number(line.width)
    )
}

fn area(area: &Polygon) -> String {
    let [points, color, opacity] = [coordinates(&area.points), hex(area.color), number(area.opacity)];
    format!("<polygon points=\"{points}\" fill=\"{color}\" fill-opacity=\"{opacity}\"/>")
}

fn rectangle(rectangle: &Rectangle) -> String {
    let Rectangle { at: (x, y), width, height, .. } = *rectangle;
    let [x, y, width, height] = [x, y, width, height].map(number);
    let [color, title] = [hex(rectangle.color), titled(rectangle.title.as_ref())];
    let start = format!("<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{color}\"");
    if title.is_empty() { start + "/>" } else { format!("{start}>{title}</rect>") }
}

/// Several rectangles of one colour, each from its upper left corner to the right, down and back.
fn cells(shapes: &[Shape]) -> String {
    let mut path = String::new();
    let mut color = WHITE;
    for shape in shapes {
        if let Shape::Rectangle(cell) = shape {
            let Rectangle { at: (x, y), width, height, .. } = *cell;
            let [x, y, right, down, left] = [x, y, width, height, -width].map(number);
            let _ = write!(path, "M{x} {y}h{right}v{down}h{left}z");
            color = cell.color;
        }
    }
    format!("<path fill=\"{}\" d=\"{path}\"/>", hex(color))
}

fn coordinates(points: &[Point]) -> String {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{},{}", number(*x), number(*y))).collect();
    points.join(" ")
}

fn titled(title: Option<&String>) -> String {
    title.map(|title| format!("<title>{}</title>", escape(title))).unwrap_or_default()
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
