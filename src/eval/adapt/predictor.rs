//! A model that reads one batch row and shows what it would need to be mixed with something else.

use super::settings::Adaptation;
use crate::error::Result;
use crate::model::Noise;
use crate::predict::{DropoutPasses, PassesRead, STREAM_STEPS, WindowReader};
use candle_core::{Device, Tensor};

/// Reads one batch row window by window.
pub trait Predictor {
    /// Goes back to the start of a text, with the weights as they were trained, and takes what `adaptation` says of them.
    fn restart(&mut self, adaptation: &Adaptation) -> Result<()>;

    /// Reads a window, by what the model was before it. `inputs` and `targets`: `(time, 1)` of u32.
    fn predict(&mut self, inputs: &Tensor, targets: &Tensor, temperatures: &[f64]) -> Result<Predicted>;

    /// As [`Predictor::predict`], by `passes` with dropout beside one another. Weights that learn do so from what is read
    /// without it.
    fn predict_with_dropout(
        &mut self,
        passes: &mut DropoutPasses,
        inputs: &Tensor,
        targets: &Tensor,
        temperature: f64,
    ) -> Result<PassesRead>;

    /// How many time steps a window has.
    fn window(&self) -> usize;

    /// Where the weights are.
    fn device(&self) -> &Device;
}

/// What a model made of a window.
pub struct Predicted {
    /// What the output layer saw, `(time, hidden)`; nothing was dropped.
    pub states: Tensor,
    /// For each temperature the nats of the targets, `(time, 1)`.
    pub nats: Vec<Tensor>,
}

/// The weights stay as they are.
impl Predictor for WindowReader {
    fn restart(&mut self, _: &Adaptation) -> Result<()> {
        self.set_state(self.model().zero_state(1)?);
        Ok(())
    }

    fn predict(&mut self, inputs: &Tensor, targets: &Tensor, temperatures: &[f64]) -> Result<Predicted> {
        let ys = self.hidden(inputs, &Noise::none())?;
        let nats = |&temperature| self.model().nats_of(&ys, targets, &Noise::none(), temperature);
        let nats = temperatures.iter().map(nats).collect::<Result<_>>()?;
        Ok(Predicted { states: ys.flatten(0, 1)?, nats })
    }

    fn predict_with_dropout(
        &mut self,
        passes: &mut DropoutPasses,
        inputs: &Tensor,
        targets: &Tensor,
        temperature: f64,
    ) -> Result<PassesRead> {
        passes.read(self.model(), inputs, targets, temperature)
    }

    fn window(&self) -> usize {
        STREAM_STEPS
    }

    fn device(&self) -> &Device {
        self.model().device()
    }
}
