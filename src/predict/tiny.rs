//! For tests: models small enough that a reader can derive what they do.

use crate::config::{CoreConfig, CorpusConfig, EmbeddingConfig, ModelConfig, ModelSpec, Unit};
use crate::data::{Encoded, Text, Tokenizer};
use crate::model::core::{RhnConfig, RhnSharedGates};
use crate::model::output::OutputConfig;
use crate::model::{FrozenModel, LanguageModel, Parameters};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

/// A recurrent highway network with 6 units and 2 sublayers, in double precision.
pub(crate) fn config(vocab_size: usize) -> ModelConfig {
    let core = RhnConfig {
        layers: 1,
        hidden_size: 6,
        recurrence_depth: 2,
        transform_bias: -1.0,
        shared_gates: RhnSharedGates::None,
        mogrifier: None,
    };
    let spec = ModelSpec {
        embedding: EmbeddingConfig::Word(Default::default()),
        core: CoreConfig::Rhn(core),
        output: OutputConfig::default(),
        latent: None,
        encoder: None,
        classifier: None,
    };
    ModelConfig::new(spec, vocab_size)
}

fn weights(vocab_size: usize, scale: f64) -> BTreeMap<String, Tensor> {
    let config = config(vocab_size);
    let drawn = Parameters::draw(&config, BTreeMap::new(), 1, scale, DType::F64, &Device::Cpu);
    drawn.expect("a valid configuration").tensors()
}

/// Weights to be trained on, drawn as those of [`drawn`].
pub(crate) fn parameters(vocab_size: usize, scale: f64) -> (ModelConfig, Parameters) {
    let config = config(vocab_size);
    let parameters = Parameters::load(&config, &weights(vocab_size, scale), DType::F64, &Device::Cpu);
    (config, parameters.expect("the model's own weights"))
}

fn model(vocab_size: usize, tensors: &BTreeMap<String, Tensor>) -> FrozenModel {
    let config = config(vocab_size);
    let device = Device::Cpu;
    let parameters =
        Parameters::load(&config, tensors, DType::F64, &device).expect("the model's own weights");
    let model = LanguageModel::new(&config, &parameters, DType::F64, &device).expect("a valid model");
    model.freeze().expect("a valid model")
}

/// Weights drawn uniformly from ± `scale`; at 0 every token is equally likely after any text.
pub(crate) fn drawn(vocab_size: usize, scale: f64) -> FrozenModel {
    model(vocab_size, &weights(vocab_size, scale))
}

/// After any text, the next token has these probabilities.
pub(crate) fn constant(probabilities: &[f64]) -> FrozenModel {
    let mut tensors = weights(probabilities.len(), 0.0);
    let logits: Vec<f64> = probabilities.iter().map(|p| p.ln()).collect();
    let bias = Tensor::from_vec(logits, probabilities.len(), &Device::Cpu).expect("a vector");
    tensors.insert("output.bias".into(), bias);
    model(probabilities.len(), &tensors)
}

/// A corpus that is cut by `unit`.
pub(crate) fn corpus(unit: Unit) -> CorpusConfig {
    CorpusConfig::new("tiny", unit)
}

/// A vocabulary of the text's own units.
pub(crate) fn tokenizer(unit: Unit, text: &str) -> Tokenizer {
    Tokenizer::build(&corpus(unit), &Text::from(text)).expect("a vocabulary")
}

/// `text` in its own vocabulary, and the vocabulary's size.
pub(crate) fn encoded(unit: Unit, text: &str) -> (Encoded, usize) {
    let tokenizer = tokenizer(unit, text);
    (tokenizer.encode_measured(&Text::from(text)).expect("text of the vocabulary"), tokenizer.vocab_size())
}

/// A text of `length` characters a, b, c in no simple order.
pub(crate) fn characters(length: usize) -> String {
    (0..length).map(|i| ['a', 'b', 'c'][(i * i + i / 7) % 3]).collect()
}
