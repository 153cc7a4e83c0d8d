//! The study's picture, after figure 3 of the paper: how far the states of each stage are from its last one.

use super::{LayerEstimate, StageEstimate};
use crate::study::plot::{Axis, Content, Figure, Line, LinePoint, Lines, Panel};

/// If the spreads of trained and untrained weights differ by more, one of them would be a flat line.
const COMPARABLE: f64 = 10.0;

/// A panel for each stage, in it a line with a band for the trained and one for the untrained weights; a panel for each
/// of them where their spreads cannot be seen on one axis. Stages differ in their number of layers and in scale, so each
/// panel has its own axes.
pub(crate) fn figure(estimates: &[StageEstimate]) -> Figure {
    let mut stages: Vec<&str> = Vec::new();
    for estimate in estimates {
        if !stages.contains(&estimate.stage.as_str()) {
            stages.push(&estimate.stage);
        }
    }
    let of_stage = |stage: &str| -> Vec<&StageEstimate> {
        estimates.iter().filter(|estimate| estimate.stage == stage).collect()
    };
    let apart = stages.iter().any(|stage| !are_comparable(&of_stage(stage)));
    let panels: Vec<Panel> = if apart {
        let each = stages.iter().flat_map(|stage| of_stage(stage));
        each.map(|one| panel(format!("{}, {}", one.stage, weights(one)), &[one])).collect()
    } else {
        stages.iter().map(|stage| panel((*stage).to_string(), &of_stage(stage))).collect()
    };
    Figure {
        title: "Difference d of each state to the last one of its stage".into(),
        columns: if apart { 2 } else { stages.len().min(3) },
        panels,
        equal_axes: false,
    }
}

fn are_comparable(estimates: &[&StageEstimate]) -> bool {
    let spread = |estimate: &&StageEstimate| estimate.layers.iter().map(|layer| layer.sd).fold(0.0, f64::max);
    let least = estimates.iter().map(spread).fold(f64::INFINITY, f64::min);
    let greatest = estimates.iter().map(spread).fold(0.0, f64::max);
    greatest <= COMPARABLE * least
}

fn panel(title: String, estimates: &[&StageEstimate]) -> Panel {
    let lines = Lines {
        x: Axis { name: "state k".into(), log: false, whole: true, from_zero: true },
        y: Axis { name: "mean ± sd of d".into(), log: false, whole: false, from_zero: false },
        lines: estimates.iter().map(|estimate| line(estimate)).collect(),
        references: Vec::new(),
    };
    Panel { title, content: Content::Lines(lines) }
}

fn line(estimate: &StageEstimate) -> Line {
    let point = |layer: &LayerEstimate| LinePoint {
        x: layer.k as f64,
        y: layer.mean,
        band: Some((layer.mean - layer.sd, layer.mean + layer.sd)),
    };
    Line {
        label: weights(estimate).into(),
        color: usize::from(is_untrained(estimate)),
        dashed: is_untrained(estimate),
        points: estimate.layers.iter().map(point).collect(),
    }
}

fn weights(estimate: &StageEstimate) -> &'static str {
    if is_untrained(estimate) { "untrained weights" } else { "trained weights" }
}

fn is_untrained(estimate: &StageEstimate) -> bool {
    estimate.weights == "init"
}

#[cfg(test)]
mod tests {
    use super::figure;
    use crate::study::estimate::{LayerEstimate, StageEstimate};
    use crate::study::plot::Content;

    fn estimate(weights: &str, sd: f64) -> StageEstimate {
        let layer = |k, sd| LayerEstimate {
            k,
            mean: 0.5,
            sd,
            absmean: 0.5,
            rel: None,
            step: None,
            gate_mean: None,
            gate_open: None,
            gate_sd: None,
            mixing: None,
        };
        StageEstimate {
            stage: "time step".into(),
            weights: weights.into(),
            over: "tokens".into(),
            rows: 1,
            weight: 1.0,
            units: 1,
            layers: vec![layer(0, sd), layer(1, 0.0)],
            notes: Vec::new(),
        }
    }

    #[test]
    fn trained_and_untrained_weights_share_a_panel_where_both_can_be_seen() {
        let shared = figure(&[estimate("trained", 2.0), estimate("init", 0.25)]);
        let Content::Lines(lines) = &shared.panels[0].content else { panic!("{shared:?}") };
        assert_eq!((shared.panels.len(), lines.lines.len()), (1, 2));
        assert_eq!(lines.lines[0].points[0].band, Some((0.5 - 2.0, 0.5 + 2.0)));
        let apart = figure(&[estimate("trained", 2.0), estimate("init", 0.001)]);
        let titles: Vec<&str> = apart.panels.iter().map(|panel| panel.title.as_str()).collect();
        assert_eq!(titles, ["time step, trained weights", "time step, untrained weights"]);
    }
}
