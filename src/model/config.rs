//! `[model]` of a recipe, and `config.json` of a checkpoint: all that fixes the weights' shapes.

use super::classifier::ClassifierConfig;
use super::core::CoreConfig;
use super::embedding::spelling::SpellingSize;
use super::embedding::{EmbeddingConfig, Surroundings};
use super::latent::LatentConfig;
use super::output::{OutputConfig, OutputSizes};
use crate::error::{Error, Result};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// `[model]` of a recipe: everything about the model that does not come from the corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// How a token becomes a vector.
    pub embedding: EmbeddingConfig,
    /// What carries the state from token to token.
    pub core: CoreConfig,
    /// How the state becomes a distribution over the next token.
    #[serde(default)]
    pub output: OutputConfig,
    /// The vector between an encoder and this model, which is then the decoder of a sentence VAE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latent: Option<LatentConfig>,
    /// The encoder's core, if it is not like `core`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<CoreConfig>,
    /// How the states of a sentence become its label, in place of an output layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier: Option<ClassifierConfig>,
}

/// Refuses sizes of the table `section` that are below `least`.
pub(in crate::model) fn at_least(least: usize, section: &str, sizes: &[(&str, usize)]) -> Result<()> {
    match sizes.iter().find(|(_, size)| *size < least) {
        None => Ok(()),
        Some((key, size)) => Err(Error::config(format!("{section}.{key} is {size}, wanted {least} or more"))),
    }
}

/// What `model_type` says in every `config.json` that this program writes.
pub const MODEL_TYPE: &str = "rhn";

/// A `ModelSpec` and what the corpus added to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "ConfigFile", into = "ConfigFile")]
pub struct ModelConfig {
    /// Always `rhn`: the family of models, as other tools name it.
    pub model_type: String,
    /// The size of the vocabulary.
    pub vocab_size: usize,
    /// Whether its words are known to go by falling frequency in the training text, which an adaptive softmax and sampled
    /// losses depend on.
    pub sorted_by_frequency: bool,
    /// The recipe's part.
    pub spec: ModelSpec,
}

/// `config.json` as it is written and read.
#[derive(Serialize, Deserialize)]
struct ConfigFile {
    model_type: String,
    vocab_size: usize,
    /// For an embedding that reads characters: how many there are, the blank and the marks included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alphabet_size: Option<usize>,
    /// For the same: characters of the longest word, its two marks included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    word_length: Option<usize>,
    /// Whether the vocabulary is known to go by falling frequency.
    #[serde(default, skip_serializing_if = "is_false")]
    sorted_by_frequency: bool,
    #[serde(flatten)]
    spec: ModelSpec,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl From<ConfigFile> for ModelConfig {
    fn from(file: ConfigFile) -> Self {
        let ConfigFile { model_type, vocab_size, alphabet_size, word_length, sorted_by_frequency, spec } =
            file;
        let mut config = Self { model_type, vocab_size, sorted_by_frequency, spec };
        if let (Some(alphabet_size), Some(word_length)) = (alphabet_size, word_length) {
            config.set_spelling(SpellingSize { alphabet_size, word_length });
        }
        config
    }
}

impl From<ModelConfig> for ConfigFile {
    fn from(config: ModelConfig) -> Self {
        let spelling = config.spec.embedding.settings().spelling();
        Self {
            model_type: config.model_type,
            vocab_size: config.vocab_size,
            alphabet_size: spelling.map(|size| size.alphabet_size),
            word_length: spelling.map(|size| size.word_length),
            sorted_by_frequency: config.sorted_by_frequency,
            spec: config.spec,
        }
    }
}

impl ModelConfig {
    /// The model that `spec` gives for a vocabulary whose spelling does not matter.
    pub fn new(mut spec: ModelSpec, vocab_size: usize) -> Self {
        spec.output.settle(vocab_size);
        Self { model_type: MODEL_TYPE.into(), vocab_size, sorted_by_frequency: false, spec }
    }

    /// The model that `spec` gives for a vocabulary of `words`, and its tables of indices by name.
    pub fn for_words(spec: ModelSpec, words: &[String]) -> Result<(Self, BTreeMap<String, Tensor>)> {
        let mut config = Self::new(spec, words.len());
        let tables = config.spec.embedding.settings_mut().set_words(words)?;
        Ok((config, tables))
    }

    /// Takes the sizes that follow from the vocabulary's spelling, if the embedding reads characters.
    pub fn set_spelling(&mut self, size: SpellingSize) {
        self.spec.embedding.settings_mut().set_spelling(size);
    }

    /// The size of the vector that enters the core.
    pub fn embedding_size(&self) -> usize {
        self.spec.embedding.settings().size(self.around_embedding())
    }

    /// The size of what enters the core at a time step: a word's vector, and the latent vector where it stands beside it.
    pub(super) fn core_input_size(&self) -> usize {
        self.embedding_size() + self.spec.latent.as_ref().map_or(0, LatentConfig::input_size)
    }

    /// Whether words that the vocabulary lacks have vectors too.
    pub fn reads_any_string(&self) -> bool {
        self.spec.embedding.settings().reads_any_string()
    }

    /// Pixels of an image, if the model reads images.
    pub fn pixels(&self) -> Option<usize> {
        match &self.spec.embedding {
            EmbeddingConfig::Pixels(embedding) => Some(embedding.pixels),
            _ => None,
        }
    }

