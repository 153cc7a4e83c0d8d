//! A classifier of sentences with two labels: an embedding, a core that reads in both directions, pooling, one logit.
//!
//! ```text
//! h_t = [forward core(x_1 … x_t), backward core(x_n … x_t)]      z = pooling(h_1 … h_n)      logit = (z ⊙ m) w + b
//! ```
//!
//! p(label 1) = sigmoid(logit). Each direction is a whole core of the recipe's kind, with all its layers; the forward one's
//! weights have the names of a language model's (`core.<k>`), the backward one's begin with `backward.`.

use super::builder::{Asked, Builder, Source};
use super::config::{ModelConfig, ModelSpec};
use super::core::CoreConfig;
use super::core::encoder::Encoder;
use super::embedding::EmbeddingConfig;
use super::encoder_noise::EncoderNoise;
use super::layers::{Cost, Embedding};
use super::noise::masked;
use super::output::OutputConfig;
use super::parameters::Parameters;
use super::pooling::{Pool, Pooling};
use super::sequences::Lengths;
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use rhn_kernels::embedding::lookup;
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// `[model.classifier]` of a recipe: how the states of a sentence become its label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// How the states become one vector.
    #[serde(default)]
    pub pooling: Pooling,
    /// For `attention`: units of its hidden layer; the core's hidden size unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_size: Option<usize>,
    /// Whether a second core reads each sentence from its end.
    #[serde(default = "yes")]
    pub bidirectional: bool,
}

/// Words whose vectors are computed at once: what is computed on the way would fill the memory for many.
const WORDS_AT_ONCE: usize = 1024;

fn yes() -> bool {
    true
}

impl ClassifierConfig {
    /// Refuses what no classifier can have.
    pub(super) fn validate(&self, spec: &ModelSpec) -> Result<()> {
        let wrong = |what: &str| Err(Error::config(what));
        if !matches!(
            spec.embedding,
            EmbeddingConfig::Word(_) | EmbeddingConfig::CharCnn(_) | EmbeddingConfig::CharLstm(_)
        ) {
            return wrong(
                "model.classifier needs model.embedding.kind = \"word\", \"char-cnn\" or \"char-lstm\"",
            );
        }
        if matches!(spec.core, CoreConfig::FeedForward(_)) {
            return wrong("model.classifier reads sentences, and a feed-forward core has no steps");
        }
        if spec.output != OutputConfig::default() {
            return wrong("model.classifier takes the place of model.output: leave [model.output] out");
        }
        match (self.pooling, self.attention_size) {
            (Pooling::Attention, Some(0)) => wrong("model.classifier.attention_size is 0, wanted at least 1"),
            (Pooling::Mean | Pooling::Max, Some(_)) => {
                wrong("model.classifier.attention_size is for pooling = \"attention\"")
            }
            _ => Ok(()),
        }
    }

    /// Numbers of the pooled vector, for a core of `hidden` units.
    fn size(&self, hidden: usize) -> usize {
        if self.bidirectional { 2 * hidden } else { hidden }
    }
}

impl Display for ClassifierConfig {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let direction = if self.bidirectional { "both directions" } else { "one direction" };
        write!(f, "{} over {direction}", self.pooling.as_str())
    }
}

/// A classifier on weights that training changes, or on weights as they are.
pub struct Classifier {
    embedding: Box<dyn Embedding>,
    /// The vectors of the vocabulary and of further words, `(words, size)`, for evaluation.
    table: Option<Tensor>,
    encoder: Encoder,
    pool: Pool,
    /// `(size, 1)`.
    weight: Tensor,
    /// `(1)`.
    bias: Tensor,
    precision: Precision,
    device: Device,
}

impl Classifier {
    /// A classifier on `parameters`, whose gradients are recorded.
    pub fn new(
        config: &ModelConfig,
        parameters: &Parameters,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let tensors = parameters.tracked();
        Ok(Self::build(config, &Source::Take(&tensors), precision.into(), device)?.0)
    }

    /// A classifier for evaluation: no gradient is recorded, and each word's vector is computed once. The ids after those of
    /// the vocabulary are those of `words`, in their order, where the embedding reads any word.
    ///
    /// # Errors
    /// If there are `words` and the embedding reads those of the vocabulary alone.
    pub fn frozen(
        config: &ModelConfig,
        parameters: &Parameters,
        words: &[String],
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let tensors = parameters.tensors();
        let (mut model, _) = Self::build(config, &Source::Take(&tensors), precision.into(), device)?;
        let mut vectors = vec![model.embedding.table()?];
        for words in words.chunks(WORDS_AT_ONCE) {
            let bytes: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
            vectors.push(model.embedding.spelled(&bytes)?);
        }
        model.table = Some(Tensor::cat(&vectors, 0)?);
        Ok(model)
    }

