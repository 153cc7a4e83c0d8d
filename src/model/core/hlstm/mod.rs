//! Highway LSTM: the cell of the layer below is added to this layer's through a gate, a highway in depth beside the
//! LSTM's own in time. Three published variants:
//!
//! - `zhang` (Zhang et al., 2016, arXiv 1510.08983): diagonal peepholes, a forget gate of its own
//! - `depth-gated` (Yao et al., 2015, arXiv 1508.03790, as its authors' code has it): full matrices on the cell, the
//!   forget gate is 1 − i, and the first layer carries a product of its input
//! - `kurata` (Kurata et al., 2017, arXiv 1709.06436): no gate between layers, but a highway layer inside the time step,
//!   in [`kurata`]
//!
//! ```text
//! i, f = sigmoid(x W + h W + w ⊙ c + b)              g = tanh(x W + h W + b)
//! d = sigmoid(x W_d + w_cd ⊙ c + w_ld ⊙ c↓ + b_d)     from the second layer on
//! c = d ⊙ c↓ + f ⊙ c + i ⊙ g                          c↓ is the lower layer's, of the same time step
//! o = sigmoid(x W + h W + w_co ⊙ c + b)               sees the new cell
//! h = (o ⊙ tanh c) W_proj                             the projection is optional
//! ```
//!
//! With a stabiliser x stands for exp(s) x, where s is one trained number a layer.

mod kurata;
mod layer;
mod plain;
mod scanned;
mod stack;

use super::recurrent::RECURRENT;
use super::settings::CoreSettings;
use super::stack::Stack;
use crate::error::{Error, Result};
use crate::model::builder::Builder;
use crate::model::config::at_least;
use crate::model::layers::Core;
use layer::{Layer, LayerWeights, PEEPHOLE, STABILISER};
use serde::{Deserialize, Serialize};
use stack::HighwayStack;
use std::ops::Range;
use std::sync::Arc;

/// Highway LSTM. What is not set is as its variant has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HlstmConfig {
    /// Stacked layers.
    #[serde(default = "super::settings::one_layer")]
    pub layers: usize,
    /// Units of the cell.
    pub hidden_size: usize,
    /// Which of the published models.
    #[serde(default)]
    pub variant: Variant,
    /// The first bias of the depth gates, or of Kurata's transform gates.
    #[serde(default = "minus_two")]
    pub depth_bias: f64,
    /// How the gates see the cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peephole: Option<Peephole>,
    /// Whether the forget gate is 1 − i.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coupled: Option<bool>,
    /// Whether the first layer has a depth gate too, for a product of its input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_layer_carry: Option<bool>,
    /// Units of the output, if a matrix makes them from those of the cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<usize>,
    /// Whether each layer's input is multiplied by exp(s), s a trained number that begins at 0 (as in the later version of the
    /// code of Yao et al.).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stabiliser: bool,
}

/// Which of the published models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// Zhang et al., 2016.
    #[default]
    Zhang,
    /// Yao et al., 2015.
    DepthGated,
    /// Kurata et al., 2017.
    Kurata,
}

/// How the gates see the cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peephole {
    /// Not at all.
    None,
    /// Unit by unit.
    Diagonal,
    /// Through a matrix.
    Full,
}

fn minus_two() -> f64 {
    -2.0
}

/// The parts of a layer that are a matter of choice.
#[derive(Clone, Copy)]
struct Shape {
    /// Units of the cell.
    cells: usize,
    /// Units of the output.
    outputs: usize,
    projected: bool,
    stabilised: bool,
    peephole: Peephole,
    coupled: bool,
    depth_bias: f64,
}

impl HlstmConfig {
    fn shape(&self) -> Shape {
        let depth_gated = self.variant == Variant::DepthGated;
        let peephole = if depth_gated { Peephole::Full } else { Peephole::Diagonal };
        Shape {
            cells: self.hidden_size,
            outputs: self.hidden_size(),
            projected: self.projection.is_some(),
            stabilised: self.stabiliser,
            peephole: self.peephole.unwrap_or(peephole),
            coupled: self.coupled.unwrap_or(depth_gated),
            depth_bias: self.depth_bias,
        }
    }

    fn first_layer_carries(&self) -> bool {
        self.first_layer_carry.unwrap_or(self.variant == Variant::DepthGated)
    }
}

