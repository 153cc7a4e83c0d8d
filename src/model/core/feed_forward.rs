//! A stack of highway or plain layers (Srivastava, Greff and Schmidhuber, 2015): no state, and nothing of time.
//!
//! ```text
//! plain     y = f(x W_H + b_H)
//! coupled   y = x + t (h − x)          h = f(x W_H + b_H)      t = sigmoid(x W_T + b_T)
//! full      y = h t + x c              c = sigmoid(x W_C + b_C)
//! ```
//!
//! Gates can be shared by all layers (Lu and Renals, 2016). Weights: `core.weight` (layers, size, own · size), columns of
//! H, then of T and C where each layer has its own; `core.bias` (layers, own · size); `core.shared.weight`
//! (size, shared · size) and `core.shared.bias` of those that are shared.

use super::settings::CoreSettings;
use super::state::State;
use crate::error::{Error, Result};
use crate::model::builder::Builder;
use crate::model::layers::Core;
use crate::model::noise::Noise;
use crate::model::stage::{LayerTrace, StageTrace};
use candle_core::Tensor;
use rhn_kernels::feed_forward::reference::{LayerValues, values};
use rhn_kernels::feed_forward::{self as stack, Layer, feed_forward};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A stack of highway or plain layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedForwardConfig {
    /// Layers of the stack. The papers count one more: the plain layer from the pixels.
    pub layers: usize,
    /// Units of every layer.
    pub hidden_size: usize,
    /// How a layer's input is carried to its output.
    #[serde(default)]
    pub mixing: Mixing,
    /// The function f, of the first layer too.
    #[serde(default)]
    pub activation: Activation,
    /// The transform gates' first bias.
    #[serde(default = "minus_two")]
    pub transform_bias: f64,
    /// The carry gates' first bias, where they have weights of their own [default: minus that of the transform gates, so
    /// that `full` starts as `coupled` does].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carry_bias: Option<f64>,
    /// Which gates all layers share.
    #[serde(default)]
    pub shared_gates: SharedGates,
}

fn minus_two() -> f64 {
    -2.0
}

/// How a layer's input is carried to its output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mixing {
    /// Not at all.
    Plain,
    /// As far as the transform gate is closed.
    #[default]
    Coupled,
    /// As far as a gate of its own is open.
    Full,
}

/// What H is computed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// max(0, x).
    Relu,
    /// Hyperbolic tangent.
    #[default]
    Tanh,
    /// Logistic sigmoid.
    Sigmoid,
}

impl From<Activation> for stack::Activation {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Relu => Self::Relu,
            Activation::Tanh => Self::Tanh,
            Activation::Sigmoid => Self::Sigmoid,
        }
    }
}

/// Which gates have one set of weights for all layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SharedGates {
    /// Each layer has its own.
    #[default]
    None,
    /// The transform gate.
    Transform,
    /// The transform gate and the carry gate.
    Both,
}

impl FeedForwardConfig {
    /// A layer, but for its weights.
    pub fn layer(&self) -> Layer {
        Layer {
            mixing: match self.mixing {
                Mixing::Plain => stack::Mixing::Plain,
                Mixing::Coupled => stack::Mixing::Coupled,
                Mixing::Full => stack::Mixing::Full,
            },
            activation: self.activation.into(),
        }
    }

    /// Products of which all layers share the weights.
    fn shared(&self) -> usize {
        match self.shared_gates {
            SharedGates::None => 0,
            SharedGates::Transform => 1,
            SharedGates::Both => 2,
        }
    }

    fn first_bias(&self, product: usize) -> Option<f64> {
        match product {
            1 => Some(self.transform_bias),
            2 => Some(self.carry_bias.unwrap_or(-self.transform_bias)),
            _ => None,
        }
    }

    /// The stack on its weights.
    fn stack(&self, input_size: usize, builder: &Builder<'_>) -> Result<FeedForward> {
        let size = self.hidden_size;
        if input_size != size {
            return Err(Error::config(format!(
                "a feed-forward core of {size} units cannot carry an input of {input_size}: give them the same size"
            )));
        }
        let builder = builder.under("core");
        let products = self.layer().gates();
        let own: Vec<usize> = (0..products).filter(|&product| !self.shares(product)).collect();
        let shared: Vec<usize> = (0..products).filter(|&product| self.shares(product)).collect();
        let bias = |products: &[usize], index: usize, uniform: f64| {
            self.first_bias(products[index / size % products.len()]).unwrap_or(uniform)
        };
        let own_builder = builder.products(own.len());
        let weight = own_builder.weight("weight", (self.layers, size, own.len() * size))?;
        let own_bias =
            own_builder.biases_with("bias", (self.layers, own.len() * size), |index, uniform| {
                bias(&own, index, uniform)
            })?;
        let shared = if shared.is_empty() {
            None
        } else {
            let builder = builder.under("shared").products(shared.len());
            let weight = builder.weight("weight", (size, shared.len() * size))?;
            let bias = builder
                .weight_with("bias", shared.len() * size, |index, uniform| bias(&shared, index, uniform))?;
            Some((weight, bias, self.shared_gates == SharedGates::Transform && products == 3))
        };
        Ok(FeedForward { own: (weight, own_bias), shared, layer: self.layer() })
    }

