//! Reading a text token after token, as sampling does.
//!
//! On the CPU in single precision a token goes through buffers that are kept, and nothing is allocated for it;
//! elsewhere, and for several tokens at once, tensors are used.

use crate::error::Result;
use crate::model::frozen::TokenSteps;
use crate::model::{FrozenModel, Noise, State};
use candle_core::{DType, Device, Tensor};

/// Reads a text at batch 1, from the state before the first token.
pub struct TokenReader {
    model: FrozenModel,
    carried: Carried,
    logits: Vec<f64>,
    /// What the output layer saw of the last tokens, `(time, hidden)`, where that is kept.
    states: Option<Tensor>,
    keeps_states: bool,
}

enum Carried {
    Tensors(State),
    Buffers(TokenSteps),
}

impl TokenReader {
    /// A reader that has read nothing yet.
    pub fn new(model: &FrozenModel) -> Result<Self> {
        let carried = match model.steps()? {
            Some(steps) => Carried::Buffers(steps),
            None => Carried::Tensors(model.zero_state(1)?),
        };
        Ok(Self { model: model.clone(), carried, logits: Vec::new(), states: None, keeps_states: false })
    }

    /// The same reader, which keeps what the output layer sees.
    pub fn keep_states(mut self) -> Self {
        self.keeps_states = true;
        if let Carried::Buffers(steps) = &mut self.carried {
            steps.keep_hidden();
        }
        self
    }

    /// Reads `tokens`, at least one, each below the vocabulary's size.
    pub fn read(&mut self, tokens: &[u32]) -> Result<()> {
        match (&mut self.carried, tokens) {
            (Carried::Buffers(steps), &[token]) => {
                steps.read(token, &mut self.logits)?;
                let of_hidden = |hidden: &[f32]| Tensor::from_slice(hidden, (1, hidden.len()), &Device::Cpu);
                self.states = steps.hidden().map(of_hidden).transpose()?;
                Ok(())
            }
            _ => self.read_window(tokens),
        }
    }

    /// What the output layer saw of the tokens that were read last, `(time, hidden)`; `None` unless it is kept.
    pub fn states(&self) -> Option<&Tensor> {
        self.states.as_ref()
    }

    /// Logits of the token that comes next, `(vocabulary)`; none before anything was read.
    pub fn logits(&self) -> &[f64] {
        &self.logits
    }

    /// Another reader that has read the same.
    pub fn fork(&self) -> Result<Self> {
        let mut fork = Self::new(&self.model)?;
        if self.keeps_states {
            fork = fork.keep_states();
            fork.states.clone_from(&self.states);
        }
        fork.set_state(self.state()?)?;
        fork.logits.clone_from(&self.logits);
        Ok(fork)
    }

    fn read_window(&mut self, tokens: &[u32]) -> Result<()> {
        let inputs = Tensor::from_slice(tokens, (tokens.len(), 1), self.model.device())?;
        let (states, state) = self.model.hidden(&inputs, &self.state()?, &Noise::none())?;
        let logits = self.model.logits_of(&states.narrow(0, tokens.len() - 1, 1)?, &Noise::none())?;
        self.logits = logits.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
        self.states = if self.keeps_states { Some(states.flatten(0, 1)?) } else { None };
        self.set_state(state)
    }

    fn state(&self) -> Result<State> {
        match &self.carried {
            Carried::Tensors(state) => Ok(state.clone()),
            Carried::Buffers(steps) => steps.state(),
        }
    }

