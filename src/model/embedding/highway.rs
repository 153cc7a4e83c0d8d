//! Highway layers (Srivastava et al., 2015) as Kim et al. (2016) use them, and the variants of Greff et al. (2017,
//! arXiv 1612.07771), which differ in their gates.
//!
//! ```text
//! H = ReLU(y W_H + b_H)     T = sigmoid(y W_T + b_T + t)     C = sigmoid(y W_C + b_C − t)
//! coupled           y + T ⊙ (H − y)              full        H ⊙ T + y ⊙ C
//! c-only            H + y ⊙ C                    t-only      H ⊙ T + y
//! residual          H + y                        plain       H
//! residual-linear   y + ReLU(y W_1 + b_1) W_2 + b_2
//! ```
//!
//! t is `transform_bias`, −2 in Kim et al.'s code; it is not part of the trained biases.
//!
//! Weights: `weight` (size, G · size), `bias` (G · size); columns of H, then of T, then of C, as far as the variant has
//! them. `residual-linear`: `weight`, `bias` of the first product, `linear.weight`, `linear.bias` of the second.

use crate::error::{Error, Result};
use crate::model::builder::Builder;
use crate::model::stage::{LayerTrace, StageTrace};
use candle_core::Tensor;
use rhn_kernels::highway::{self, Variant, reference::activations};
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;
use serde::{Deserialize, Serialize};

/// Kim et al.'s: most of the input passes unchanged at first.
const TRANSFORM_BIAS: f64 = -2.0;

/// What `transform_bias` is unless given.
pub(super) fn transform_bias() -> f64 {
    TRANSFORM_BIAS
}

// Published settings are not written, so that older versions of this program read what this one writes.

pub(super) fn is_usual(bias: &f64) -> bool {
    *bias == TRANSFORM_BIAS
}

/// How a highway layer mixes its candidate with its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HighwayVariant {
    /// One gate for both: what is not replaced is carried.
    #[default]
    Coupled,
    /// A gate on the candidate and another on the input.
    Full,
    /// A gate on the input alone.
    #[serde(rename = "c-only")]
    CarryOnly,
    /// A gate on the candidate alone.
    #[serde(rename = "t-only")]
    TransformOnly,
    /// The sum of candidate and input.
    Residual,
    /// The same, with a second product after the ReLU, so that the residual may be negative.
    ResidualLinear,
    /// The candidate alone.
    Plain,
}

impl HighwayVariant {
    /// What the kernel does of it: the candidate alone where a second product follows.
    fn kernel(self) -> Variant {
        match self {
            Self::Coupled => Variant::Coupled,
            Self::Full => Variant::Full,
            Self::CarryOnly => Variant::CarryOnly,
            Self::TransformOnly => Variant::TransformOnly,
            Self::Residual => Variant::Residual,
            Self::ResidualLinear | Self::Plain => Variant::Plain,
        }
    }

    pub(super) fn is_coupled(&self) -> bool {
        *self == Self::Coupled
    }

    /// Whether a gate weighs the candidate.
    pub(crate) fn has_transform_gate(self) -> bool {
        matches!(self, Self::Coupled | Self::Full | Self::TransformOnly)
    }

    /// Refuses a transform bias that is no number, or that the variant has no gate for.
    pub(super) fn validate(self, transform_bias: f64) -> Result<()> {
        if !transform_bias.is_finite() {
            return Err(Error::config(format!("transform_bias is {transform_bias}, wanted a finite number")));
        }
        if self.kernel().columns() == 1 && transform_bias != TRANSFORM_BIAS {
            let name = serde_json::json!(self);
            let what =
                format!("highway = {name} has no gate that transform_bias = {transform_bias} could act on");
            return Err(Error::config(what));
        }
        Ok(())
    }
}

/// The settings of highway layers on top of each other.
#[derive(Clone, Copy)]
pub(crate) struct HighwaySettings {
    pub(crate) layers: usize,
    pub(crate) size: usize,
    pub(crate) variant: HighwayVariant,
    pub(crate) transform_bias: f64,
}

