//! What a core carries from one token to the next.

use crate::error::{Error, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// What a core carries from one token to the next: for each layer its parts, `(batch, hidden)` each.
#[derive(Clone, Debug)]
pub struct State(pub Vec<Vec<Tensor>>);

impl State {
    /// The same values without their history.
    pub fn detach(&self) -> Self {
        Self(self.0.iter().map(|layer| layer.iter().map(Tensor::detach).collect()).collect())
    }

    /// The same values without their history, and in memory of their own: the last outputs of a window, which a layer's state
    /// begins with, would keep the others for as long as they are kept.
    pub fn apart(&self) -> Result<Self> {
        let layer = |layer: &Vec<Tensor>| layer.iter().map(|part| part.detach().force_contiguous()).collect();
        Ok(Self(self.0.iter().map(layer).collect::<candle_core::Result<_>>()?))
    }

    /// The batch rows of `states`, one after another.
    pub fn join(states: &[&Self]) -> Result<Self> {
        let Some(first) = states.first() else { return Ok(Self(Vec::new())) };
        let part = |layer: usize, part: usize| -> Result<Tensor> {
            let rows: Vec<&Tensor> = states.iter().map(|state| &state.0[layer][part]).collect();
            Ok(Tensor::cat(&rows, 0)?)
        };
        let layer = |(l, parts): (usize, &Vec<Tensor>)| (0..parts.len()).map(|p| part(l, p)).collect();
        Ok(Self(first.0.iter().enumerate().map(layer).collect::<Result<_>>()?))
    }

    /// The batch rows of these numbers, in their order.
    pub fn select(&self, rows: &[u32]) -> Result<Self> {
        let part = |part: &Tensor| -> Result<Tensor> {
            Ok(part.index_select(&Tensor::from_slice(rows, rows.len(), part.device())?, 0)?)
        };
        let layer = |parts: &Vec<Tensor>| parts.iter().map(part).collect();
        Ok(Self(self.0.iter().map(layer).collect::<Result<_>>()?))
    }

    /// The layers of `other` behind these.
    pub(crate) fn followed_by(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The first `layers` layers, and the others.
    pub(crate) fn split_at(&self, layers: usize) -> (Self, Self) {
        let (first, others) = self.0.split_at(layers);
        (Self(first.to_vec()), Self(others.to_vec()))
    }

    /// The tensors by name (`state.<layer>.<part>`), to be saved.
    pub fn save(&self) -> BTreeMap<String, Tensor> {
        self.named().map(|(name, tensor)| (name, tensor.clone())).collect()
    }

    /// The state that [`State::save`] gave, of the same layers and sizes as `self`. Fails if a tensor is missing or has
    /// another shape; names it.
    pub fn load(&self, tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        let part = |name: String, like: &Tensor| -> Result<Tensor> {
            match tensors.get(&name) {
                Some(tensor) if tensor.dims() == like.dims() => {
                    Ok(tensor.to_device(like.device())?.to_dtype(like.dtype())?)
                }
                Some(tensor) => {
                    Err(Error::tensor(name, format!("{:?}, wanted {:?}", tensor.dims(), like.dims())))
                }
                None => Err(Error::tensor(name, "not in the training state")),
            }
        };
        let layer = |(l, parts): (usize, &Vec<Tensor>)| {
            parts.iter().enumerate().map(|(p, like)| part(name(l, p), like)).collect()
        };
        Ok(Self(self.0.iter().enumerate().map(layer).collect::<Result<_>>()?))
    }

    fn named(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let layers = self.0.iter().enumerate();
        layers.flat_map(|(l, parts)| parts.iter().enumerate().map(move |(p, tensor)| (name(l, p), tensor)))
    }
}

fn name(layer: usize, part: usize) -> String {
    format!("state.{layer}.{part}")
}