    fn set_state(&mut self, state: State) -> Result<()> {
        match &mut self.carried {
            Carried::Tensors(now) => *now = state,
            Carried::Buffers(steps) => steps.set_state(&state)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::TokenReader;
    use crate::config::{CoreConfig, EmbeddingConfig, ModelConfig, ModelSpec};
    use crate::model::core::{GruConfig, LstmConfig, RhnConfig, RhnSharedGates};
    use crate::model::output::OutputConfig;
    use crate::model::{FrozenModel, LanguageModel, Noise, Parameters, State};
    use candle_core::{DType, Device, Tensor};
    use rhn_kernels::precision::Precision;
    use serde_json::json;
    use std::collections::BTreeMap;

    const VOCABULARY: usize = 11;

    fn model(core: CoreConfig, tied: bool, precision: Precision) -> FrozenModel {
        let embedding = EmbeddingConfig::Word(Default::default());
        let output = OutputConfig { tied, ..Default::default() };
        let config = ModelConfig::new(
            ModelSpec { embedding, core, output, latent: None, encoder: None, classifier: None },
            VOCABULARY,
        );
        let dtype = precision.dtype();
        let device = Device::Cpu;
        let parameters = Parameters::draw(&config, BTreeMap::new(), 1, 0.5, dtype, &device).unwrap();
        LanguageModel::new(&config, &parameters, precision, &device).unwrap().freeze().unwrap()
    }

    fn rhn(layers: usize, shared_gates: RhnSharedGates) -> CoreConfig {
        CoreConfig::Rhn(RhnConfig {
            layers,
            hidden_size: 21,
            recurrence_depth: 3,
            transform_bias: -1.0,
            shared_gates,
            mogrifier: None,
        })
    }

    fn lstm() -> CoreConfig {
        CoreConfig::Lstm(LstmConfig { layers: 2, hidden_size: 13, projection: None, mogrifier: None })
    }

    /// Logits after each token of a text, by windows of tensors.
    fn by_tensors(model: &FrozenModel, tokens: &[u32]) -> Vec<Vec<f64>> {
        let inputs = Tensor::from_slice(tokens, (tokens.len(), 1), &Device::Cpu).unwrap();
        let (logits, _) = model.logits(&inputs, &model.zero_state(1).unwrap(), &Noise::none()).unwrap();
        let logits = logits.squeeze(1).unwrap().to_dtype(DType::F64).unwrap();
        logits.to_vec2().unwrap()
    }

    #[test]
    fn a_token_at_a_time_gives_the_windows_logits() {
        let tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 10, 0];
        for precision in [Precision::F32, Precision::Bf16, Precision::F64] {
            let one_rhn = rhn(1, RhnSharedGates::None);
            let three_rhns = rhn(3, RhnSharedGates::None);
            let sharing_rhns = rhn(2, RhnSharedGates::Both);
            for (core, tied) in [(one_rhn, true), (three_rhns, false), (sharing_rhns, false), (lstm(), false)]
            {
                let model = model(core, tied, precision);
                let mut reader = TokenReader::new(&model).unwrap();
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

    /// Reads some tokens of one row by a window.
    fn window(model: &FrozenModel, tokens: &[u32], state: &State) -> (Vec<f64>, State) {
        let inputs = Tensor::from_slice(tokens, (tokens.len(), 1), &Device::Cpu).unwrap();
        let (logits, state) = model.logits(&inputs, state, &Noise::none()).unwrap();
        let last = logits.get(tokens.len() - 1).unwrap().flatten_all().unwrap();
        (last.to_dtype(DType::F64).unwrap().to_vec1().unwrap(), state)
    }

    #[test]
    fn a_row_has_the_bits_that_it_has_alone_whoever_joins_and_leaves() {
        let gru = CoreConfig::Gru(GruConfig { layers: 2, hidden_size: 19 });
        let hlstm = |variant: &str| -> CoreConfig {
            let settings = json!({"kind": "hlstm", "layers": 2, "hidden_size": 13, "variant": variant});
            serde_json::from_value(settings).unwrap()
        };
        let rhns = [rhn(1, RhnSharedGates::None), rhn(2, RhnSharedGates::Both)];
        let hlstms = ["zhang", "depth-gated", "kurata"].map(hlstm);
        for core in rhns.into_iter().chain([lstm(), gru]).chain(hlstms) {
            let model = model(core, false, Precision::F32);
            // Row r begins with r + 1 tokens and joins at step r; it leaves after 12 steps in all.
            let text =
                |row: usize| Vec::from_iter((0..30).map(|at| ((at * at + 3 * row + at * row) % 11) as u32));
            let alone = |row: usize, count: usize| {
                let mut reader = TokenReader::new(&model).unwrap();
                reader.read(&text(row)[..=row]).unwrap();
                text(row)[row + 1..][..count].iter().for_each(|&token| reader.read(&[token]).unwrap());
                reader.logits().to_vec()
            };
            let mut rows: Vec<(usize, usize)> = Vec::new(); // number, tokens read since it joined
            let mut states: Option<State> = None;
            for step in 0..20 {
                if step < 7 {
                    let (logits, state) = window(&model, &text(step)[..=step], &model.zero_state(1).unwrap());
                    assert_eq!(logits, alone(step, 0));
                    let together: Vec<&State> = states.iter().chain([&state]).collect();
                    states = Some(State::join(&together).unwrap());
                    rows.push((step, 0));
                }
                let pending: Vec<u32> = rows.iter().map(|&(row, read)| text(row)[row + 1 + read]).collect();
                let inputs = Tensor::from_slice(&pending, (1, pending.len()), &Device::Cpu).unwrap();
                let (logits, after) =
                    model.logits(&inputs, states.as_ref().unwrap(), &Noise::none()).unwrap();
                let logits =
                    logits.squeeze(0).unwrap().to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
                for ((row, read), logits) in rows.iter_mut().zip(logits) {
                    *read += 1;
                    assert_eq!(logits, alone(*row, *read), "row {row} after {read} tokens");
                }
                let kept: Vec<u32> =
                    (0..).zip(&rows).filter(|(_, (_, read))| *read < 12).map(|(at, _)| at).collect();
                rows.retain(|(_, read)| *read < 12);
                states = (!kept.is_empty()).then(|| after.select(&kept).unwrap());
                if rows.is_empty() {
                    break;
                }
            }
        }
    }
}
