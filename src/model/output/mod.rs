//! The output layer. To add a kind: its file here, and three lines below (`mod`, a variant of [`OutputKind`], its line
//! in `build`); settings of its own are optional fields of [`OutputConfig`].

mod adaptive;
mod char_cnn;
pub(crate) mod log_softmax;
mod mixture;
mod product;
mod soft;
mod softmax;

use super::builder::Builder;
use super::clusters::AdaptiveShape;
use super::embedding::EmbeddingConfig;
use super::layers::{Embedding, Output};
use super::noise::Noise;
use crate::error::{Error, Result};
use adaptive::Adaptive;
use candle_core::Tensor;
use char_cnn::CharCnnSoftmax;
use mixture::Mixture;
use product::{LOGITS, in_blocks_of};
use rhn_kernels::softmax::nats_of_products;
use serde::{Deserialize, Serialize};
pub(super) use soft::of_window;
pub use soft::{Soft, SoftTargets};
use softmax::Softmax;
use std::sync::Arc;

/// Nats of each target with the logits divided by `temperature`: at 1 [`Output::nats`] itself, else by the logits, whose
/// history is not followed.
pub(super) fn nats_at(
    output: &dyn Output,
    ys: &Tensor,
    targets: &Tensor,
    noise: &Noise,
    temperature: f64,
) -> Result<Tensor> {
    if temperature == 1.0 {
        return output.nats(ys, targets, noise);
    }
    // A window's logits are made some time steps at a time where all of them would fill the memory.
    let at_once = (LOGITS / (ys.dim(1)? * output.vocabulary()).max(1)).max(1);
    nats_of_steps(output, [ys, targets], noise, temperature, at_once)
}

/// [`nats_at`] by the logits of `at_once` time steps at a time.
fn nats_of_steps(
    output: &dyn Output,
    [ys, targets]: [&Tensor; 2],
    noise: &Noise,
    temperature: f64,
    at_once: usize,
) -> Result<Tensor> {
    let (time, batch, _) = ys.dims3()?;
    let targets = targets.flatten_all()?;
    let vocabulary = output.vocabulary();
    let nats = in_blocks_of(at_once, time, |steps| {
        let of_steps = ys.narrow(0, steps.start, steps.len())?;
        let logits =
            (output.logits(&of_steps, &noise.of_steps(&steps)?)?.detach().flatten(0, 1)? / temperature)?;
        let no_bias = Tensor::zeros(vocabulary, logits.dtype(), logits.device())?;
        let targets = targets.narrow(0, steps.start * batch, steps.len() * batch)?;
        Ok(nats_of_products(&logits, &no_bias, &targets)?)
    })?;
    Ok(nats.reshape((time, batch))?)
}

/// How the state becomes a distribution over the next token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// Which layer; a plain softmax unless given.
    #[serde(default, skip_serializing_if = "OutputKind::is_softmax")]
    pub kind: OutputKind,
    /// Use the embedding as the output's weights.
    #[serde(default)]
    pub tied: bool,
    /// For `softmax`, untied: keep the weights as a table of one row a word, as sampled losses need them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub by_word: bool,
    /// For `mixture`: how many softmaxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<usize>,
    /// For `adaptive`: the first word of each cluster behind the first; at about 2, 10 and 40 % of the vocabulary unless
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutoffs: Option<Vec<usize>>,
    /// For `adaptive`: what the vectors of each further cluster are smaller by; 4 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub div_value: Option<f64>,
    /// For `adaptive`: whether the first cluster's words and the clusters have biases; not unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_bias: Option<bool>,
    /// For `char-cnn`: numbers of a vector for each word, which tells words apart that are spelled alike. Published: 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correction: Option<usize>,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn needs_components() -> Error {
    Error::config(
        "model.output.kind = \"mixture\" needs model.output.components, how many softmaxes are mixed",
    )
}

/// The sizes that an output layer has to fit.
#[derive(Clone, Copy)]
pub(super) struct OutputSizes {
    /// Of what the core gives.
    pub(super) hidden: usize,
    /// Of a word's vector in the embedding.
    pub(super) embedding: usize,
    pub(super) vocabulary: usize,
}

