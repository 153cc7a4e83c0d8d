//! The layers between the encoder, the latent vector and the decoder.
//!
//! ```text
//! f(h) = highway layers of (h P + p)     μ = f(h) A + a     log σ² = f(h) B + b
//! g(z) = highway layers of z             s_0 = tanh(g(z) W + c)
//! ```
//!
//! Weights: `latent.input.weight` (encoder, size), `latent.input.bias`; `latent.encoder.highway.<k>` and
//! `latent.decoder.highway.<k>`, each with `weight` and `bias` as in `embedding/highway.rs`; `latent.mean` and
//! `latent.log_variance`, each with `weight` (size, size) and `bias`; `latent.state.weight` (size, all parts of the state) and
//! `latent.state.bias`, the columns in the order of the decoder's layers and their parts.

use super::gaussian::Gaussian;
use super::settings::LatentConfig;
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::core::state::State;
use crate::model::embedding::{HighwaySettings, HighwayVariant, Highways};
use candle_core::{D, Tensor};
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;

/// What the first weights of the log variance are multiplied by: σ is near 1 at the first step whatever the encoder gives.
const NEAR_ZERO: f64 = 0.01;

/// A product and a bias.
struct Affine {
    weight: Tensor,
    bias: Tensor,
    precision: Precision,
}

impl Affine {
    fn build(sizes: (usize, usize), scale: f64, builder: &Builder<'_>) -> Result<Self> {
        Ok(Self {
            weight: builder.weight_with("weight", sizes, |_, uniform| scale * uniform)?,
            bias: builder.weight_with("bias", sizes.1, |_, uniform| scale * uniform)?,
            precision: builder.precision,
        })
    }

    /// `(rows, input)` to `(rows, output)`.
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(linear(xs, &self.weight, Stored::ByInput, self.precision)?.broadcast_add(&self.bias)?)
    }
}

/// The highway layers of one side.
fn highway_layers(config: &LatentConfig, side: &str, builder: &Builder<'_>) -> Result<Highways> {
    let &LatentConfig { size, transform_bias, highway_layers: layers, .. } = config;
    let settings = HighwaySettings { layers, size, variant: HighwayVariant::Coupled, transform_bias };
    Highways::build(settings, &builder.under(side))
}

/// From what the encoder gives to the Gaussian.
pub(super) struct Recognition {
    input: Affine,
    highway: Highways,
    mean: Affine,
    log_variance: Affine,
}

impl Recognition {
    /// For an encoder that gives `hidden` numbers; `builder` is under `latent`.
    pub(super) fn build(config: &LatentConfig, hidden: usize, builder: &Builder<'_>) -> Result<Self> {
        let size = config.size;
        Ok(Self {
            input: Affine::build((hidden, size), 1.0, &builder.under("input"))?,
            highway: highway_layers(config, "encoder", builder)?,
            mean: Affine::build((size, size), 1.0, &builder.under("mean"))?,
            log_variance: Affine::build((size, size), NEAR_ZERO, &builder.under("log_variance"))?,
        })
    }

    /// The Gaussian of each row of `hidden`, `(batch, hidden)`.
    pub(super) fn forward(&self, hidden: &Tensor) -> Result<Gaussian> {
        let features = self.highway.forward(self.input.forward(hidden)?)?;
        Ok(Gaussian::diagonal(self.mean.forward(&features)?, self.log_variance.forward(&features)?))
    }
}

/// From z to what the decoder begins with.
pub(super) struct Entry {
    highway: Highways,
    /// What makes the first state, if z does.
    state: Option<Affine>,
    is_input: bool,
}

/// What the decoder has of z, for each batch row.
#[derive(Clone, Debug)]
pub(super) struct Entered {
    /// Before the first word.
    pub(super) state: State,
    /// What stands beside the vector of each word, `(batch, size)`.
    pub(super) input: Option<Tensor>,
}

impl Entry {
    /// For a decoder whose state has the parts of `zero`, of any number of batch rows; `builder` is under `latent`.
    pub(super) fn build(config: &LatentConfig, zero: &State, builder: &Builder<'_>) -> Result<Self> {
        let width =
            zero.0.iter().flatten().map(|part| part.dim(D::Minus1)).sum::<candle_core::Result<_>>()?;
        let state = || Affine::build((config.size, width), 1.0, &builder.under("state"));
        Ok(Self {
            highway: highway_layers(config, "decoder", builder)?,
            state: config.inject.is_init().then(state).transpose()?,
            is_input: config.inject.is_input(),
        })
    }

    /// What the decoder has of `z`, `(batch, size)`; `zero` is its state without it.
    pub(super) fn forward(&self, z: &Tensor, zero: State) -> Result<Entered> {
        let entering = self.highway.forward(z.clone())?;
        let state = match &self.state {
            None => zero,
            Some(affine) => split(&affine.forward(&entering)?.tanh()?, zero)?,
        };
        Ok(Entered { state, input: self.is_input.then_some(entering) })
    }
}

/// The columns of `whole` as a state with the parts of `like`.
fn split(whole: &Tensor, like: State) -> Result<State> {
    let mut start = 0;
    let mut part = |part: Tensor| -> Result<Tensor> {
        let width = part.dim(D::Minus1)?;
        start += width;
        Ok(whole.narrow(D::Minus1, start - width, width)?.contiguous()?)
    };
    let layer = |parts: Vec<Tensor>| parts.into_iter().map(&mut part).collect();
    Ok(State(like.0.into_iter().map(layer).collect::<Result<_>>()?))
}
