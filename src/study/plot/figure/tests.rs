//! Figures as shapes, as SVG and as PNG.

use super::examples::{all, bars, curves};
use super::presets::{KindBars, depth_bars, layer_map, training_curves};
use super::*;
use crate::study::plot::picture::{Anchor, Caption, Color, Picture, Polyline, Rectangle, Shape};
use crate::study::plot::{Axis, Reference, font, to_png, to_svg};

fn texts<'a>(picture: &'a Picture) -> Vec<&'a Caption> {
    let text = |shape: &'a Shape| if let Shape::Caption(one) = shape { Some(one) } else { None };
    picture.shapes.iter().filter_map(text).collect()
}

fn rectangles<'a>(picture: &'a Picture) -> Vec<&'a Rectangle> {
    let rectangle = |shape: &'a Shape| if let Shape::Rectangle(one) = shape { Some(one) } else { None };
    picture.shapes.iter().filter_map(rectangle).collect()
}

fn lines<'a>(picture: &'a Picture) -> Vec<&'a Polyline> {
    let line = |shape: &'a Shape| if let Shape::Polyline(one) = shape { Some(one) } else { None };
    picture.shapes.iter().filter_map(line).collect()
}

/// Where a mark of the vertical axis is.
fn level_of(picture: &Picture, mark: &str) -> f64 {
    let text = texts(picture).into_iter().find(|text| text.text == mark && text.anchor == Anchor::End);
    text.unwrap_or_else(|| panic!("no mark {mark}")).at.1 - 0.35 * 12.0
}

#[test]
fn no_text_lies_on_another_or_beyond_the_picture() {
    for (name, figure) in all() {
        let picture = draw_figure(&figure);
        let area = |text: &&Caption| {
            let width = font::reserved(&text.text, text.size);
            let left = text.at.0
                - match text.anchor {
                    Anchor::Start => 0.0,
                    Anchor::Middle => width / 2.0,
                    Anchor::End => width,
                };
            (left, text.at.1 - 0.72 * text.size, left + width, text.at.1 + 0.2 * text.size)
        };
        let all = texts(&picture);
        for (index, text) in all.iter().enumerate() {
            let (left, top, right, bottom) = area(text);
            let inside = left >= 0.0 && top >= 0.0 && right <= f64::from(picture.width);
            assert!(inside && bottom <= f64::from(picture.height), "{name}: {text:?}");
            for other in &all[..index] {
                let other_area = area(other);
                let apart = other_area.2 <= left
                    || right <= other_area.0
                    || other_area.3 <= top
                    || bottom <= other_area.1;
                assert!(apart, "{name}: {text:?} lies on {other:?}");
            }
        }
    }
}

#[test]
fn a_cell_has_the_colour_of_its_value_and_a_blank_one_is_grey() {
    let scale = ColorScale::Sequential { low: Some(0.0), high: Some(1.0) };
    let figure = layer_map("", "T", scale, vec![vec![0.0, 1.0], vec![f64::NAN, 0.5], vec![0.5]]);
    let picture = draw_figure(&figure);
    let cells: Vec<_> =
        rectangles(&picture).into_iter().filter(|one| (one.width, one.height) == (40.0, 40.0)).collect();
    let top = cells.iter().map(|one| one.at.1).fold(f64::INFINITY, f64::min);
    let left = cells.iter().map(|one| one.at.0).fold(f64::INFINITY, f64::min);
    let color = |row: f64, column: f64| {
        let at = (left + 40.0 * column, top + 40.0 * row);
        cells.iter().find(|cell| cell.at == at).unwrap_or_else(|| panic!("no cell at {at:?}")).color
    };
    let viridis = [Color(68, 1, 84), Color(33, 145, 140), Color(253, 231, 37)];
    assert_eq!([color(0.0, 0.0), color(1.0, 1.0), color(0.0, 1.0)], viridis);
    assert_eq!((color(2.0, 0.0), cells.len()), (viridis[1], 6));
    assert_eq!(color(1.0, 0.0), color(2.0, 1.0), "a value that is missing and one that is not finite");
    assert!(![viridis[0], viridis[1], viridis[2]].contains(&color(1.0, 0.0)));
    assert!(texts(&picture).iter().any(|text| text.text == "no finite value"));
}