/// A kind of output layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// One softmax over the whole vocabulary.
    #[default]
    Softmax,
    /// Several softmaxes over one table, mixed by weights that depend on the state (Yang et al., 2018).
    Mixture,
    /// A softmax over the frequent words and clusters of the others, and one within each cluster (Grave et al., 2017).
    Adaptive,
    /// One softmax over vectors that are computed from the words' characters (Józefowicz et al., 2016).
    CharCnn,
}

impl OutputKind {
    /// As recipes name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::Mixture => "mixture",
            Self::Adaptive => "adaptive",
            Self::CharCnn => "char-cnn",
        }
    }

    /// In a sentence.
    fn article(self) -> &'static str {
        match self {
            Self::Softmax => "a softmax",
            Self::Mixture => "a mixture",
            Self::Adaptive => "an adaptive softmax",
            Self::CharCnn => "a softmax over characters",
        }
    }

    /// Whether `config.json` and recipes leave the kind out.
    fn is_softmax(&self) -> bool {
        *self == Self::Softmax
    }
}

impl OutputConfig {
    /// Whether the vectors of a table that it is tied to must have the hidden size.
    pub(super) fn ties_hidden_size(&self) -> bool {
        self.tied && self.kind == OutputKind::Softmax
    }

    /// How many vectors the layer makes of a state, if it makes any: each has a dropout mask.
    pub fn component_count(&self) -> Option<usize> {
        self.components.filter(|_| self.kind == OutputKind::Mixture)
    }

    /// Refuses settings that no output layer has.
    pub(super) fn validate(&self, sizes: OutputSizes) -> Result<()> {
        const MOST: usize = 1 << 12;
        self.check_keys()?;
        match (self.kind, self.components) {
            (OutputKind::Softmax | OutputKind::CharCnn, _) => Ok(()),
            (OutputKind::Mixture, None) => Err(needs_components()),
            (OutputKind::Mixture, Some(count)) if !(1..=MOST).contains(&count) => {
                Err(Error::config(format!("model.output.components is {count}, wanted 1 to {MOST}")))
            }
            (OutputKind::Mixture, Some(_)) => Ok(()),
            (OutputKind::Adaptive, _) => {
                self.adaptive(sizes.vocabulary).validate("model.output", sizes.hidden, sizes.vocabulary)
            }
        }
    }

    /// Refuses a key that is for another kind.
    fn check_keys(&self) -> Result<()> {
        let kind = self.kind;
        let untied_softmax = kind == OutputKind::Softmax && !self.tied;
        let what = if self.components.is_some() && kind != OutputKind::Mixture {
            format!(
                "model.output.components is for model.output.kind = \"mixture\": {} has no components",
                kind.article()
            )
        } else if self.by_word && !untied_softmax {
            "model.output.by_word is for an untied model.output.kind = \"softmax\": a tied one has the embedding's rows"
                .into()
        } else if kind != OutputKind::CharCnn && self.correction.is_some() {
            "model.output.correction is for model.output.kind = \"char-cnn\"".into()
        } else if self.correction == Some(0) {
            "model.output.correction is 0, wanted at least 1; leave it out for none".into()
        } else if kind == OutputKind::CharCnn && self.tied {
            "model.output.tied is not for model.output.kind = \"char-cnn\", which has a network of its own"
                .into()
        } else if kind != OutputKind::Adaptive && self.has_clusters() {
            "model.output.cutoffs, div_value and head_bias are for model.output.kind = \"adaptive\"".into()
        } else {
            return Ok(());
        };
        Err(Error::config(what))
    }

    fn has_clusters(&self) -> bool {
        self.cutoffs.is_some() || self.div_value.is_some() || self.head_bias.is_some()
    }

    /// The settings of an adaptive softmax over `vocabulary` words.
    pub fn adaptive(&self, vocabulary: usize) -> AdaptiveShape {
        AdaptiveShape {
            cutoffs: self.cutoffs.clone().unwrap_or_else(|| AdaptiveShape::default_cutoffs(vocabulary)),
            div_value: self.div_value.unwrap_or(4.0),
            head_bias: self.head_bias.unwrap_or(false),
        }
    }

