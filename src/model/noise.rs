//! What is random in a training step.

use super::sampler::Candidates;
use crate::error::Result;
use candle_core::Tensor;
use rhn_kernels::dropout::dropped;
use rhn_kernels::scan::HiddenMask;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The dropout masks of one window, and the words that its loss is over; an absent mask drops nothing.
#[derive(Clone, Debug, Default)]
pub struct Noise {
    /// Mask of the embedded tokens: `(time, batch, 1)`.
    pub word: Option<Tensor>,
    /// Mask of each layer's input: `(batch, input)`, or `(time, batch, input)` if drawn at every step.
    pub input: Vec<Option<Tensor>>,
    /// Mask of each layer's state inside the recurrent products: `(batch, hidden)`.
    pub hidden: Vec<HiddenMask>,
    /// Masks of each layer's recurrent weights.
    pub weights: Vec<WeightMasks>,
    /// Mask of each layer's depth gate: as `input`, of the cell's size. Only a highway LSTM has these gates.
    pub depth: Vec<Option<Tensor>>,
    /// Mask of what the output layer sees: as `input`, of the hidden size.
    pub output: Option<Tensor>,
    /// Mask of the vectors that a mixture of softmaxes makes of a state: as `input`, of all vectors' sizes together.
    pub components: Option<Tensor>,
    /// The words that the loss is over, if not the whole vocabulary.
    pub candidates: Option<Arc<Candidates>>,
}

/// Masks of weights, element by element, by the weight's name within its layer; the weights themselves stay as they are.
#[derive(Clone, Debug, Default)]
pub struct WeightMasks(pub BTreeMap<String, Tensor>);

/// What is dropped inside a layer's recurrence.
#[derive(Clone, Copy)]
pub struct RecurrentNoise<'a> {
    /// Of the state, inside the products.
    pub state: &'a HiddenMask,
    /// Of the weights.
    pub weights: &'a WeightMasks,
}

impl WeightMasks {
    /// No weight is dropped.
    pub const NONE: &'static Self = &Self(BTreeMap::new());

    /// `weight` times the mask of this name, where there is one.
    pub(super) fn on(&self, name: &str, weight: &Tensor) -> Result<Tensor> {
        Ok(match self.0.get(name) {
            None => weight.clone(),
            Some(mask) => (weight * mask)?,
        })
    }

    /// [`WeightMasks::on`] in place, where there is a mask.
    pub(super) fn drop(&self, name: &str, weight: &mut Tensor) -> Result<()> {
        *weight = self.on(name, weight)?;
        Ok(())
    }
}

impl RecurrentNoise<'_> {
    /// Nothing is dropped.
    pub const NONE: RecurrentNoise<'static> =
        RecurrentNoise { state: &HiddenMask::None, weights: WeightMasks::NONE };
}

impl Noise {
    /// Nothing is dropped.
    pub fn none() -> Self {
        Self::default()
    }

    /// What the output layer needs of it for some time steps of the window.
    pub(crate) fn of_steps(&self, steps: &Range<usize>) -> Result<Self> {
        let narrowed = |mask: &Tensor| match mask.rank() {
            3 => mask.narrow(0, steps.start, steps.len()),
            _ => Ok(mask.clone()),
        };
        let components = self.components.as_ref().map(narrowed).transpose()?;
        Ok(Self { components, candidates: self.candidates.clone(), ..Self::default() })
    }

    /// The same with `rows` of each mask that has batch rows, `(batch, size)` or `(time, batch, size)`. Masks of weights and
    /// the words of the loss are the same for every row.
    pub(crate) fn with_rows(self, rows: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let one = |mask: &Option<Tensor>| mask.as_ref().map(&rows).transpose();
        let each = |masks: &[Option<Tensor>]| masks.iter().map(one).collect::<Result<Vec<_>>>();
        let of_state = |mask: &HiddenMask| -> Result<HiddenMask> {
            Ok(match mask {
                HiddenMask::None => HiddenMask::None,
                HiddenMask::Shared(mask) => HiddenMask::Shared(rows(mask)?),
                HiddenMask::Separate { h, t } => HiddenMask::Separate { h: rows(h)?, t: rows(t)? },
            })
        };
        Ok(Self {
            word: one(&self.word)?,
            input: each(&self.input)?,
            hidden: self.hidden.iter().map(of_state).collect::<Result<_>>()?,
            depth: each(&self.depth)?,
            output: one(&self.output)?,
            components: one(&self.components)?,
            ..self
        })
    }

    /// `xs`, the input of layer `layer`, with that layer's mask.
    pub(super) fn on_input(&self, layer: usize, xs: Tensor) -> Result<Tensor> {
        masked(xs, self.input.get(layer).and_then(Option::as_ref))
    }

    pub(super) fn depth(&self, layer: usize) -> Option<&Tensor> {
        self.depth.get(layer).and_then(Option::as_ref)
    }

    pub(super) fn recurrent(&self, layer: usize) -> RecurrentNoise<'_> {
        RecurrentNoise {
            state: self.hidden.get(layer).unwrap_or(&HiddenMask::None),
            weights: self.weights.get(layer).unwrap_or(WeightMasks::NONE),
        }
    }
}

/// `xs` times `mask`, where there is one.
pub(crate) fn masked(xs: Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    Ok(match mask {
        None => xs,
        Some(mask) => dropped(&xs, mask)?,
    })
}
