//! The study's pictures: what it costs to leave out or exchange each layer, and what random orders cost.

use super::Outcome;
use crate::readable::grouped;
use crate::study::plot::{
    Axis, Bar, Bars, Cloud, Content, Figure, Group, Panel, Points, Reference, significant,
};

/// In what a cost is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// Perplexity of a text.
    Perplexity,
    /// Nats an image.
    Nats,
}

impl Cost {
    fn name(self) -> &'static str {
        match self {
            Self::Perplexity => "perplexity",
            Self::Nats => "nats an image",
        }
    }

    fn of(self, outcome: &Outcome) -> Option<f64> {
        match self {
            Self::Perplexity => outcome.perplexity,
            Self::Nats => outcome.nats_per_token,
        }
    }

    fn axis(self) -> Axis {
        Axis { name: self.name().into(), log: true, whole: false, from_zero: false }
    }

    fn untouched(self, untouched: &Outcome) -> Vec<Reference> {
        let reference = |value| Reference { value, label: format!("untouched {}", significant(value, 3)) };
        self.of(untouched).map(reference).into_iter().collect()
    }
}

/// A panel for each stage with a bar for each layer that is left out, and beside it one for its exchange with the next
/// where that was asked for.
pub(crate) fn removals(untouched: &Outcome, outcomes: &[Outcome], cost: Cost) -> Figure {
    let swapped = outcomes.iter().any(|outcome| outcome.intervention == "exchanged");
    let panel = |stage: &str| {
        let of_stage = |name: &'static str| {
            outcomes.iter().filter(move |outcome| outcome.stage == stage && outcome.intervention == name)
        };
        let layers: Vec<&str> = of_stage("left out").map(|outcome| outcome.layers.as_str()).collect();
        let group = |color, label: &str, name| {
            let of_layer = |layer: &&str| of_stage(name).find(|one| first(&one.layers) == *layer);
            let bar = |layer| of_layer(layer).map(|outcome| bar(cost.of(outcome)));
            Group { label: label.into(), color, bars: layers.iter().map(bar).collect() }
        };
        let mut groups = vec![group(0, "left out", "left out")];
        if swapped {
            groups.push(group(1, "exchanged with the next", "exchanged"));
        }
        Panel {
            title: stage.into(),
            content: Content::Bars(Bars {
                x_name: "layer".into(),
                y: cost.axis(),
                categories: layers.iter().map(ToString::to_string).collect(),
                groups,
                references: cost.untouched(untouched),
            }),
        }
    };
    let panels: Vec<Panel> = stages(outcomes).into_iter().map(panel).collect();
    Figure {
        title: "What the model loses without a layer".into(),
        columns: panels.len().min(2),
        panels,
        equal_axes: true,
    }
}

/// A panel for each stage with a point for each random order; none if there is no such order.
pub(crate) fn orders(untouched: &Outcome, outcomes: &[Outcome], cost: Cost) -> Option<Figure> {
    let shuffled: Vec<Outcome> =
        outcomes.iter().filter(|outcome| outcome.kendall_tau.is_some()).cloned().collect();
    let panel = |stage: &str| {
        let of_stage = shuffled.iter().filter(|outcome| outcome.stage == stage);
        let point = |outcome: &Outcome| Some((outcome.kendall_tau?, cost.of(outcome).unwrap_or(f64::NAN)));
        let points: Vec<(f64, f64)> = of_stage.filter_map(point).collect();
        let tau = "Kendall's tau to the trained order".into();
        Panel {
            title: format!("{stage}, {} random orders", grouped(points.len() as u64)),
            content: Content::Points(Points {
                x: Axis { name: tau, log: false, whole: false, from_zero: false },
                y: cost.axis(),
                clouds: vec![Cloud { label: String::new(), color: 0, points }],
                references: cost.untouched(untouched),
            }),
        }
    };
    let panels: Vec<Panel> = stages(&shuffled).into_iter().map(panel).collect();
    let title = "What the model loses by another order of its layers".into();
    (!panels.is_empty()).then(|| Figure { title, columns: panels.len().min(2), panels, equal_axes: true })
}

/// The names of the stages, in order.
fn stages(outcomes: &[Outcome]) -> Vec<&str> {
    let mut stages: Vec<&str> = outcomes.iter().map(|outcome| outcome.stage.as_str()).collect();
    stages.dedup();
    stages
}

/// The first of the layers, as it is named.
fn first(layers: &str) -> &str {
    layers.split(',').next().unwrap_or(layers)
}

/// Without a value it is marked as one that cannot be shown.
fn bar(value: Option<f64>) -> Bar {
    Bar { value: value.unwrap_or(f64::NAN), low: None, high: None }
}

#[cfg(test)]
mod tests {
    use super::{Cost, orders, removals};
    use crate::study::lesion::Outcome;
    use crate::study::plot::Content;

    fn outcome(intervention: &str, layers: &str, perplexity: Option<f64>, tau: Option<f64>) -> Outcome {
        Outcome {
            stage: "time step".into(),
            intervention: intervention.into(),
            layers: layers.into(),
            order: Vec::new(),
            perplexity,
            nats_per_token: perplexity.map(f64::ln),
            ratio: None,
            kendall_tau: tau,
            absent: None,
        }
    }

    #[test]
    fn each_layer_has_its_bars_and_random_orders_are_points() {
        let untouched = outcome("none", "–", Some(4.0), None);
        let outcomes = [
            outcome("left out", "1", Some(200.0), None),
            outcome("left out", "2", None, None),
            outcome("exchanged", "2, 3", Some(5.0), None),
            outcome("left out", "3", Some(6.0), None),
            outcome("shuffled", "all", Some(9.0), Some(0.5)),
        ];
        let figure = removals(&untouched, &outcomes, Cost::Perplexity);
        let Content::Bars(bars) = &figure.panels[0].content else { panic!("{figure:?}") };
        let values = |group: usize| -> Vec<Option<f64>> {
            bars.groups[group].bars.iter().map(|bar| bar.map(|bar| bar.value)).collect()
        };
        assert_eq!(bars.categories, ["1", "2", "3"]);
        assert_eq!((values(0)[0], values(0)[2]), (Some(200.0), Some(6.0)));
        assert!(values(0)[1].is_some_and(f64::is_nan), "it was measured, and has no value");
        assert_eq!(values(1), [None, Some(5.0), None]);
        assert_eq!(bars.references[0].label, "untouched 4.00");
        let figure = orders(&untouched, &outcomes, Cost::Perplexity).unwrap();
        let Content::Points(points) = &figure.panels[0].content else { panic!("{figure:?}") };
        assert_eq!(points.clouds[0].points, [(0.5, 9.0)]);
        assert!(orders(&untouched, &outcomes[..4], Cost::Perplexity).is_none());
    }
}