#[test]
fn whiskers_end_at_their_values_on_a_logarithmic_axis() {
    let bar = Bar { value: 1.0, low: Some(0.1), high: Some(10.0) };
    let kinds = vec![KindBars { kind: "highway".into(), bars: vec![Some(bar)] }];
    let picture = draw_figure(&depth_bars("", "nats", &[10], kinds));
    let upright = |line: &&&Polyline| line.points.len() == 2 && line.points[0].0 == line.points[1].0;
    let whisker = lines(&picture).iter().find(upright).unwrap().points.clone();
    let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
    assert!(near(whisker[0].1, level_of(&picture, "0.1")), "{whisker:?}");
    assert!(near(whisker[1].1, level_of(&picture, "10")), "{whisker:?}");
    let titled = rectangles(&picture).into_iter().find(|one| one.title.is_some()).unwrap();
    assert!(
        near(titled.at.1, f64::midpoint(whisker[0].1, whisker[1].1)),
        "the geometric mean is in the middle"
    );
    assert_eq!(titled.title.as_deref(), Some("highway, layers 10: 1.00 (0.100 – 10.0)"));
}

#[test]
fn panels_have_equal_axes_where_they_are_asked_for() {
    let marks = |figure: &Figure| -> (Vec<String>, Vec<String>) {
        let picture = draw_figure(figure);
        let half = f64::from(picture.width) / 2.0;
        let of = |right: bool| {
            let marks = texts(&picture).into_iter().filter(|text| text.anchor == Anchor::End);
            let marks = marks.filter(|text| (text.at.0 > half) == right);
            marks.map(|text| format!("{} at {:.3}", text.text, text.at.1)).collect()
        };
        (of(false), of(true))
    };
    let mut figure = training_curves("", "nats", &curves());
    let (plain, highway) = marks(&figure);
    assert!(plain == highway && plain.len() >= 3, "{plain:?}, {highway:?}");
    figure.equal_axes = false;
    let (plain, highway) = marks(&figure);
    assert_ne!(plain, highway);
}

#[test]
fn a_label_of_several_panels_is_in_the_legend_once_and_a_gap_is_named() {
    let picture = draw_figure(&training_curves("", "nats", &curves()));
    let count = |wanted: &str| texts(&picture).iter().filter(|text| text.text == wanted).count();
    assert_eq!(
        [count("10 layers"), count("100 layers"), count("plain"), count("gap: no finite value above 0")],
        [1; 4]
    );
    let parts = lines(&picture).iter().filter(|line| line.title.as_deref() == Some("100 layers")).count();
    assert_eq!(parts, 2 + 1, "the line with a gap has two parts");
}

#[test]
fn a_band_ends_at_its_values_or_at_the_edge() {
    let axis = |log| Axis { name: String::new(), log, whole: false, from_zero: false };
    let point = |x, y, band| LinePoint { x, y, band: Some(band) };
    let points = vec![point(0.0, 1.0, (0.1, 10.0)), point(1.0, 1.0, (-1.0, 10.0))];
    let line = Line { label: String::new(), color: 0, dashed: false, points };
    let lines = Lines { x: axis(false), y: axis(true), lines: vec![line], references: Vec::new() };
    let panels = vec![Panel { title: String::new(), content: Content::Lines(lines) }];
    let picture = draw_figure(&Figure { title: String::new(), panels, columns: 1, equal_axes: false });
    let band = picture
        .shapes
        .iter()
        .find_map(|shape| if let Shape::Polygon(one) = shape { Some(one) } else { None });
    let corners = &band.unwrap().points; // along the upper end to the right, along the lower one back
    assert!((corners[0].1 - level_of(&picture, "10")).abs() < 1e-6, "{corners:?}");
    assert!((corners[3].1 - level_of(&picture, "0.1")).abs() < 1e-6, "{corners:?}");
    assert!(corners[2].1 > corners[3].1, "what is below 0 reaches to the lower edge: {corners:?}");
}

