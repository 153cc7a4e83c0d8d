//! Recurrent highway layer (Zilly et al., 2017), carry gate tied to `1 - t`.
//!
//! ```text
//! h_l = tanh   (x W_h [l = 1] + s_{l-1} R_h,l + b_h,l)
//! t_l = sigmoid(x W_t [l = 1] + s_{l-1} R_t,l + b_t,l)
//! s_l = s_{l-1} + t_l (h_l - s_{l-1})                     l = 1 ..= depth
//! ```
//!
//! The sublayers can share their gates, as the layers of a highway DNN do (Lu and Renals, 2016). They share t alone:
//! R_t,l and b_t,l are the same for all l. Or t and a carry gate of its own, as that DNN has it:
//!
//! ```text
//! c_l = sigmoid(x W_c [l = 1] + s_{l-1} R_c + b_c)
//! s_l = h_l t_l + s_{l-1} c_l
//! ```
//!
//! b_c begins at minus b_t's first value: sigmoid(-b) = 1 - sigmoid(b), so that the layer starts nearly as a coupled one.
//!
//! Weights: `input.weight` (input, 2 hidden), `recurrent.weight` (depth, hidden, 2 hidden), `bias` (depth, 2 hidden);
//! columns of H, then of T. With shared gates `recurrent.weight` (depth, hidden, hidden) and `bias` (depth, hidden) are
//! of H alone; `shared.weight` (hidden, hidden) and `shared.bias` (hidden) are of T. With both gates shared these are
//! (hidden, 2 hidden) and (2 hidden), of T, then of C, and `input.weight` is (input, 3 hidden), of H, T, C.

use super::mogrifier::{Mogrified, MogrifierConfig};
use super::recurrent::{Bias, RECURRENT, Recurrent, SHARED, Weights};
use super::settings::CoreSettings;
use super::stack::Stack;
use crate::error::{Error, Result};
use crate::model::builder::Builder;
use crate::model::config::at_least;
use crate::model::layers::Core;
use candle_core::Shape;
use rhn_kernels::scan::{self, trace::HighwayCell};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// Recurrent highway network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RhnConfig {
    /// Stacked layers.
    #[serde(default = "super::settings::one_layer")]
    pub layers: usize,
    /// Units of the state.
    pub hidden_size: usize,
    /// Highway sublayers a time step, L.
    pub recurrence_depth: usize,
    /// The transform gates' first bias; that of a carry gate of its own is minus this.
    #[serde(default = "minus_two")]
    pub transform_bias: f64,
    /// Which gates have one set of recurrent weights and biases for all sublayers.
    #[serde(default, skip_serializing_if = "RhnSharedGates::is_none")]
    pub shared_gates: RhnSharedGates,
    /// Gates between the input and the state before the first sublayer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mogrifier: Option<MogrifierConfig>,
}

/// Which gates all sublayers of a layer share, after the feed-forward nets of Lu and Renals (2016).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RhnSharedGates {
    /// Each sublayer has its own.
    #[default]
    None,
    /// The transform gate; the carry gate is tied to it.
    Transform,
    /// The transform gate, and a carry gate that is not tied to it.
    Both,
}

impl RhnSharedGates {
    /// Whether `config.json` and recipes leave the key out.
    fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// What [`CoreSettings::describe`] adds.
    fn describe(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Transform => ", one transform gate for all sublayers",
            Self::Both => ", one transform and one carry gate for all sublayers",
        }
    }
}

fn minus_two() -> f64 {
    -2.0
}

