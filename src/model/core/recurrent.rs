//! A recurrent layer: one product with the input for every time step at once, then a recurrence over the window.
//!
//! What a kind of cell adds is its weights and a [`Recurrence`].

use super::state::State;
use crate::error::Result;
use crate::model::layers::{Cell, Steps};
use candle_core::{Device, Tensor};
use rhn_kernels::linear::{self, Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::HiddenMask;
use rhn_kernels::scan::steps::StepByStep;
use std::sync::Arc;

/// What follows the input's product.
pub(super) trait Recurrence: Send + Sync {
    /// `(time, batch, gates · hidden)` and the state that enters to `(time, batch, hidden)` and the state that leaves.
    fn scan(&self, xs: &Tensor, state: &[Tensor], mask: &HiddenMask) -> Result<(Tensor, Vec<Tensor>)>;

    /// The same with its weights laid out for evaluation; `None` where they are already.
    fn prepared(&self) -> Result<Option<Box<dyn Recurrence>>> {
        Ok(None)
    }

    /// One step after another at batch 1, where the CPU computes in single precision with prepared weights.
    fn steps(&self) -> Result<Option<Box<dyn StepByStep>>> {
        Ok(None)
    }
}

/// A recurrent layer.
pub(super) struct Recurrent {
    input: Product,
    recurrence: Box<dyn Recurrence>,
    parts: usize,
    cost: u64,
}

/// The product with the input's weight, `(input, gates · hidden)`.
enum Product {
    Trained { weight: Tensor, precision: Precision },
    Packed(linear::Prepared),
}

impl Product {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (time, batch, _) = xs.dims3()?;
        let xs = xs.flatten(0, 1)?; // every time step at once
        let projected = match self {
            Self::Trained { weight, precision } => linear(&xs, weight, Stored::ByInput, *precision)?,
            Self::Packed(weight) => weight.forward(&xs)?,
        };
        Ok(projected.reshape((time, batch, ()))?)
    }
}

impl Recurrent {
    /// From the input's weight, `(input, gates · hidden)`, and what follows its product: a recurrence whose state has
    /// `parts` tensors, and whose own products take `products` multiplications a token.
    pub(super) fn new(
        weight: Tensor,
        precision: Precision,
        recurrence: impl Recurrence + 'static,
        parts: usize,
        products: usize,
    ) -> Self {
        let cost = (weight.elem_count() + products) as u64;
        Self { input: Product::Trained { weight, precision }, recurrence: Box::new(recurrence), parts, cost }
    }
}

impl Cell for Recurrent {
    fn forward(&self, xs: &Tensor, state: &[Tensor], mask: &HiddenMask) -> Result<(Tensor, Vec<Tensor>)> {
        self.recurrence.scan(&self.input.forward(xs)?, state, mask)
    }

    fn parts(&self) -> usize {
        self.parts
    }

    fn cost(&self) -> u64 {
        self.cost
    }

    fn frozen(&self) -> Result<Option<Arc<dyn Cell>>> {
        let Product::Trained { weight, precision } = &self.input else { return Ok(None) };
        let Some(recurrence) = self.recurrence.prepared()? else { return Ok(None) };
        let input = Product::Packed(linear::Prepared::new(weight, Stored::ByInput, *precision)?);
        Ok(Some(Arc::new(Self { input, recurrence, ..*self })))
    }

    fn steps(&self) -> Result<Option<Box<dyn Steps>>> {
        let Product::Packed(weight) = &self.input else { return Ok(None) };
        let (Some(input), Some(recurrence)) = (weight.rows(), self.recurrence.steps()?) else {
            return Ok(None);
        };
        Ok(Some(Box::new(LayerSteps { input, recurrence })))
    }
}

/// The layer at batch 1, one step at a time.
struct LayerSteps {
    input: linear::Rows,
    recurrence: Box<dyn StepByStep>,
}

impl Steps for LayerSteps {
    fn step(&mut self, xs: &[f32]) -> &[f32] {
        self.recurrence.step(self.input.multiply(xs));
        &self.recurrence.state()[0]
    }

    fn state(&self) -> Result<State> {
        let part = |part: &Vec<f32>| Ok(Tensor::from_slice(part, (1, part.len()), &Device::Cpu)?);
        Ok(State(vec![self.recurrence.state().iter().map(part).collect::<Result<_>>()?]))
    }

    fn set_state(&mut self, state: &State) -> Result<()> {
        for (part, tensor) in self.recurrence.state_mut().iter_mut().zip(state.0.iter().flatten()) {
            *part = tensor.flatten_all()?.to_vec1()?;
        }
        Ok(())
    }
}

/// Outputs `(time, batch, hidden)`, and the state after the last.
pub(super) fn last(outputs: &Tensor) -> Result<Tensor> {
    Ok(outputs.get(outputs.dim(0)? - 1)?)
}
