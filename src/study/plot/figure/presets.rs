//! Figures that several studies draw: gates, training curves by depth, final errors by depth.

use super::ColorScale;
use super::content::{Bar, Bars, CellAxis, Content, Figure, Group, HeatMap, Line, LinePoint, Lines, Panel};
use crate::study::plot::Axis;

/// The training curves of nets of one kind, say `plain` or `highway`.
#[derive(Clone, Debug)]
pub(crate) struct KindCurves {
    pub kind: String,
    pub curves: Vec<DepthCurve>,
}

/// The training curve of a net of so many layers.
#[derive(Clone, Debug)]
pub(crate) struct DepthCurve {
    pub depth: usize,
    /// Epochs and losses; a loss that is not finite is a gap.
    pub points: Vec<(f64, f64)>,
}

/// The final errors of nets of one kind, one for each depth; none where no net was trained.
#[derive(Clone, Debug)]
pub(crate) struct KindBars {
    pub kind: String,
    pub bars: Vec<Option<Bar>>,
}

/// A matrix of highway layers (rows, the first at the top) and blocks, which are its units: biases, gates or outputs.
/// `scale` is sequential from 0 for gates, diverging around the initial bias for biases and around 0 for outputs and
/// differences.
pub(crate) fn layer_map(title: &str, value_name: &str, scale: ColorScale, values: Vec<Vec<f64>>) -> Figure {
    let axis = |name: &str| CellAxis { name: name.into(), labels: Vec::new(), first: 1 };
    let map = HeatMap {
        rows: axis("highway layer"),
        columns: axis("block"),
        values,
        value_name: value_name.into(),
        scale,
    };
    one_panel(title, Content::HeatMap(map))
}

/// A panel for each kind side by side, with equal axes and the loss on a logarithmic one; a depth has one colour in
/// all of them.
pub(crate) fn training_curves(title: &str, loss_name: &str, kinds: &[KindCurves]) -> Figure {
    let mut depths: Vec<usize> =
        kinds.iter().flat_map(|kind| kind.curves.iter().map(|curve| curve.depth)).collect();
    depths.sort_unstable();
    depths.dedup();
    let line = |curve: &DepthCurve| Line {
        label: format!("{} layers", curve.depth),
        color: depths.iter().position(|depth| *depth == curve.depth).unwrap_or(0),
        dashed: false,
        points: curve.points.iter().map(|&(x, y)| LinePoint { x, y, band: None }).collect(),
    };
    let panel = |kind: &KindCurves| Panel {
        title: kind.kind.clone(),
        content: Content::Lines(Lines {
            x: Axis { name: "epoch".into(), log: false, whole: true, from_zero: true },
            y: Axis { name: loss_name.into(), log: true, whole: false, from_zero: false },
            lines: kind.curves.iter().map(line).collect(),
            references: Vec::new(),
        }),
    };
    Figure {
        title: title.into(),
        panels: kinds.iter().map(panel).collect(),
        columns: kinds.len(),
        equal_axes: true,
    }
}

/// Bars by depth on a logarithmic axis, in each depth one of every kind, with whiskers over trials.
pub(crate) fn depth_bars(title: &str, value_name: &str, depths: &[usize], kinds: Vec<KindBars>) -> Figure {
    let group = |(color, kind): (usize, KindBars)| Group { label: kind.kind, color, bars: kind.bars };
    let bars = Bars {
        x_name: "layers".into(),
        y: Axis { name: value_name.into(), log: true, whole: false, from_zero: false },
        categories: depths.iter().map(ToString::to_string).collect(),
        groups: kinds.into_iter().enumerate().map(group).collect(),
        references: Vec::new(),
    };
    one_panel(title, Content::Bars(bars))
}

fn one_panel(title: &str, content: Content) -> Figure {
    let panels = vec![Panel { title: String::new(), content }];
    Figure { title: title.into(), panels, columns: 1, equal_axes: false }
}