impl CoreSettings for RhnConfig {
    fn layers(&self) -> usize {
        self.layers
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn depth(&self) -> usize {
        self.recurrence_depth
    }

    fn has_separate_gate_masks(&self) -> bool {
        true
    }

    fn recurrent_weights(&self) -> Vec<(&'static str, Shape)> {
        let hidden = self.hidden_size;
        let depth = self.recurrence_depth;
        let of_sublayers = |gates: usize| (RECURRENT, Shape::from((depth, hidden, gates * hidden)));
        let shared = |gates: usize| (SHARED, Shape::from((hidden, gates * hidden)));
        match self.shared_gates {
            RhnSharedGates::None => vec![of_sublayers(2)],
            RhnSharedGates::Transform => vec![of_sublayers(1), shared(1)],
            RhnSharedGates::Both => vec![of_sublayers(1), shared(2)],
        }
    }

    fn gate_columns(&self, name: &str) -> Option<Range<usize>> {
        let hidden = self.hidden_size;
        let gates = match self.shared_gates {
            RhnSharedGates::None | RhnSharedGates::Transform => 1,
            RhnSharedGates::Both => 2,
        };
        Some(match name {
            _ if name.starts_with("mogrifier.") => 0..0,
            "shared.weight" | "shared.bias" => 0..gates * hidden,
            "recurrent.weight" | "bias" if self.shared_gates != RhnSharedGates::None => 0..0, // of H alone
            _ => hidden..(1 + gates) * hidden,
        })
    }

    fn validate(&self) -> Result<()> {
        let sizes = [("hidden_size", self.hidden_size), ("recurrence_depth", self.recurrence_depth)];
        at_least(1, "model.core", &sizes)?;
        if !self.transform_bias.is_finite() {
            let bias = self.transform_bias;
            return Err(Error::config(format!(
                "model.core.transform_bias is {bias}, wanted a finite number"
            )));
        }
        self.mogrifier.as_ref().map_or(Ok(()), |mogrifier| mogrifier.validate(self.hidden_size))
    }

    fn describe(&self) -> String {
        let Self { layers, hidden_size, recurrence_depth, .. } = self;
        let shared = self.shared_gates.describe();
        let mogrifier = self.mogrifier.as_ref().map(MogrifierConfig::to_string).unwrap_or_default();
        format!(
            "recurrent highway network, {layers} layer(s) of {hidden_size} units, depth {recurrence_depth}{shared}\
             {mogrifier}"
        )
    }

    fn build(&self, input_size: usize, builder: &Builder<'_>) -> Result<Arc<dyn Core>> {
        match self.shared_gates {
            RhnSharedGates::None => self.stack(input_size, builder, Self::layer),
            RhnSharedGates::Transform => self.stack(input_size, builder, Self::sharing_layer::<scan::Rhn>),
            RhnSharedGates::Both => {
                self.stack(input_size, builder, Self::sharing_layer::<scan::UncoupledRhn>)
            }
        }
    }
}

impl RhnConfig {
    /// The layers that `layer` builds, behind their gates where there are some.
    fn stack<C: HighwayCell + 'static>(
        &self,
        input_size: usize,
        builder: &Builder<'_>,
        layer: impl Fn(&Self, usize, &Builder<'_>) -> Result<Recurrent<C>>,
    ) -> Result<Arc<dyn Core>> {
        let Some(mogrifier) = &self.mogrifier else {
            return Stack::build(self, input_size, builder, |size, weights| layer(self, size, weights));
        };
        Stack::build(self, input_size, builder, |size, weights| {
            let gates = mogrifier.build(size, self.hidden_size, weights)?;
            Ok(Mogrified::new(gates, layer(self, size, weights)?).with_tracer())
        })
    }

    /// A layer each of whose sublayers has its own gates.
    fn layer(&self, input_size: usize, weights: &Builder<'_>) -> Result<Recurrent<scan::Rhn>> {
        let hidden = self.hidden_size;
        let depth = self.recurrence_depth;
        let first_bias = |index: usize, uniform: f64| {
            let of_transform_gate = index % (2 * hidden) >= hidden;
            if of_transform_gate { self.transform_bias } else { uniform }
        };
        let layer = Recurrent::new(Weights {
            input: weights.weight("input.weight", (input_size, 2 * hidden))?,
            recurrent: weights.weight(RECURRENT, (depth, hidden, 2 * hidden))?,
            bias: Bias::One(weights.weight_with("bias", (depth, 2 * hidden), first_bias)?),
            precision: weights.precision,
        });
        Ok(layer.with_tracer())
    }

    /// A layer whose sublayers share all gates that cell `C` has, and have an H each.
    fn sharing_layer<C: HighwayCell>(
        &self,
        input_size: usize,
        weights: &Builder<'_>,
    ) -> Result<Recurrent<C>> {
        let hidden = self.hidden_size;
        let depth = self.recurrence_depth;
        let shared = C::GATES - 1;
        let layer = Recurrent::new(Weights {
            input: weights.weight("input.weight", (input_size, C::GATES * hidden))?,
            recurrent: weights.weight(RECURRENT, (depth, hidden, hidden))?,
            bias: Bias::One(weights.weight("bias", (depth, hidden))?),
            precision: weights.precision,
        });
        let first_bias = |index: usize, _: f64| {
            let of_transform_gate = index < hidden;
            if of_transform_gate { self.transform_bias } else { -self.transform_bias }
        };
        let gates = weights.weight(SHARED, (hidden, shared * hidden))?;
        let bias = weights.weight_with("shared.bias", shared * hidden, first_bias)?;
        Ok(layer.with_shared_gates(gates, bias, depth).with_tracer())
    }
}
