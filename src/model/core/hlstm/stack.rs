//! Layers of which each reads the outputs and the cells of the one below.

use super::layer::{Beside, Layer, LayerSteps};
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::core::state::State;
use crate::model::layers::{Core, Steps};
use crate::model::noise::Noise;
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

/// The layers of a highway LSTM.
#[derive(Clone)]
pub(super) struct HighwayStack {
    layers: Vec<Arc<dyn Layer>>,
    /// Units of h and of c.
    sizes: [usize; 2],
    dtype: DType,
    device: Device,
}

impl HighwayStack {
    pub(super) fn new(layers: Vec<Arc<dyn Layer>>, sizes: [usize; 2], builder: &Builder<'_>) -> Self {
        Self { layers, sizes, dtype: builder.dtype(), device: builder.device.clone() }
    }
}

impl Core for HighwayStack {
    fn forward(&self, xs: &Tensor, state: &State, noise: &Noise) -> Result<(Tensor, State)> {
        let mut xs = xs.clone();
        let mut below = None;
        let mut after = Vec::with_capacity(self.layers.len());
        for (k, layer) in self.layers.iter().enumerate() {
            xs = noise.on_input(k, xs)?;
            let depth_mask = noise.depth(k);
            let beside = Beside { below: below.as_ref(), noise: noise.recurrent(k), depth_mask };
            let window = layer.forward(&xs, &state.0[k], &beside)?;
            xs = window.outputs;
            below = Some(window.cells);
            after.push(window.state);
        }
        Ok((xs, State(after)))
    }

    fn zero_state(&self, batch: usize) -> Result<State> {
        let part = |size| Ok(Tensor::zeros((batch, size), self.dtype, &self.device)?);
        let layer = |_| self.sizes.into_iter().map(part).collect();
        Ok(State(self.layers.iter().map(layer).collect::<Result<_>>()?))
    }

    fn cost(&self) -> u64 {
        self.layers.iter().map(|layer| layer.cost()).sum()
    }

    fn frozen(&self) -> Result<Option<Arc<dyn Core>>> {
        let frozen = |layer: &Arc<dyn Layer>| Ok(layer.frozen()?.unwrap_or_else(|| layer.clone()));
        let layers = self.layers.iter().map(frozen).collect::<Result<_>>()?;
        Ok(Some(Arc::new(Self { layers, ..self.clone() })))
    }

    fn steps(&self) -> Result<Option<Box<dyn Steps>>> {
        let layers: Option<Vec<_>> = self.layers.iter().map(|layer| layer.steps()).collect::<Result<_>>()?;
        Ok(layers.map(|layers| Box::new(StackSteps(layers)) as Box<dyn Steps>))
    }
}

/// All layers for one token, then for the next.
struct StackSteps(Vec<Box<dyn LayerSteps>>);

impl Steps for StackSteps {
    fn step(&mut self, xs: &[f32]) -> &[f32] {
        for k in 0..self.0.len() {
            let (lower, upper) = self.0.split_at_mut(k);
            match lower.last().map(|layer| layer.state()) {
                None => upper[0].step(xs, &[]),
                Some(state) => upper[0].step(&state[0], &state[1]),
            }
        }
        &self.0.last().expect("a core has a layer").state()[0]
    }

    fn state(&self) -> Result<State> {
        let part = |part: &Vec<f32>| Ok(Tensor::from_slice(part, (1, part.len()), &Device::Cpu)?);
        let parts = |parts: &[Vec<f32>]| parts.iter().map(part).collect();
        Ok(State(self.0.iter().map(|layer| parts(layer.state())).collect::<Result<_>>()?))
    }

    fn set_state(&mut self, state: &State) -> Result<()> {
        for (layer, parts) in self.0.iter_mut().zip(&state.0) {
            for (part, tensor) in layer.state_mut().iter_mut().zip(parts) {
                *part = tensor.flatten_all()?.to_vec1()?;
            }
        }
        Ok(())
    }
}