    /// The classifier, and what it has asked `source` for.
    pub(super) fn build(
        config: &ModelConfig,
        source: &Source<'_>,
        precision: Precision,
        device: &Device,
    ) -> Result<(Self, Asked)> {
        let asked = RefCell::default();
        let builder = Builder::new(source, precision, device, &asked);
        let spec = &config.spec;
        let Some(classifier) = &spec.classifier else {
            return Err(Error::config("a model without [model.classifier] is no classifier"));
        };
        let input = config.embedding_size();
        let hidden = spec.core.hidden_size();
        let encoder = Encoder::build(&spec.core, input, classifier.bidirectional, &builder)?;
        let size = classifier.size(hidden);
        let weights = builder.under("classifier");
        let model = Self {
            embedding: spec.embedding.settings().build(config.vocab_size, input, &builder)?,
            table: None,
            encoder,
            pool: classifier.pooling.build(size, classifier.attention_size.unwrap_or(hidden), &weights)?,
            weight: weights.weight("weight", (size, 1))?,
            bias: weights.weight("bias", 1)?,
            precision,
            device: device.clone(),
        };
        Ok((model, asked.into_inner()))
    }

    /// The logit of label 1 for each sentence, `(batch)`: tokens `(time, batch)` of u32, of which each row has as many as
    /// `lengths` says; what comes after them has no influence.
    ///
    /// # Errors
    /// If a length is 0 or above `time`.
    pub fn logits(&self, tokens: &Tensor, lengths: &[usize], noise: &EncoderNoise) -> Result<Tensor> {
        let (time, _) = tokens.dims2()?;
        let lengths = Lengths::new(time, lengths.to_vec())?;
        let xs = masked(self.vectors(tokens)?, noise.each[0].word.as_ref())?;
        let hs = self.encoder.states(&xs, &lengths, [&noise.each[0], &noise.each[1]])?;
        let pooled = masked(self.pool.forward(hs, &lengths)?, noise.pooled.as_ref())?;
        let logits = linear(&pooled, &self.weight, Stored::ByInput, self.precision)?;
        Ok(logits.broadcast_add(&self.bias)?.squeeze(1)?)
    }

    /// `(time, batch)` of u32 to `(time, batch, size)`.
    fn vectors(&self, tokens: &Tensor) -> Result<Tensor> {
        match &self.table {
            Some(table) => Ok(lookup(table, tokens, None)?),
            None => self.embedding.forward(tokens),
        }
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn cost(&self) -> Cost {
        Cost { per_token: self.encoder.cost() + self.pool.cost(), per_distinct: self.embedding.cost() }
    }
}

/// −ln p of each label, `(batch)`, from logits `(batch)` and labels `(batch)` of 0 and 1 in the logits' type; that of a
/// label 1 is counted `positive_weight` times. In the form that overflows nowhere:
///
/// ```text
/// (1 − y) z + (1 + (w − 1) y) (max(−z, 0) + ln(1 + e^−|z|))
/// ```
pub fn label_nats(logits: &Tensor, labels: &Tensor, positive_weight: f64) -> Result<Tensor> {
    let softplus = (logits.neg()?.relu()? + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    let weights = labels.affine(positive_weight - 1.0, 1.0)?;
    Ok(((logits * labels.affine(-1.0, 1.0)?)? + (softplus * weights)?)?)
}

/// The tensors of a language model with which a classifier can begin: its embedding and its core.
pub(crate) fn lent(tensors: BTreeMap<String, Tensor>) -> impl Iterator<Item = (String, Tensor)> {
    let is_shared = |name: &str| name.starts_with("embedding.") || name.starts_with("core.");
    tensors.into_iter().filter(move |(name, _)| is_shared(name))
}

#[cfg(test)]
mod tests {
    use super::label_nats;
    use candle_core::{Device, Tensor};

    #[test]
    fn a_label_costs_what_the_sigmoid_says_however_far_the_logit_is() {
        let nats = |logit: f64, label: f64, weight: f64| {
            let logits = Tensor::new(&[logit], &Device::Cpu).unwrap();
            let labels = Tensor::new(&[label], &Device::Cpu).unwrap();
            label_nats(&logits, &labels, weight).unwrap().to_vec1::<f64>().unwrap()[0]
        };
        let half = 2f64.ln();
        assert!((nats(0.0, 1.0, 1.0) - half).abs() < 1e-15 && (nats(0.0, 0.0, 5.0) - half).abs() < 1e-15);
        assert!((nats(0.0, 1.0, 5.0) - 5.0 * half).abs() < 1e-14);
        assert!((nats(3f64.ln(), 0.0, 1.0) - 4f64.ln()).abs() < 1e-14); // sigmoid(ln 3) = 3/4
        assert_eq!([nats(1e4, 1.0, 1.0), nats(1e4, 0.0, 1.0), nats(-1e4, 1.0, 2.0)], [0.0, 1e4, 2e4]);
    }
}
