//! What is random in a training step.

use crate::error::Result;
use candle_core::Tensor;
use rhn_kernels::scan::HiddenMask;

/// The dropout masks of one window; an absent mask drops nothing.
#[derive(Clone, Debug, Default)]
pub struct Noise {
    /// Mask of the embedded tokens: `(time, batch, 1)`.
    pub word: Option<Tensor>,
    /// Mask of each layer's input: `(batch, input)`, or `(time, batch, input)` if drawn at every step.
    pub input: Vec<Option<Tensor>>,
    /// Mask of each layer's state inside the recurrent products: `(batch, hidden)`.
    pub hidden: Vec<HiddenMask>,
    /// Mask of each layer's depth gate: as `input`, of the cell's size. Only a highway LSTM has these gates.
    pub depth: Vec<Option<Tensor>>,
    /// Mask of what the output layer sees: as `input`, of the hidden size.
    pub output: Option<Tensor>,
    /// Mask of the vectors that a mixture of softmaxes makes of a state: as `input`, of all vectors' sizes together.
    pub components: Option<Tensor>,
}

impl Noise {
    /// Nothing is dropped.
    pub fn none() -> Self {
        Self::default()
    }

    /// `xs`, the input of layer `layer`, with that layer's mask.
    pub(super) fn on_input(&self, layer: usize, xs: Tensor) -> Result<Tensor> {
        masked(xs, self.input.get(layer).and_then(Option::as_ref))
    }

    pub(super) fn depth(&self, layer: usize) -> Option<&Tensor> {
        self.depth.get(layer).and_then(Option::as_ref)
    }

    pub(super) fn hidden(&self, layer: usize) -> &HiddenMask {
        self.hidden.get(layer).unwrap_or(&HiddenMask::None)
    }
}

/// `xs` times `mask`, where there is one.
pub(super) fn masked(xs: Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    Ok(match mask {
        None => xs,
        Some(mask) => xs.broadcast_mul(mask)?,
    })
}