    /// Writes down what depends on the vocabulary unless it was given, so that a checkpoint says it.
    pub(super) fn settle(&mut self, vocabulary: usize) {
        if self.kind == OutputKind::Adaptive {
            self.cutoffs = Some(self.adaptive(vocabulary).cutoffs);
        }
    }

    /// Whether words must be sorted by falling frequency.
    pub fn needs_sorted_words(&self) -> bool {
        self.kind == OutputKind::Adaptive
    }

    /// The layer in a few words, for people.
    pub(super) fn describe(&self) -> String {
        let tied = if self.tied { "tied" } else { "untied" };
        match (self.kind, self.component_count(), &self.cutoffs) {
            (OutputKind::Adaptive, _, Some(cutoffs)) => {
                let cutoffs: Vec<String> = cutoffs.iter().map(usize::to_string).collect();
                format!("adaptive softmax, cut at {}, {tied}", cutoffs.join(", "))
            }
            (OutputKind::Adaptive, ..) => "adaptive softmax".into(),
            (OutputKind::CharCnn, ..) => match self.correction {
                None => "char CNN".into(),
                Some(size) => format!("char CNN with a correction of {size}"),
            },
            (_, Some(count), _) => format!("mixture of {count} softmaxes, {tied}"),
            (_, None, _) => tied.into(),
        }
    }

    /// Refuses an adaptive softmax that is tied to an embedding whose tables are not its words', and a network over
    /// characters that there are none of.
    pub(super) fn validate_beside(&self, embedding: &EmbeddingConfig, sizes: OutputSizes) -> Result<()> {
        if self.kind == OutputKind::CharCnn && !matches!(embedding, EmbeddingConfig::CharCnn(_)) {
            return Err(Error::config(
                "model.output.kind = \"char-cnn\" has a network as the embedding's: it needs model.embedding.kind = \"char-cnn\"",
            ));
        }
        if !self.tied || self.kind != OutputKind::Adaptive {
            return Ok(());
        }
        let own = self.adaptive(sizes.vocabulary);
        let what = match embedding {
            EmbeddingConfig::Adaptive(embedding) => {
                let theirs = embedding.shape(sizes.vocabulary);
                if (&theirs.cutoffs, theirs.div_value) != (&own.cutoffs, own.div_value) {
                    format!(
                        "model.output.cutoffs and div_value are {:?} and {}, the embedding's {:?} and {}: a tied output needs the \
                         same",
                        own.cutoffs, own.div_value, theirs.cutoffs, theirs.div_value
                    )
                } else if sizes.embedding != sizes.hidden {
                    format!(
                        "a tied output needs an embedding of the hidden size: {} is not {}",
                        sizes.embedding, sizes.hidden
                    )
                } else {
                    return Ok(());
                }
            }
            _ => "model.output.tied with model.output.kind = \"adaptive\" needs model.embedding.kind = \"adaptive\", whose tables are cut \
                  like its clusters"
                .into(),
        };
        Err(Error::config(what))
    }

    /// The layer; `embedding` is what it can be tied to.
    pub(super) fn build(
        &self,
        sizes: OutputSizes,
        (embedding, settings): (&dyn Embedding, &EmbeddingConfig),
        builder: &Builder<'_>,
    ) -> Result<Arc<dyn Output>> {
        let tied = embedding.tied().filter(|_| self.tied);
        Ok(match self.kind {
            OutputKind::Softmax => Arc::new(Softmax::build(sizes, self.by_word, tied, builder)?),
            OutputKind::Mixture => {
                let components = self.components.ok_or_else(needs_components)?;
                Arc::new(Mixture::build(components, sizes, tied, builder)?)
            }
            OutputKind::CharCnn => {
                let EmbeddingConfig::CharCnn(spelled) = settings else {
                    return Err(Error::config(
                        "model.output.kind = \"char-cnn\" needs model.embedding.kind = \"char-cnn\"",
                    ));
                };
                Arc::new(CharCnnSoftmax::build(spelled, self.correction, sizes, builder)?)
            }
            OutputKind::Adaptive => {
                let tied = embedding.clusters().filter(|_| self.tied);
                Arc::new(Adaptive::build(&self.adaptive(sizes.vocabulary), sizes, tied, builder)?)
            }
        })
    }
}
