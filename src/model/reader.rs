//! A model that reads one text, token after token: what sampling does.
//!
//! On the CPU in single precision a token goes through buffers that are kept, and nothing is allocated for it;
//! elsewhere, and for several tokens at once, tensors are used.

use super::cell::{CellSteps, State};
use super::lm::Evaluator;
use super::noise::Noise;
use crate::error::Result;
use candle_core::{DType, Tensor};
use rhn_kernels::embedding::copy_row;
use rhn_kernels::linear::Rows;

/// Reads a text at batch 1, from the state before the first token.
pub struct Reader<'a> {
    evaluator: &'a Evaluator<'a>,
    way: Way<'a>,
    logits: Vec<f64>,
}

enum Way<'a> {
    Tensors(State),
    Buffers(Layers<'a>),
}

impl<'a> Reader<'a> {
    /// Has read nothing yet.
    pub fn new(evaluator: &'a Evaluator<'a>) -> Result<Self> {
        let way = match evaluator.layers()? {
            Some(layers) => Way::Buffers(layers),
            None => Way::Tensors(evaluator.model().zero_state(1)?),
        };
        Ok(Self { evaluator, way, logits: Vec::new() })
    }

    /// Reads `tokens`, at least one, each below the vocabulary's size.
    pub fn read(&mut self, tokens: &[u32]) -> Result<()> {
        match (&mut self.way, tokens) {
            (Way::Buffers(layers), &[token]) => layers.read(token, &mut self.logits),
            _ => self.read_window(tokens),
        }
    }

    /// Logits of the token that comes next, `(vocabulary)`; none before anything was read.
    pub fn logits(&self) -> &[f64] {
        &self.logits
    }

    /// Another reader that has read the same.
    pub fn fork(&self) -> Result<Self> {
        let mut fork = Self::new(self.evaluator)?;
        fork.set_state(self.state()?)?;
        fork.logits.clone_from(&self.logits);
        Ok(fork)
    }

    fn read_window(&mut self, tokens: &[u32]) -> Result<()> {
        let inputs = Tensor::from_slice(tokens, (tokens.len(), 1), self.evaluator.model().device())?;
        let (logits, state) = self.evaluator.logits(&inputs, &self.state()?, &Noise::none())?;
        self.logits = logits.get(tokens.len() - 1)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
        self.set_state(state)
    }

    fn state(&self) -> Result<State> {
        match &self.way {
            Way::Tensors(state) => Ok(state.clone()),
            Way::Buffers(layers) => {
                Ok(State(layers.cells.iter().map(CellSteps::state).collect::<Result<_>>()?))
            }
        }
    }

    fn set_state(&mut self, state: State) -> Result<()> {
        match &mut self.way {
            Way::Tensors(now) => *now = state,
            Way::Buffers(layers) => {
                for (cell, parts) in layers.cells.iter_mut().zip(&state.0) {
                    cell.set_state(parts)?;
                }
            }
        }
        Ok(())
    }
}

/// A model's layers with their buffers.
pub(super) struct Layers<'a> {
    /// `(vocabulary, size)`.
    pub(super) table: Tensor,
    /// A row of it.
    pub(super) embedded: Vec<f32>,
    pub(super) cells: Vec<CellSteps<'a>>,
    pub(super) output: Rows<'a>,
    pub(super) bias: Vec<f32>,
}

impl Layers<'_> {
    fn read(&mut self, token: u32, logits: &mut Vec<f64>) -> Result<()> {
        copy_row(&self.table, token as usize, &mut self.embedded)?;
        let mut xs = &self.embedded[..];
        for cell in &mut self.cells {
            xs = cell.step(xs);
        }
        let products = self.output.multiply(xs).iter().zip(&self.bias);
        logits.clear();
        logits.extend(products.map(|(product, bias)| f64::from(product + bias)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;
    use crate::config::CoreConfig;
    use crate::config::model::{
        EmbeddingConfig, LstmConfig, ModelConfig, ModelSpec, OutputConfig, RhnConfig,
    };
    use crate::model::{LanguageModel, Noise, Parameters};
    use candle_core::{DType, Device, Tensor};
    use rhn_kernels::precision::Precision;
    use std::collections::BTreeMap;

    const VOCABULARY: usize = 11;

    fn model(core: CoreConfig, tied: bool, precision: Precision) -> LanguageModel {
        let (embedding, output) = (EmbeddingConfig::Word(Default::default()), OutputConfig { tied });
        let config = ModelConfig::new(ModelSpec { embedding, core, output }, VOCABULARY);
        let (dtype, device) = (precision.dtype(), Device::Cpu);
        let parameters = Parameters::draw(&config, BTreeMap::new(), 1, 0.5, dtype, &device).unwrap();
        LanguageModel::frozen(&config, &parameters, precision, &device).unwrap()
    }

    fn rhn(layers: usize) -> CoreConfig {
        CoreConfig::Rhn(RhnConfig { layers, hidden_size: 21, recurrence_depth: 3, transform_bias: -1.0 })
    }

    fn lstm() -> CoreConfig {
        CoreConfig::Lstm(LstmConfig { layers: 2, hidden_size: 13 })
    }

    /// Logits after each token of a text, by windows of tensors.
    fn by_tensors(model: &LanguageModel, tokens: &[u32]) -> Vec<Vec<f64>> {
        let evaluator = model.evaluator().unwrap();
        let inputs = Tensor::from_slice(tokens, (tokens.len(), 1), &Device::Cpu).unwrap();
        let (logits, _) = evaluator.logits(&inputs, &model.zero_state(1).unwrap(), &Noise::none()).unwrap();
        let logits = logits.squeeze(1).unwrap().to_dtype(DType::F64).unwrap();
        logits.to_vec2().unwrap()
    }

    #[test]
    fn a_token_at_a_time_gives_the_windows_logits() {
        let tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 10, 0];
        for precision in [Precision::F32, Precision::Bf16, Precision::F64] {
            for (core, tied) in [(rhn(1), true), (rhn(3), false), (lstm(), false)] {
                let model = model(core, tied, precision);
                let evaluator = model.evaluator().unwrap();
                let mut reader = Reader::new(&evaluator).unwrap();
                reader.read(&tokens[..2]).unwrap(); // a prompt
                let mut fork = reader.fork().unwrap();
                for (at, wanted) in by_tensors(&model, &tokens).iter().enumerate().skip(2) {
                    for reader in [&mut reader, &mut fork] {
                        reader.read(&tokens[at..=at]).unwrap();
                        let far = reader.logits().iter().zip(wanted).map(|(a, b)| (a - b).abs());
                        assert!(
                            far.clone().all(|far| far < 1e-5),
                            "{precision:?}: {:?}",
                            Vec::from_iter(far)
                        );
                    }
                }
            }
        }
    }
}
