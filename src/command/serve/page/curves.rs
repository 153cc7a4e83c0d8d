//! `GET /page/curves.svg`, the picture of `rhn plot`, and `GET /page/compare`, the table of `rhn compare`.

use super::super::super::plot::{PictureArgs, plot};
use super::super::failure::Failure;
use super::super::http::{Reply, json, text};
use super::query::Query;
use super::runs::{Runs, without_directory};
use crate::error::Error;
use crate::study::curve::{Along, CurveSplit};
use crate::study::plot::{draw, to_svg};
use crate::study::{Comparison, Measure};
use hyper::{Response, StatusCode};
use serde_json::Value;

/// The picture's width in pixels unless it is asked for.
const WIDTH: u32 = 900;

/// Of a picture's width.
const HEIGHT: f64 = 0.5;

/// `?run=A&run=B&measure=…&x=…&split=…&width=…`: as SVG.
pub(super) fn curves(runs: &Runs, mut query: Query) -> Result<Response<Reply>, Failure> {
    let names = query.all("run");
    let width = query.number("width", 320, 2000)?.unwrap_or(WIDTH);
    let settings = PictureArgs {
        y: query.choice("measure")?,
        x: query.choice("x")?.unwrap_or(Along::Epoch),
        split: query.choice("split")?.unwrap_or(CurveSplit::Valid),
        log_y: None,
        log_x: false,
        title: None,
        references: Vec::new(),
        width,
        height: ((f64::from(width) * HEIGHT) as u32).max(320),
    };
    query.finish()?;
    let runs = runs.read(&names)?;
    let mut missing = Vec::new();
    let plot = plot(&settings, &runs, &mut missing).map_err(|error| nothing(&error))?;
    let mut picture = draw(&plot);
    let shown: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let missing: String = missing.iter().map(|missing| format!(". {missing}")).collect();
    picture.about = format!("Learning curves of {}: {}{missing}", shown.join(", "), picture.about);
    Ok(text("image/svg+xml", to_svg(&picture)))
}

/// There is no point to draw; such errors name no path.
fn nothing(error: &Error) -> Failure {
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "nothing_to_draw", error.to_string())
}

/// `?run=A&run=B&measure=…`: as `rhn compare --json`.
pub(super) fn compare(runs: &Runs, mut query: Query) -> Result<Response<Reply>, Failure> {
    let names = query.all("run");
    let measure = query.choice("measure")?;
    query.finish()?;
    let runs = runs.read(&names)?;
    let mut comparison = Comparison::new(&runs, measure.unwrap_or_else(|| Measure::usual(&runs)));
    for value in comparison.differences.values_mut().flatten().flatten() {
        hide_directories(value);
    }
    Ok(json(StatusCode::OK, &comparison))
}

/// In a recipe, texts with a slash are paths: of a corpus, or of a run to begin from.
fn hide_directories(value: &mut Value) {
    match value {
        Value::String(text) => *text = without_directory(text),
        Value::Array(values) => values.iter_mut().for_each(hide_directories),
        Value::Object(values) => values.values_mut().for_each(hide_directories),
        _ => {}
    }
}