impl CoreSettings for HlstmConfig {
    fn layers(&self) -> usize {
        self.layers
    }

    fn hidden_size(&self) -> usize {
        self.projection.unwrap_or(self.hidden_size)
    }

    fn widest(&self) -> usize {
        self.hidden_size.max(self.hidden_size())
    }

    fn depth(&self) -> usize {
        if self.variant == Variant::Kurata { 2 } else { 1 }
    }

    /// A full peephole is a matrix between units as well; a diagonal one is none.
    fn recurrent_weights(&self) -> Vec<(&'static str, candle_core::Shape)> {
        let Shape { cells, outputs, peephole, coupled, .. } = self.shape();
        let gates = if coupled { 3 } else { 4 };
        let mut weights = vec![(RECURRENT, candle_core::Shape::from((outputs, gates * cells)))];
        if self.variant == Variant::Kurata {
            weights.push((kurata::HIGHWAY, (cells, 2 * cells).into()));
        } else if peephole == Peephole::Full {
            weights.push((PEEPHOLE, (gates - 1, cells, cells).into()));
        }
        weights
    }

    fn gate_columns(&self, name: &str) -> Option<Range<usize>> {
        let Shape { cells, coupled, .. } = self.shape();
        let in_time = if coupled { 2 } else { 3 }; // i, o and f; g comes last
        Some(match name {
            "highway.weight" | "highway.bias" => cells..2 * cells, // T, behind H
            "depth.carry.weight" | "projection.weight" | STABILISER => 0..0,
            PEEPHOLE => 0..cells,
            _ if name.starts_with("depth.") => 0..cells,
            _ => 0..in_time * cells,
        })
    }

    fn depth_gate(&self, layer: usize) -> Option<usize> {
        let gated = self.variant != Variant::Kurata && (layer > 0 || self.first_layer_carries());
        gated.then_some(self.hidden_size)
    }

    fn validate(&self) -> Result<()> {
        let Self { peephole, coupled, first_layer_carry, projection, stabiliser, .. } = self;
        if !self.depth_bias.is_finite() {
            return Err(Error::config(format!(
                "model.core.depth_bias is {}, wanted a finite number",
                self.depth_bias
            )));
        }
        at_least(
            1,
            "model.core",
            &[("hidden_size", self.hidden_size), ("projection", projection.unwrap_or(1))],
        )?;
        let given = peephole.is_some()
            || coupled.is_some()
            || first_layer_carry.is_some()
            || projection.is_some()
            || *stabiliser;
        if self.variant == Variant::Kurata && given {
            return Err(Error::config(
                "variant = \"kurata\" is a plain LSTM with a highway layer inside: it has none of peephole, coupled, \
                 first_layer_carry, projection, stabiliser",
            ));
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let Self { layers, hidden_size, .. } = self;
        let variant = match self.variant {
            Variant::Zhang => "highway LSTM",
            Variant::DepthGated => "depth-gated LSTM",
            Variant::Kurata => "LSTM with a highway layer inside",
        };
        let projection = self.projection.map_or(String::new(), |size| format!(" projected to {size}"));
        format!("{variant}, {layers} layer(s) of {hidden_size} units{projection}")
    }

    fn build(&self, input_size: usize, builder: &Builder<'_>) -> Result<Arc<dyn Core>> {
        if self.variant == Variant::Kurata {
            return Stack::build(self, input_size, builder, |input_size, weights| {
                kurata::Kurata::build(self.hidden_size, self.depth_bias, input_size, weights)
            });
        }
        let shape = self.shape();
        let layer = |k: usize| -> Result<Arc<dyn Layer>> {
            let carries = k == 0 && self.first_layer_carries();
            let input = if k == 0 { input_size } else { shape.outputs };
            let builder = builder.under(&format!("core.{k}"));
            let weights = LayerWeights::build(shape, input, self.depth_gate(k).is_some(), carries, &builder)?;
            let fits_the_scan = shape.peephole != Peephole::Full && !shape.coupled && !shape.projected;
            Ok(if fits_the_scan {
                Arc::new(scanned::Scanned::new(weights)?)
            } else {
                Arc::new(plain::Plain(weights))
            })
        };
        let layers = (0..self.layers).map(layer).collect::<Result<_>>()?;
        Ok(Arc::new(HighwayStack::new(layers, [shape.outputs, shape.cells], builder)))
    }
}
