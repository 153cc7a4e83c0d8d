//! A layer whose cells the layer above reads: what it offers, and its weights.
//!
//! Weights: `input.weight` (input, 4 cells), `recurrent.weight` (outputs, 4 cells), `bias` (4 cells), columns of i, o, f, g,
//! or of i, o, g where f is 1 − i; `peephole`, (3, cells) or (3, cells, cells), of i, f, o, without f where there is none;
//! `depth.weight` (input, cells), `depth.bias`, `depth.peephole`, (2, cells): of this layer's cell, and of the lower one's,
//! which a first layer has not; it has `depth.carry.weight` (input, cells) in its place; `projection.weight` (cells,
//! outputs); `stabiliser`, (1), whose exponential multiplies the input.

use super::{Peephole, Shape};
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::core::recurrent::RECURRENT;
use crate::model::noise::{RecurrentNoise, WeightMasks};
use candle_core::Tensor;
use rhn_kernels::precision::Precision;
use std::iter;
use std::sync::Arc;

/// What enters a layer beside its input and its state.
pub(super) struct Beside<'a> {
    /// The lower layer's cells, `(time, batch, cells)`.
    pub(super) below: Option<&'a Tensor>,
    /// Dropout of the state inside the products, and of the recurrent weights.
    pub(super) noise: RecurrentNoise<'a>,
    /// Dropout of the depth gate: `(batch, cells)` or `(time, batch, cells)`.
    pub(super) depth_mask: Option<&'a Tensor>,
}

/// What leaves a layer.
pub(super) struct Window {
    /// `(time, batch, outputs)`.
    pub(super) outputs: Tensor,
    /// `(time, batch, cells)`.
    pub(super) cells: Tensor,
    /// h and c after the last step.
    pub(super) state: Vec<Tensor>,
}

/// A layer whose cells the layer above reads.
pub(super) trait Layer: Send + Sync {
    /// `xs` is `(time, batch, input)`; the history behind `state` is followed.
    fn forward(&self, xs: &Tensor, state: &[Tensor], beside: &Beside<'_>) -> Result<Window>;

    /// Multiplications a token.
    fn cost(&self) -> u64;

    /// As [`crate::model::layers::Core::frozen`].
    fn frozen(&self) -> Result<Option<Arc<dyn Layer>>> {
        Ok(None)
    }

    /// As [`crate::model::layers::Core::steps`].
    fn steps(&self) -> Result<Option<Box<dyn LayerSteps>>> {
        Ok(None)
    }
}

/// A layer at batch 1, one step at a time.
pub(super) trait LayerSteps: Send {
    /// From the input and the lower layer's cell, which is empty for the first layer, to the next state.
    fn step(&mut self, xs: &[f32], below: &[f32]);

    /// h and c.
    fn state(&self) -> &[Vec<f32>];

    /// As [`LayerSteps::state`], to be written.
    fn state_mut(&mut self) -> &mut [Vec<f32>];
}

/// The name of the weights through which the gates see the cell.
pub(super) const PEEPHOLE: &str = "peephole";

/// The name of the number whose exponential multiplies the input.
pub(super) const STABILISER: &str = "stabiliser";

/// The trained tensors of a layer.
#[derive(Clone)]
pub(super) struct LayerWeights {
    pub(super) input: Tensor,
    pub(super) recurrent: Tensor,
    pub(super) bias: Tensor,
    pub(super) peephole: Option<Tensor>,
    pub(super) depth: Option<DepthGate>,
    pub(super) projection: Option<Tensor>,
    stabiliser: Option<Tensor>,
    pub(super) shape: Shape,
    pub(super) precision: Precision,
}

/// The trained tensors of a depth gate.
#[derive(Clone)]
pub(super) struct DepthGate {
    pub(super) input: Tensor,
    pub(super) bias: Tensor,
    pub(super) peephole: Option<Tensor>,
    /// The matrix whose product with the input takes the place of the lower layer's cell.
    pub(super) carry: Option<Tensor>,
}

impl LayerWeights {
    pub(super) fn build(
        shape: Shape,
        input: usize,
        gated: bool,
        carries: bool,
        weights: &Builder<'_>,
    ) -> Result<Self> {
        let Shape { cells, outputs, projected, stabilised, peephole, coupled, .. } = shape;
        let gates = if coupled { 3 } else { 4 };
        let peepholes = gates - 1;
        Ok(Self {
            input: weights.weight("input.weight", (input, gates * cells))?,
            recurrent: weights.weight(RECURRENT, (outputs, gates * cells))?,
            bias: weights.weight("bias", gates * cells)?,
            peephole: match peephole {
                Peephole::None => None,
                Peephole::Diagonal => Some(weights.weight(PEEPHOLE, (peepholes, cells))?),
                Peephole::Full => Some(weights.weight(PEEPHOLE, (peepholes, cells, cells))?),
            },
            depth: gated
                .then(|| DepthGate::build(shape, input, carries, &weights.under("depth")))
                .transpose()?,
            projection: projected
                .then(|| weights.weight("projection.weight", (cells, outputs)))
                .transpose()?,
            stabiliser: stabilised.then(|| weights.weight_with(STABILISER, 1, |_, _| 0.0)).transpose()?,
            shape,
            precision: weights.precision,
        })
    }

    /// The input as the layer's products see it.
    pub(super) fn stabilised(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(match &self.stabiliser {
            Some(log_scale) => xs.broadcast_mul(&log_scale.exp()?)?,
            None => xs.clone(),
        })
    }

    /// The same with the stabiliser in the matrices that multiply the input.
    pub(super) fn folded(&self) -> Result<Self> {
        let mut folded = self.clone();
        if let Some(log_scale) = folded.stabiliser.take() {
            let scale = log_scale.exp()?;
            let depth = folded.depth.iter_mut().flat_map(|gate| [Some(&mut gate.input), gate.carry.as_mut()]);
            for matrix in iter::once(&mut folded.input).chain(depth.flatten()) {
                *matrix = matrix.broadcast_mul(&scale)?;
            }
        }
        Ok(folded)
    }

    /// The same with the masks on the recurrent ones.
    pub(super) fn dropped(&self, masks: &WeightMasks) -> Result<Self> {
        let mut dropped = self.clone();
        masks.drop(RECURRENT, &mut dropped.recurrent)?;
        dropped.peephole.as_mut().map_or(Ok(()), |peephole| masks.drop(PEEPHOLE, peephole))?;
        Ok(dropped)
    }

    /// Multiplications a token.
    pub(super) fn cost(&self) -> u64 {
        let full = self.peephole.as_ref().filter(|_| self.shape.peephole == Peephole::Full);
        let depth = self.depth.iter().flat_map(|gate| [Some(&gate.input), gate.carry.as_ref()]).flatten();
        let matrices =
            [&self.input, &self.recurrent].into_iter().chain(full).chain(&self.projection).chain(depth);
        matrices.map(|matrix| matrix.elem_count() as u64).sum()
    }
}

impl DepthGate {
    fn build(shape: Shape, input: usize, carries: bool, weights: &Builder<'_>) -> Result<Self> {
        let Shape { cells, peephole, depth_bias, .. } = shape;
        let seen = if carries { 1 } else { 2 };
        Ok(Self {
            input: weights.weight("weight", (input, cells))?,
            bias: weights.weight_with("bias", cells, |_, _| depth_bias)?,
            peephole: match peephole {
                Peephole::None => None,
                _ => Some(weights.weight("peephole", (seen, cells))?), // a diagonal in every variant
            },
            carry: carries.then(|| weights.weight("carry.weight", (input, cells))).transpose()?,
        })
    }
}
