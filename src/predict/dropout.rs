//! Reading one text several times side by side, each time with dropout masks of its own.

use crate::error::Result;
use crate::model::dropout::DropoutConfig;
use crate::model::{FrozenModel, LanguageModel, Noise, NoiseSource, State, masked};
use candle_core::{DType, Device, Tensor};
use rhn_kernels::rng::Rng;
use std::ops::Range;

/// A model that reads a window with masks.
pub trait Masked {
    /// What the output layer sees, `(time, batch, hidden)`, and the state after the window.
    fn hidden(&self, tokens: &Tensor, state: &State, noise: &Noise) -> Result<(Tensor, State)>;

    /// Nats of the targets, `(time, batch)`, from what the output layer sees.
    fn nats_of(&self, ys: &Tensor, targets: &Tensor, noise: &Noise, temperature: f64) -> Result<Tensor>;
}

impl Masked for FrozenModel {
    fn hidden(&self, tokens: &Tensor, state: &State, noise: &Noise) -> Result<(Tensor, State)> {
        self.hidden(tokens, state, noise)
    }

    fn nats_of(&self, ys: &Tensor, targets: &Tensor, noise: &Noise, temperature: f64) -> Result<Tensor> {
        self.nats_of(ys, targets, noise, temperature)
    }
}

impl Masked for LanguageModel {
    fn hidden(&self, tokens: &Tensor, state: &State, noise: &Noise) -> Result<(Tensor, State)> {
        self.hidden(tokens, state, noise)
    }

    fn nats_of(&self, ys: &Tensor, targets: &Tensor, noise: &Noise, temperature: f64) -> Result<Tensor> {
        self.nats_of(ys, targets, noise, temperature)
    }
}

/// Several passes over one text side by side, each with masks of its own, drawn once for the whole text; masks of each time
/// step, for a model that was trained with them, are drawn window by window.
pub struct DropoutPasses {
    masks: NoiseSource,
    word_rate: f64,
    seed: u64,
    passes: Range<usize>,
    /// Tokens of the text that were read.
    read: u64,
    /// What each pass remembers.
    state: State,
    dtype: DType,
    device: Device,
}

/// What the passes made of a window.
pub struct PassesRead {
    /// What the output layer would have seen without its own mask, `(time, passes, hidden)`.
    pub states: Tensor,
    /// Nats of the targets, `(time, passes)`.
    pub nats: Tensor,
}

impl DropoutPasses {
    /// Passes at the start of a text by `model`. `passes` and `seed` fix the masks.
    pub fn new(
        model: &FrozenModel,
        dropout: &DropoutConfig,
        seed: u64,
        passes: Range<usize>,
    ) -> Result<Self> {
        let masks = DropoutConfig { word: 0.0, recurrent_weights: 0.0, ..dropout.clone() }; // weights are whole here
        let dtype = model.precision().dtype();
        Ok(Self {
            state: model.zero_state(passes.len())?,
            masks: NoiseSource::new(model.config(), &masks, seed, dtype, model.device()).of_passes(),
            word_rate: dropout.word,
            seed,
            passes,
            read: 0,
            dtype,
            device: model.device().clone(),
        })
    }

    /// How many passes there are.
    pub fn count(&self) -> usize {
        self.passes.len()
    }

    /// Reads the window that comes next with the weights that `model` has now. `inputs` and `targets` are those of one batch
    /// row, `(time, 1)`.
    pub fn read(
        &mut self,
        model: &dyn Masked,
        inputs: &Tensor,
        targets: &Tensor,
        temperature: f64,
    ) -> Result<PassesRead> {
        let inputs = self.for_each_pass(inputs)?;
        let noise = self.noise(&inputs)?;
        let before_output = Noise { output: None, ..noise.clone() };
        let (states, state) = model.hidden(&inputs, &self.state, &before_output)?;
        let seen = masked(states.clone(), noise.output.as_ref())?;
        let nats = model.nats_of(&seen, &self.for_each_pass(targets)?, &noise, temperature)?;
        self.state = state.detach();
        self.read += inputs.dim(0)? as u64;
        Ok(PassesRead { states: states.detach(), nats: nats.detach() })
    }

    /// The masks of the window that comes next.
    fn noise(&self, inputs: &Tensor) -> Result<Noise> {
        let first = self.passes.start as u64;
        let mut noise = self.masks.draw(inputs, first, window_position(first, self.read))?;
        if self.word_rate > 0.0 {
            let of_pass = self.word_mask(first)?;
            noise.word = Some(match noise.word {
                None => of_pass,
                Some(of_types) => of_types.broadcast_mul(&of_pass)?,
            });
        }
        Ok(noise)
    }