    /// The sizes that the output layer has to fit.
    pub(super) fn output_sizes(&self) -> OutputSizes {
        OutputSizes {
            hidden: self.spec.core.hidden_size(),
            embedding: self.embedding_size(),
            vocabulary: self.vocab_size,
        }
    }

    fn around_embedding(&self) -> Surroundings {
        Surroundings {
            vocab_size: self.vocab_size,
            hidden_size: self.spec.core.hidden_size(),
            tied: self.spec.output.tied,
            ties_hidden_size: self.spec.output.ties_hidden_size(),
        }
    }

    /// Refuses sizes that no model can have.
    pub fn validate(&self) -> Result<()> {
        let core = &self.spec.core;
        let wrong = |what: String| Err(Error::config(what));
        if self.model_type != MODEL_TYPE {
            return wrong(format!("model_type is {:?}, wanted {MODEL_TYPE:?}", self.model_type));
        }
        if self.vocab_size < 2 {
            return wrong(format!("a vocabulary of {} leaves nothing to predict", self.vocab_size));
        }
        core.settings().validate()?;
        if core.hidden_size() == 0 || core.layers() == 0 || self.embedding_size() == 0 {
            let sizes = [("hidden_size", core.hidden_size()), ("layers", core.layers())];
            at_least(1, "model.core", &sizes)?;
            return wrong("model.embedding gives vectors of size 0, wanted 1 or more".into());
        }
        if matches!(core, CoreConfig::FeedForward(_))
            != matches!(self.spec.embedding, EmbeddingConfig::Pixels(_))
        {
            return wrong("pixels are for a feed-forward core, and such a core is for pixels alone".into());
        }
        self.validate_latent()?;
        match &self.spec.classifier {
            Some(classifier) => classifier.validate(&self.spec)?,
            None => {
                self.spec.output.validate(self.output_sizes())?;
                self.spec.output.validate_beside(&self.spec.embedding, self.output_sizes())?;
            }
        }
        self.spec.embedding.settings().validate(self.around_embedding())?;
        self.validate_magnitude()
    }

    /// Refuses what cannot be the encoder or the decoder of a sentence VAE.
    fn validate_latent(&self) -> Result<()> {
        let ModelSpec { core, latent, encoder, .. } = &self.spec;
        let Some(latent) = latent else {
            return match encoder {
                None => Ok(()),
                Some(_) => {
                    Err(Error::config("[model.encoder] is for a sentence VAE, which has a [model.latent]"))
                }
            };
        };
        latent.validate()?;
        let encoder = encoder.as_ref().unwrap_or(core);
        for (side, core) in [("decoder, [model.core]", core), ("encoder, [model.encoder]", encoder)] {
            if matches!(core, CoreConfig::FeedForward(_)) || core.hidden_size() == 0 || core.layers() == 0 {
                return Err(Error::config(format!(
                    "the {side}, of a sentence VAE must be a recurrent core with layers of at least one unit; it is {core}"
                )));
            }
            core.settings().validate()?;
        }
        Ok(())
    }

    /// Refuses a model that does not fit its vocabulary: to be asked once the words are known.
    pub fn validate_spelling(&self) -> Result<()> {
        self.spec.embedding.settings().validate_vocabulary()
    }

    /// Sizes so large that counting the weights would overflow, or that listing them would take memory, are refused
    /// here, before anything is allocated.
    fn validate_magnitude(&self) -> Result<()> {
        const LARGEST: usize = 1 << 24;
        const MOST_LAYERS: usize = 1 << 12;
        let core = &self.spec.core;
        let encoder = self.spec.encoder.as_ref().unwrap_or(core);
        let hidden = core.settings().widest().max(encoder.settings().widest());
        let layers = core.layers().max(encoder.layers());
        let depth = core.settings().depth().max(encoder.settings().depth());
        let (mut sizes, embedding_layers) = self.spec.embedding.settings().magnitude();
        let components = self.spec.output.component_count().unwrap_or(1);
        sizes.push(components.saturating_mul(self.embedding_size()));
        sizes.extend([self.vocab_size, hidden, layers, depth, self.embedding_size()]);
        sizes.extend(self.spec.classifier.iter().filter_map(|classifier| classifier.attention_size));
        let weights = [8, layers, depth, hidden, hidden]
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size))
            .filter(|&weights| weights < 1 << 38);
        if sizes.iter().any(|&size| size > LARGEST) || weights.is_none() {
            return Err(Error::config("these sizes make a model that fits no machine's memory"));
        }
        let layers = layers.max(embedding_layers);
        if layers > MOST_LAYERS {
            return Err(Error::config(format!(
                "{layers} layers are too many, at most {MOST_LAYERS} are built"
            )));
        }
        Ok(())
    }
}

impl Display for ModelConfig {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ModelSpec { embedding, core, output, latent, encoder, classifier } = &self.spec;
        let kind = embedding.settings().describe();
        write!(f, "{core}; embedding: {kind} of size {}; ", self.embedding_size())?;
        match classifier {
            Some(classifier) => write!(f, "classifier: {classifier}")?,
            None => write!(f, "output: {}", output.describe())?,
        }
        let Some(latent) = latent else { return Ok(()) };
        let directions = if latent.bidirectional { ", in both directions" } else { "" };
        write!(f, "; {latent}; encoder: {}{directions}", encoder.as_ref().unwrap_or(core))
    }
}
