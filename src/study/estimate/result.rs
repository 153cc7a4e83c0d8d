//! What the estimation study found, to print and to keep.

use serde::Serialize;

/// A stage with the figures of each of its states.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StageEstimate {
    /// Which stage.
    pub(crate) stage: String,
    /// `trained`, or `init`: the untrained weights of the same seed.
    pub(crate) weights: String,
    /// What the averages are over: `tokens` or `types`.
    pub(crate) over: String,
    /// Rows that were computed: tokens, or distinct words.
    pub(crate) rows: u64,
    /// What they count for in all.
    pub(crate) weight: f64,
    /// Units of the state.
    pub(crate) units: usize,
    /// From what enters the stage, k = 0, to its last state.
    pub(crate) layers: Vec<LayerEstimate>,
    /// What a reader has to know.
    pub(crate) notes: Vec<String>,
}

/// The figures of the state after layer k; d is its difference to the last state of the stage.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LayerEstimate {
    /// The layer; 0 is what enters the first.
    pub(crate) k: usize,
    /// Mean over units of the mean of d over rows.
    pub(crate) mean: f64,
    /// Mean over units of the standard deviation of d over rows.
    pub(crate) sd: f64,
    /// Mean over units of the absolute mean of d over rows.
    pub(crate) absmean: f64,
    /// Mean norm of d over the mean norm of the last state.
    pub(crate) rel: Option<f64>,
    /// Mean norm of the step from the state before, over that state's.
    pub(crate) step: Option<f64>,
    /// Mean of the transform gate.
    pub(crate) gate_mean: Option<f64>,
    /// Share of the gate's values above one half.
    pub(crate) gate_open: Option<f64>,
    /// Mean over units of the gate's standard deviation over rows.
    pub(crate) gate_sd: Option<f64>,
    /// The best weights of H, before the last layer.
    pub(crate) mixing: Option<Mixing>,
}

/// The weight that the derivation gives H in the best unbiased mix with the layer's input.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Mixing {
    /// Mean over units.
    pub(crate) ideal: Option<f64>,
    /// Correlation over units with the gate's mean.
    pub(crate) correlation: Option<f64>,
    /// Units without such a weight: the errors of H and of the input do not differ.
    pub(crate) left_out: usize,
}

/// The columns of a table for programs.
pub(crate) const COLUMNS: [&str; 14] = [
    "stage",
    "weights",
    "over",
    "k",
    "mean",
    "sd",
    "absmean",
    "rel",
    "step",
    "gate_mean",
    "gate_open",
    "gate_sd",
    "ideal",
    "ideal_gate_correlation",
];

impl LayerEstimate {
    /// The figures in the order of [`COLUMNS`], from `mean` on.
    pub(crate) fn figures(&self) -> [Option<f64>; 10] {
        let mixing = self.mixing.as_ref();
        [
            Some(self.mean),
            Some(self.sd),
            Some(self.absmean),
            self.rel,
            self.step,
            self.gate_mean,
            self.gate_open,
            self.gate_sd,
            mixing.and_then(|mixing| mixing.ideal),
            mixing.and_then(|mixing| mixing.correlation),
        ]
    }
}
