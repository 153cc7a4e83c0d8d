//! Made-up figures for the tests, one of each kind and of each odd size.

use super::presets::{DepthCurve, KindBars, KindCurves, depth_bars, layer_map, training_curves};
use super::{Bar, Cloud, ColorScale, Content, Figure, Panel, Points};
use crate::study::plot::{Axis, Reference};

fn gates() -> Vec<Vec<f64>> {
    let gate = |row: usize, column: usize| {
        let wave = ((row * column) as f64 * 0.37).sin() * 0.5 + ((column * 7 % 13) as f64 * 0.1);
        0.12 * (1.0 + wave) * (1.0 + 3.0 * (-(row as f64) / 8.0).exp())
    };
    let mut values: Vec<Vec<f64>> =
        (0..49).map(|row| (0..50).map(|column| gate(row, column)).collect()).collect();
    values[5][7] = f64::NAN;
    values[20][30] = f64::INFINITY;
    values
}

pub(super) fn curves() -> Vec<KindCurves> {
    let curve = |depth: usize, slope: f64| DepthCurve {
        depth,
        points: (1..=20)
            .map(|epoch| (f64::from(epoch), 0.6 * (-slope * f64::from(epoch).sqrt()).exp()))
            .collect(),
    };
    let kind = |kind: &str, slopes: [f64; 4]| KindCurves {
        kind: kind.into(),
        curves: [10, 20, 50, 100].into_iter().zip(slopes).map(|(depth, slope)| curve(depth, slope)).collect(),
    };
    let mut kinds = vec![kind("plain", [0.9, 0.7, 0.4, 0.1]), kind("highway", [1.1, 1.2, 1.0, 0.9])];
    kinds[0].curves[3].points[12].1 = f64::NAN;
    kinds
}

pub(super) fn bars() -> Vec<KindBars> {
    let bar = |value: f64| Some(Bar { value, low: Some(value / 3.0), high: Some(value * 4.0) });
    vec![
        KindBars {
            kind: "plain".into(),
            bars: vec![bar(1e-4), bar(3e-3), bar(0.2), Some(Bar { value: f64::NAN, low: None, high: None })],
        },
        KindBars { kind: "highway".into(), bars: vec![bar(2e-5), bar(4e-6), None, bar(7e-5)] },
    ]
}

fn scatter() -> Figure {
    let axis = |name: &str, log| Axis { name: name.into(), log, whole: false, from_zero: false };
    let points = (0..20).map(|n| (1.0 - f64::from(n) / 12.0, 4.3 * (f64::from(n) / 4.0).exp())).collect();
    Figure {
        title: "Random orders".into(),
        panels: vec![Panel {
            title: "time step".into(),
            content: Content::Points(Points {
                x: axis("Kendall's tau to the trained order", false),
                y: axis("perplexity", true),
                clouds: vec![Cloud { label: "order".into(), color: 0, points }],
                references: vec![Reference { value: 4.22, label: "untouched 4.22".into() }],
            }),
        }],
        columns: 1,
        equal_axes: false,
    }
}

/// One of each.
pub(super) fn all() -> Vec<(&'static str, Figure)> {
    let sequential = ColorScale::Sequential { low: Some(0.0), high: None };
    let diverging = ColorScale::Diverging { middle: 0.12, reach: None };
    let mut both = layer_map("Gates of the 50-layer net", "mean of T", sequential, gates());
    both.panels[0].title = "from zero".into();
    both.panels.extend(layer_map("", "mean of T", diverging, gates()).panels);
    both.panels[1].title = "around the start".into();
    both.columns = 2;
    let wide = layer_map("Wide", "T", sequential, vec![(0..256).map(f64::from).collect(); 4]);
    let tall = layer_map("Tall", "T", sequential, (0..1000).map(|row| vec![f64::from(row); 50]).collect());
    vec![
        ("gates", layer_map("Mean gate over the training images", "mean of T", sequential, gates())),
        ("two", both),
        ("wide", wide),
        ("tall", tall),
        ("curves", training_curves("Training curves of MNIST nets", "cross-entropy, nats", &curves())),
        (
            "bars",
            depth_bars(
                "Training error by depth",
                "cross-entropy, nats; mean and range",
                &[10, 20, 50, 100],
                bars(),
            ),
        ),
        ("scatter", scatter()),
    ]
}