    /// One number a pass: `(1, passes, 1)`.
    fn word_mask(&self, first: u64) -> Result<Tensor> {
        let mut rng = Rng::keyed(self.seed, "monte_carlo.word", first);
        let scale = 1.0 / (1.0 - self.word_rate);
        let draw = |_| if rng.uniform() < self.word_rate { 0.0 } else { scale };
        let values: Vec<f64> = self.passes.clone().map(draw).collect();
        let mask = Tensor::from_vec(values, (1, self.passes.len(), 1), &Device::Cpu)?;
        Ok(mask.to_dtype(self.dtype)?.to_device(&self.device)?)
    }

    /// `(time, 1)` to `(time, passes)`.
    fn for_each_pass(&self, column: &Tensor) -> Result<Tensor> {
        Ok(column.broadcast_as((column.dim(0)?, self.passes.len()))?.contiguous()?)
    }
}

/// Names the masks of a window whose time steps each have their own: the number of its first pass in the high bits, the
/// position of its first token in the low 40, so that no two windows of an evaluation share a draw.
fn window_position(first_pass: u64, first_token: u64) -> u64 {
    (first_pass << 40) + first_token
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::tiny;

    #[test]
    fn each_pass_drops_word_types_of_its_own_and_the_same_in_every_window() {
        let dropout = DropoutConfig { embedding: 0.5, ..DropoutConfig::default() };
        let model = tiny::drawn(5, 1.0);
        let mut reader = DropoutPasses::new(&model, &dropout, 1, 0..16).unwrap();
        let mut mask = || {
            let inputs = Tensor::zeros((2, 1), candle_core::DType::U32, &Device::Cpu).unwrap();
            let noise = reader.noise(&reader.for_each_pass(&inputs).unwrap()).unwrap();
            reader.read(&model, &inputs, &inputs, 1.0).unwrap();
            noise.word.unwrap().squeeze(2).unwrap().to_vec2::<f64>().unwrap()
        };
        let first = mask();
        assert_eq!(first, mask());
        assert_eq!(first[0], first[1]); // one word at two steps
        assert!(first[0].contains(&0.0) && first[0].contains(&2.0), "{first:?}");
    }

    /// The first token's state depends on no other mask here, so that passes differ by the mask of the output alone.
    #[test]
    fn states_are_those_before_the_mask_of_the_output() {
        let dropout = DropoutConfig { output: 0.5, ..DropoutConfig::default() };
        let model = tiny::drawn(5, 1.0);
        let inputs = Tensor::zeros((3, 1), candle_core::DType::U32, &Device::Cpu).unwrap();
        let mut reader = DropoutPasses::new(&model, &dropout, 1, 0..4).unwrap();
        let read = reader.read(&model, &inputs, &inputs, 1.0).unwrap();
        let (wanted, _) = model.hidden(&inputs, &model.zero_state(1).unwrap(), &Noise::none()).unwrap();
        let rows = |states: &Tensor| states.to_vec3::<f64>().unwrap();
        for (found, wanted) in rows(&read.states).iter().zip(rows(&wanted)) {
            assert!(found.iter().all(|row| row == &wanted[0]), "{found:?} is not {wanted:?}");
        }
        let nats = read.nats.to_vec2::<f64>().unwrap();
        assert_ne!(nats[0][0], nats[0][1]); // the masks are of each pass, and count where nats are made
    }

    #[test]
    fn the_word_mask_is_one_number_for_a_whole_pass() {
        let dropout = DropoutConfig { word: 0.25, input: 0.5, hidden: 0.25, ..DropoutConfig::default() };
        let model = tiny::drawn(5, 1.0);
        let mut reader = DropoutPasses::new(&model, &dropout, 1, 0..16).unwrap();
        let mut mask = || {
            let inputs = Tensor::zeros((5, 1), candle_core::DType::U32, &Device::Cpu).unwrap();
            let noise = reader.noise(&reader.for_each_pass(&inputs).unwrap()).unwrap();
            reader.read(&model, &inputs, &inputs, 1.0).unwrap();
            noise.word.unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        let first = mask();
        let second = mask();
        assert_eq!(first, second);
        assert_eq!(first.len(), 16);
        assert!(first.iter().all(|&scale| scale == 0.0 || scale == 1.0 / 0.75));
    }
}