    /// Whether all layers have the weights of this product in common.
    fn shares(&self, product: usize) -> bool {
        (1..=self.shared()).contains(&product)
    }
}

impl CoreSettings for FeedForwardConfig {
    fn layers(&self) -> usize {
        1
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn depth(&self) -> usize {
        self.layers
    }

    fn validate(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::config(what));
        if !self.transform_bias.is_finite() || !self.carry_bias.unwrap_or(0.0).is_finite() {
            return wrong("transform_bias and carry_bias must be finite");
        }
        if self.layers == 0 {
            return wrong("a feed-forward core needs layers of at least 1");
        }
        if self.shared() >= self.layer().gates() {
            return wrong(
                "shared_gates names a gate that the layers lack: plain layers have none, coupled ones a transform gate",
            );
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let Self { layers, hidden_size, .. } = self;
        let kind = match self.mixing {
            Mixing::Plain => "plain",
            Mixing::Coupled => "highway",
            Mixing::Full => "highway (uncoupled)",
        };
        format!("{layers} {kind} layer(s) of {hidden_size} units")
    }

    fn build(&self, input_size: usize, builder: &Builder<'_>) -> Result<Arc<dyn Core>> {
        Ok(Arc::new(self.stack(input_size, builder)?))
    }
}

/// The layers with their weights.
struct FeedForward {
    own: (Tensor, Tensor),
    /// Weight and bias of the shared gates, and whether the layers' last columns come after theirs.
    shared: Option<(Tensor, Tensor, bool)>,
    layer: Layer,
}

impl FeedForward {
    /// Weights and biases as the kernel takes them: those that are shared, once for each layer.
    fn parameters(&self) -> Result<(Tensor, Tensor)> {
        let (weight, bias) = &self.own;
        let Some((shared_weight, shared_bias, between)) = &self.shared else {
            return Ok((weight.clone(), bias.clone()));
        };
        let layers = weight.dim(0)?;
        let join = |own: &Tensor, shared: Tensor| -> Result<Tensor> {
            let last = own.rank() - 1;
            if !between {
                return Ok(Tensor::cat(&[own, &shared], last)?);
            }
            let half = own.dim(last)? / 2; // H, then C; T goes between
            Ok(Tensor::cat(&[&own.narrow(last, 0, half)?, &shared, &own.narrow(last, half, half)?], last)?)
        };
        Ok((
            join(weight, shared_weight.unsqueeze(0)?.repeat((layers, 1, 1))?)?,
            join(bias, shared_bias.unsqueeze(0)?.repeat((layers, 1))?)?,
        ))
    }

    /// What each layer computes for `xs`, `(rows, size)`.
    fn values(&self, xs: &Tensor) -> Result<Vec<LayerValues>> {
        let (weights, biases) = self.parameters()?;
        let mut layers: Vec<LayerValues> = Vec::with_capacity(weights.dim(0)?);
        for index in 0..weights.dim(0)? {
            let x = layers.last().map_or(xs, |layer| &layer.y);
            let layer = values(x, &weights.get(index)?, &biases.get(index)?, self.layer)?;
            layers.push(layer);
        }
        Ok(layers)
    }
}

impl Core for FeedForward {
    fn forward(&self, xs: &Tensor, state: &State, noise: &Noise) -> Result<(Tensor, State)> {
        let xs = noise.on_input(0, xs.clone())?;
        let (time, batch, _) = xs.dims3()?;
        let (weights, biases) = self.parameters()?;
        let ys = feed_forward(&xs.flatten(0, 1)?, &weights, &biases, self.layer)?;
        Ok((ys.reshape((time, batch, ()))?, state.clone()))
    }

    /// All layers are one stage.
    fn trace(&self, xs: &Tensor, state: &State) -> Result<Option<(Vec<StageTrace>, State)>> {
        let xs = xs.flatten(0, 1)?.detach();
        let layer = |values: LayerValues| LayerTrace {
            state: values.y.detach(),
            candidate: values.t.is_some().then(|| values.h.detach()),
            gate: values.t.map(|t| t.detach()),
            carry: values.c.map(|c| c.detach()),
        };
        let layers = self.values(&xs)?.into_iter().map(layer).collect();
        Ok(Some((vec![StageTrace { entering: xs, layers }], state.clone())))
    }

    fn zero_state(&self, _batch: usize) -> Result<State> {
        Ok(State(Vec::new()))
    }

    fn cost(&self) -> u64 {
        let layers = self.own.0.dims()[0];
        let shared = self.shared.as_ref().map_or(0, |(weight, ..)| layers * weight.elem_count());
        (self.own.0.elem_count() + shared) as u64
    }
}