#[test]
fn every_figure_is_a_small_well_formed_svg() {
    for (name, figure) in all() {
        let picture = draw_figure(&figure);
        let svg = to_svg(&picture);
        assert_eq!(svg, to_svg(&draw_figure(&figure)));
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1) {
            let (tag, text) = tag.split_once('>').unwrap();
            assert!(!text.contains('>') && tag.matches('"').count() % 2 == 0, "{name}: <{tag}>");
            let element = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(element), "{name}: <{tag}>");
            } else if !tag.ends_with('/') {
                open.push(element);
            }
        }
        assert!(open.is_empty() && svg.contains("role=\"img\"") && !svg.contains("NaN"), "{name}");
        assert!(svg.len() < if name == "tall" { 70_000 } else { 140_000 }, "{name}: {} bytes", svg.len());
    }
}

#[test]
fn a_png_has_the_pixels_that_were_asked_for() {
    let picture = draw_figure(&depth_bars("Errors", "nats", &[10, 20, 50, 100], bars()));
    let png = to_png(&picture, 2).unwrap();
    let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert_eq!((side(16), side(20)), (2 * picture.width, 2 * picture.height));
}

#[test]
fn whatever_the_values_are_there_is_a_picture() {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 1e-310, 0.0, -0.0];
    let bar = |&value: &f64| Some(Bar { value, low: Some(-value), high: Some(value * 2.0) });
    let mut figures = vec![Figure { title: String::new(), panels: Vec::new(), columns: 0, equal_axes: true }];
    for log in [false, true] {
        for from_zero in [false, true] {
            let axis = Axis { name: "a name".repeat(50), log, whole: true, from_zero };
            let reference = Reference { value: f64::NAN, label: "none".into() };
            let points = odd.iter().flat_map(|&x| odd.map(|y| (x, y)));
            let line = |&(x, y): &(f64, f64)| LinePoint { x, y, band: Some((y, x)) };
            let points: Vec<(f64, f64)> = points.collect();
            let lines = Line {
                label: "l".repeat(500),
                color: 77,
                dashed: true,
                points: points.iter().map(line).collect(),
            };
            let bars = odd.iter().map(bar).collect();
            let contents = [
                Content::Points(Points {
                    x: axis.clone(),
                    y: axis.clone(),
                    clouds: vec![Cloud { label: String::new(), color: 0, points }],
                    references: vec![reference.clone()],
                }),
                Content::Lines(Lines {
                    x: axis.clone(),
                    y: axis.clone(),
                    lines: vec![lines],
                    references: vec![reference.clone()],
                }),
                Content::Bars(Bars {
                    x_name: String::new(),
                    y: axis,
                    categories: vec!["c".repeat(300); 8],
                    groups: vec![Group { label: String::new(), color: 0, bars }],
                    references: vec![reference],
                }),
            ];
            let panels =
                contents.into_iter().map(|content| Panel { title: String::new(), content }).collect();
            figures.push(Figure { title: "t".repeat(900), panels, columns: 3, equal_axes: true });
        }
    }
    for scale in [
        ColorScale::Sequential { low: Some(1.0), high: Some(0.0) },
        ColorScale::Diverging { middle: f64::INFINITY, reach: None },
    ] {
        figures.push(layer_map("", "", scale, vec![odd.to_vec(), Vec::new()]));
        figures.push(layer_map("", "", scale, Vec::new()));
    }
    for figure in figures {
        let picture = draw_figure(&figure);
        assert!(!to_svg(&picture).contains("NaN") && !to_svg(&picture).contains("inf"), "{figure:?}");
    }
}
