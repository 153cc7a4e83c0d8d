//! Layers on top of each other, each with its mask on the input and on the hidden state.

use super::settings::CoreSettings;
use super::state::State;
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::layers::{Cell, Core, Steps};
use crate::model::noise::Noise;
use crate::model::stage::StageTrace;
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

/// Layers of which each reads the outputs of the one below.
#[derive(Clone)]
pub(super) struct Stack {
    cells: Vec<Arc<dyn Cell>>,
    hidden_size: usize,
    dtype: DType,
    device: Device,
}

impl Stack {
    /// The layers that `settings` ask for; `cell` builds one from its input's size and its weights.
    pub(super) fn build<C: Cell + 'static>(
        settings: &dyn CoreSettings,
        input_size: usize,
        builder: &Builder<'_>,
        cell: impl Fn(usize, &Builder<'_>) -> Result<C>,
    ) -> Result<Arc<dyn Core>> {
        let hidden_size = settings.hidden_size();
        let layer = |k: usize| -> Result<Arc<dyn Cell>> {
            let input_size = if k == 0 { input_size } else { hidden_size };
            Ok(Arc::new(cell(input_size, &builder.under(&format!("core.{k}")))?))
        };
        Ok(Arc::new(Self {
            cells: (0..settings.layers()).map(layer).collect::<Result<_>>()?,
            hidden_size,
            dtype: builder.dtype(),
            device: builder.device.clone(),
        }))
    }
}

impl Core for Stack {
    fn forward(&self, xs: &Tensor, state: &State, noise: &Noise) -> Result<(Tensor, State)> {
        let mut xs = xs.clone();
        let mut after = Vec::with_capacity(self.cells.len());
        for (layer, cell) in self.cells.iter().enumerate() {
            xs = noise.on_input(layer, xs)?;
            let (outputs, left) = cell.forward(&xs, &state.0[layer], noise.recurrent(layer))?;
            xs = outputs;
            after.push(left);
        }
        Ok((xs, State(after)))
    }

    fn zero_state(&self, batch: usize) -> Result<State> {
        let layer = |cell: &Arc<dyn Cell>| -> Result<Vec<Tensor>> {
            let sizes = (0..cell.parts()).map(|part| cell.part_size(part, self.hidden_size));
            sizes.map(|size| Ok(Tensor::zeros((batch, size), self.dtype, &self.device)?)).collect()
        };
        let layers = self.cells.iter().map(layer);
        Ok(State(layers.collect::<Result<_>>()?))
    }

    fn cost(&self) -> u64 {
        self.cells.iter().map(|cell| cell.cost()).sum()
    }

    fn frozen(&self) -> Result<Option<Arc<dyn Core>>> {
        let frozen = |cell: &Arc<dyn Cell>| Ok(cell.frozen()?.unwrap_or_else(|| cell.clone()));
        let cells = self.cells.iter().map(frozen).collect::<Result<_>>()?;
        Ok(Some(Arc::new(Self { cells, ..self.clone() })))
    }

    fn trace(&self, xs: &Tensor, state: &State) -> Result<Option<(Vec<StageTrace>, State)>> {
        let (time, batch, _) = xs.dims3()?;
        let mut xs = xs.clone();
        let mut traces = Vec::with_capacity(self.cells.len());
        let mut after = Vec::with_capacity(self.cells.len());
        for (cell, entering) in self.cells.iter().zip(&state.0) {
            let Some(trace) = cell.trace(&xs, entering)? else { return Ok(None) };
            let Some(last) = trace.layers.last() else { return Ok(None) };
            xs = last.state.reshape((time, batch, self.hidden_size))?;
            after.push(vec![xs.get(time - 1)?]); // the one part of a state that has a stage
            traces.push(trace);
        }
        Ok(Some((traces, State(after))))
    }

    fn steps(&self) -> Result<Option<Box<dyn Steps>>> {
        let layers: Option<Vec<_>> = self.cells.iter().map(|cell| cell.steps()).collect::<Result<_>>()?;
        Ok(layers.map(|layers| Box::new(StackSteps(layers)) as Box<dyn Steps>))
    }
}

/// All layers for one token, then for the next.
struct StackSteps(Vec<Box<dyn Steps>>);

impl Steps for StackSteps {
    fn step(&mut self, xs: &[f32]) -> &[f32] {
        let (first, others) = self.0.split_first_mut().expect("a core has a layer");
        others.iter_mut().fold(first.step(xs), |xs, layer| layer.step(xs))
    }

    fn state(&self) -> Result<State> {
        let layers: Vec<State> = self.0.iter().map(|layer| layer.state()).collect::<Result<_>>()?;
        Ok(State(layers.into_iter().flat_map(|layer| layer.0).collect()))
    }

    fn set_state(&mut self, state: &State) -> Result<()> {
        self.0
            .iter_mut()
            .zip(&state.0)
            .try_for_each(|(layer, parts)| layer.set_state(&State(vec![parts.clone()])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::noise::RecurrentNoise;

    /// h' = h + the window's sum over time: a cell of plain operations in a few lines.
    struct Sum;

    impl Cell for Sum {
        fn forward(
            &self,
            xs: &Tensor,
            state: &[Tensor],
            _: RecurrentNoise<'_>,
        ) -> Result<(Tensor, Vec<Tensor>)> {
            Ok((xs.clone(), vec![(&state[0] + xs.sum(0)?)?]))
        }

        fn cost(&self) -> u64 {
            7
        }
    }

    #[test]
    fn a_plain_cell_is_used_as_it_is_for_evaluation() {
        let cells: Vec<Arc<dyn Cell>> = vec![Arc::new(Sum), Arc::new(Sum)];
        let stack = Stack { cells, hidden_size: 2, dtype: DType::F32, device: Device::Cpu };
        assert_eq!(stack.cost(), 14);
        let frozen = stack.frozen().unwrap().unwrap();
        assert!(frozen.steps().unwrap().is_none());
        let xs = Tensor::ones((3, 1, 2), DType::F32, &Device::Cpu).unwrap();
        let zero = frozen.zero_state(1).unwrap();
        let (ys, after) = frozen.forward(&xs, &zero, &Noise::none()).unwrap();
        assert_eq!(ys.dims(), [3, 1, 2]);
        assert_eq!(after.0[1][0].to_vec2::<f32>().unwrap(), [[3.0, 3.0]]);
    }
}
