//! The study's picture, after figure 3 of the paper: how far the states of each stage are from its last one.

use super::StageEstimate;
use crate::study::plot::{Axis, Content, Figure, Line, LinePoint, Lines, Panel, Reference};

/// A panel for each stage, in it a line with a band for the trained and one for the untrained weights. Stages differ in
/// their number of layers and in scale, so each has its own axes.
pub(crate) fn figure(estimates: &[StageEstimate]) -> Figure {
    let mut stages: Vec<&str> = Vec::new();
    for estimate in estimates {
        if !stages.contains(&estimate.stage.as_str()) {
            stages.push(&estimate.stage);
        }
    }
    let panel = |stage: &&str| Panel {
        title: (*stage).to_string(),
        content: Content::Lines(Lines {
            x: Axis { name: "state k of the stage".into(), log: false, whole: true, from_zero: true },
            y: Axis { name: "mean ± sd of d".into(), log: false, whole: false, from_zero: false },
            lines: estimates.iter().filter(|estimate| estimate.stage == **stage).map(line).collect(),
            references: vec![Reference { value: 0.0, label: "last state".into() }],
        }),
    };
    Figure {
        title: "Difference d of each state to the last one of its stage".into(),
        columns: stages.len().min(3),
        panels: stages.iter().map(panel).collect(),
        equal_axes: false,
    }
}

fn line(estimate: &StageEstimate) -> Line {
    let untrained = estimate.weights == "init";
    let point = |layer: &super::LayerEstimate| LinePoint {
        x: layer.k as f64,
        y: layer.mean,
        band: Some((layer.mean - layer.sd, layer.mean + layer.sd)),
    };
    Line {
        label: if untrained { "untrained weights" } else { "trained weights" }.into(),
        color: usize::from(untrained),
        dashed: untrained,
        points: estimate.layers.iter().map(point).collect(),
    }
}
