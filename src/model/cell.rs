//! What every recurrent layer offers, and the state it carries.

use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rhn_kernels::linear;
use rhn_kernels::scan::HiddenMask;
use rhn_kernels::scan::Steps;
use std::collections::BTreeMap;

/// One recurrent layer.
pub trait Cell: Send + Sync {
    /// `(time, batch, input)` and the state that enters to `(time, batch, hidden)` and the state that leaves.
    ///
    /// `state` has [`Cell::parts`] tensors of `(batch, hidden)`; the history behind them is not followed.
    fn forward(&self, xs: &Tensor, state: &[Tensor], mask: &HiddenMask) -> Result<(Tensor, Vec<Tensor>)>;

    /// How many tensors the state has.
    fn parts(&self) -> usize;

    /// Units of the state.
    fn hidden_size(&self) -> usize;

    /// The same at batch 1 for one step after another, from the state zero; `None` where only tensors can do it.
    fn steps(&self) -> Result<Option<CellSteps<'_>>> {
        Ok(None)
    }
}

/// A layer that goes one step at a time at batch 1; nothing is allocated for a step.
pub struct CellSteps<'a> {
    input: linear::Rows<'a>,
    recurrence: Steps,
}

impl<'a> CellSteps<'a> {
    /// From the product with the input's weights, if the CPU makes it in single precision, and what follows it.
    pub(super) fn new(input: &'a linear::Prepared, recurrence: Option<Steps>) -> Option<Self> {
        Some(Self { input: input.rows()?, recurrence: recurrence? })
    }

    /// `(input)` to `(hidden)`.
    pub(super) fn step(&mut self, xs: &[f32]) -> &[f32] {
        self.recurrence.step(self.input.multiply(xs));
        &self.recurrence.state()[0]
    }

    /// The state, `(1, hidden)` a part.
    pub(super) fn state(&self) -> Result<Vec<Tensor>> {
        let parts = self.recurrence.state().iter();
        parts.map(|part| Ok(Tensor::from_slice(part, (1, part.len()), &Device::Cpu)?)).collect()
    }

    /// Goes on from `state`, as [`CellSteps::state`] gives it.
    pub(super) fn set_state(&mut self, state: &[Tensor]) -> Result<()> {
        for (part, tensor) in self.recurrence.state_mut().iter_mut().zip(state) {
            *part = tensor.flatten_all()?.to_vec1()?;
        }
        Ok(())
    }
}

/// A layer whose weights may change.
pub trait TrainedCell: Cell {
    /// The same layer with its weights laid out for their kernels, for as long as they do not change; its history is
    /// not followed.
    fn prepared(&self) -> Result<Box<dyn Cell>>;
}

/// What a model carries from one token to the next: for each layer its parts, `(batch, hidden)` each.
#[derive(Clone, Debug)]
pub struct State(pub Vec<Vec<Tensor>>);

impl State {
    /// All zero, for these layers.
    pub(super) fn zero(
        cells: &[Box<dyn TrainedCell>],
        batch: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let part = |cell: &dyn Cell| Ok(Tensor::zeros((batch, cell.hidden_size()), dtype, device)?);
        let layer =
            |cell: &dyn TrainedCell| (0..cell.parts()).map(|_| part(cell)).collect::<Result<Vec<_>>>();
        Ok(Self(cells.iter().map(|cell| layer(cell.as_ref())).collect::<Result<_>>()?))
    }

    /// The same values without their history.
    pub fn detach(&self) -> Self {
        Self(self.0.iter().map(|layer| layer.iter().map(Tensor::detach).collect()).collect())
    }

    /// By name (`state.<layer>.<part>`), to be saved.
    pub fn save(&self) -> BTreeMap<String, Tensor> {
        let part = |layer: usize, part: usize, tensor: &Tensor| (name(layer, part), tensor.clone());
        let layers = self.0.iter().enumerate();
        layers
            .flat_map(|(l, parts)| parts.iter().enumerate().map(move |(p, tensor)| part(l, p, tensor)))
            .collect()
    }

    /// The state that [`State::save`] gave, in the place of `self`, which has the same layers and sizes.
    pub fn load(&self, tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        let part = |layer: usize, part: usize, like: &Tensor| -> Result<Tensor> {
            let name = name(layer, part);
            match tensors.get(&name) {
                Some(tensor) if tensor.dims() == like.dims() => {
                    Ok(tensor.to_device(like.device())?.to_dtype(like.dtype())?)
                }
                Some(tensor) => {
                    Err(Error::checkpoint(&name, format!("{:?}, wanted {:?}", tensor.dims(), like.dims())))
                }
                None => Err(Error::checkpoint(&name, "not in the training state")),
            }
        };
        let layers = self.0.iter().enumerate();
        let layers =
            layers.map(|(l, parts)| parts.iter().enumerate().map(|(p, like)| part(l, p, like)).collect());
        Ok(Self(layers.collect::<Result<_>>()?))
    }
}

fn name(layer: usize, part: usize) -> String {
    format!("state.{layer}.{part}")
}