/// Highway layers on top of each other, or none.
pub(in crate::model) struct Highways(Vec<Highway>);

impl Highways {
    /// The weights of layer i are under `highway.i`.
    pub(in crate::model) fn build(settings: HighwaySettings, builder: &Builder<'_>) -> Result<Self> {
        let layer = |i| Highway::build(settings, &builder.under(&format!("highway.{i}")));
        Ok(Self((0..settings.layers).map(layer).collect::<Result<_>>()?))
    }

    /// Multiplications for a row.
    pub(super) fn cost(&self) -> usize {
        self.0.iter().map(Highway::cost).sum()
    }

    /// `(rows, size)` to `(rows, size)`.
    pub(in crate::model) fn forward(&self, y: Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(y, |y, layer| layer.forward(&y))
    }

    /// What the layers do for what `entering` gives, `(rows, size)`; `None` where there are none.
    pub(super) fn trace(&self, entering: impl FnOnce() -> Result<Tensor>) -> Result<Option<StageTrace>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let entering = entering()?.detach();
        let mut layers = Vec::with_capacity(self.0.len());
        let mut y = entering.clone();
        for highway in &self.0 {
            let layer = highway.trace(&y)?;
            y = layer.state.clone();
            layers.push(layer);
        }
        Ok(Some(StageTrace { entering, layers }))
    }
}

struct Highway {
    variant: Variant,
    transform_bias: f64,
    weight: Tensor,
    bias: Tensor,
    /// The second product of `residual-linear`.
    linear: Option<(Tensor, Tensor)>,
    precision: Precision,
}

impl Highway {
    fn build(settings: HighwaySettings, builder: &Builder<'_>) -> Result<Self> {
        let HighwaySettings { size, variant, transform_bias, .. } = settings;
        let width = variant.kernel().columns() * size;
        let second = || -> Result<(Tensor, Tensor)> {
            let weights = builder.under("linear");
            Ok((weights.weight("weight", (size, size))?, weights.weight("bias", size)?))
        };
        Ok(Self {
            variant: variant.kernel(),
            transform_bias,
            weight: builder.weight("weight", (size, width))?,
            bias: builder.weight("bias", width)?,
            linear: (variant == HighwayVariant::ResidualLinear).then(second).transpose()?,
            precision: builder.precision,
        })
    }

    /// Multiplications for a row.
    fn cost(&self) -> usize {
        self.weight.elem_count() + self.linear.as_ref().map_or(0, |(weight, _)| weight.elem_count())
    }

    /// `(rows, size)` to `(rows, size)`.
    fn forward(&self, y: &Tensor) -> Result<Tensor> {
        let products = linear(y, &self.weight, Stored::ByInput, self.precision)?;
        let mixed = highway::highway(self.variant, &products, &self.bias, y, self.transform_bias)?;
        let Some((weight, bias)) = &self.linear else { return Ok(mixed) };
        let residual = linear(&mixed, weight, Stored::ByInput, self.precision)?.broadcast_add(bias)?;
        Ok((y + residual)?)
    }

    /// What the layer does for `(rows, size)`. A residual or an ungated H is no estimate that a gate weighs against `y`.
    fn trace(&self, y: &Tensor) -> Result<LayerTrace> {
        let y = y.detach();
        let products = linear(&y, &self.weight, Stored::ByInput, self.precision)?;
        let (h, gates) = activations(self.variant, &products, &self.bias, self.transform_bias)?;
        let mixes = matches!(self.variant, Variant::Coupled | Variant::Full);
        let transforms = mixes || self.variant == Variant::TransformOnly;
        let carries = matches!(self.variant, Variant::Full | Variant::CarryOnly);
        Ok(LayerTrace {
            state: self.forward(&y)?.detach(),
            candidate: mixes.then(|| h.detach()),
            gate: gates.first().filter(|_| transforms).map(Tensor::detach),
            carry: gates.last().filter(|_| carries).map(Tensor::detach),
        })
    }
}
