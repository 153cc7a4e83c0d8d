//! `[model]` of a recipe, and `config.json` of a checkpoint: all that fixes the weights' shapes.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

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
}

/// How a token becomes a vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EmbeddingConfig {
    /// One trained vector a type.
    Word(WordEmbeddingConfig),
    /// A convolution over the type's letters (Kim et al., 2016).
    CharCnn(CharCnnConfig),
}

/// One trained vector a type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordEmbeddingConfig {
    /// The vector's size. Unless given: the hidden size, or the vocabulary's if that is smaller and the output untied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
}

/// A convolution over a type's letters, then highway layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CharCnnConfig {
    /// The size of a letter's vector.
    pub char_size: usize,
    /// How many letters each group of filters sees.
    pub filter_widths: Vec<usize>,
    /// How many filters each group has.
    pub filter_counts: Vec<usize>,
    /// How many highway layers follow.
    pub highway_layers: usize,
    /// Words are cut to this many letters, their two marks included.
    #[serde(default = "longest_word")]
    pub max_word_length: usize,
    /// Project the word vector to this size; unless given it keeps one value a filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub word_size: Option<usize>,
}

impl CharCnnConfig {
    /// Filters of all widths; as many as there can be where the counts are beyond that.
    fn filters(&self) -> usize {
        self.filter_counts.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// Every size that it has.
    fn sizes(&self) -> impl Iterator<Item = usize> {
        let others = [self.char_size, self.max_word_length, self.filters(), self.word_size.unwrap_or(0)];
        others.into_iter().chain(self.filter_widths.iter().copied())
    }
}

fn longest_word() -> usize {
    65 // the default of Kim et al.'s code
}

/// What carries the state from token to token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum CoreConfig {
    /// Recurrent highway network (Zilly et al., 2017).
    Rhn(RhnConfig),
    /// Long short-term memory.
    Lstm(LstmConfig),
}

/// Recurrent highway network with coupled gates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RhnConfig {
    /// Stacked layers.
    #[serde(default = "one")]
    pub layers: usize,
    /// Units of the state.
    pub hidden_size: usize,
    /// Highway sublayers a time step, L.
    pub recurrence_depth: usize,
    /// The transform gates' first bias.
    #[serde(default = "minus_two")]
    pub transform_bias: f64,
}

/// Long short-term memory with two bias vectors and no forget-gate boost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LstmConfig {
    /// Stacked layers.
    #[serde(default = "one")]
    pub layers: usize,
    /// Units of the state.
    pub hidden_size: usize,
}

fn one() -> usize {
    1
}

fn minus_two() -> f64 {
    -2.0
}

impl CoreConfig {
    /// Units of the state that the output sees.
    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Rhn(core) => core.hidden_size,
            Self::Lstm(core) => core.hidden_size,
        }
    }

    /// Stacked layers.
    pub fn layers(&self) -> usize {
        match self {
            Self::Rhn(core) => core.layers,
            Self::Lstm(core) => core.layers,
        }
    }
}

/// How the state becomes a distribution over the next token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// Use the embedding as the output's weights.
    #[serde(default)]
    pub tied: bool,
}

/// `config.json`: a `ModelSpec` and what the corpus added to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Always `rhn`: the family of models, as other tools name it.
    pub model_type: String,
    /// Types that the model knows.
    pub vocab_size: usize,
    /// For `char-cnn`: different letters, the blank and the marks included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alphabet_size: Option<usize>,
    /// For `char-cnn`: letters of the longest word, its two marks included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub word_length: Option<usize>,
    /// The recipe's part.
    #[serde(flatten)]
    pub spec: ModelSpec,
}

/// What `model_type` says in every `config.json` that this program writes.
pub const MODEL_TYPE: &str = "rhn";

impl ModelConfig {
    /// The model that `spec` gives for a vocabulary without letters.
    pub fn new(spec: ModelSpec, vocab_size: usize) -> Self {
        Self { model_type: MODEL_TYPE.into(), vocab_size, alphabet_size: None, word_length: None, spec }
    }

    /// The size of the vector that enters the core.
    pub fn embedding_size(&self) -> usize {
        match &self.spec.embedding {
            EmbeddingConfig::CharCnn(cnn) => cnn.word_size.unwrap_or_else(|| cnn.filters()),
            EmbeddingConfig::Word(word) => word.size.unwrap_or_else(|| {
                let hidden = self.spec.core.hidden_size();
                if self.spec.output.tied { hidden } else { hidden.min(self.vocab_size) }
            }),
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
            return wrong(format!("a vocabulary of {} types leaves nothing to predict", self.vocab_size));
        }
        if core.hidden_size() == 0 || core.layers() == 0 || self.embedding_size() == 0 {
            return wrong("hidden_size, layers and the embedding's size must be at least 1".into());
        }
        if let CoreConfig::Rhn(rhn) = core
            && (rhn.recurrence_depth == 0 || !rhn.transform_bias.is_finite())
        {
            return wrong("recurrence_depth must be at least 1 and transform_bias finite".into());
        }
        match &self.spec.embedding {
            EmbeddingConfig::Word(_) => {
                if self.spec.output.tied && self.embedding_size() != core.hidden_size() {
                    return wrong(format!(
                        "a tied output needs an embedding of the hidden size: {} is not {}",
                        self.embedding_size(),
                        core.hidden_size()
                    ));
                }
            }
            EmbeddingConfig::CharCnn(cnn) => self.validate_char_cnn(cnn)?,
        }
        self.validate_magnitude()
    }

    /// Refuses a model whose words cannot be spelled: to be asked once the vocabulary's letters are known.
    pub fn validate_spelling(&self) -> Result<()> {
        let EmbeddingConfig::CharCnn(cnn) = &self.spec.embedding else { return Ok(()) };
        let (Some(_), Some(length)) = (self.alphabet_size, self.word_length) else {
            return Err(Error::config("a char-cnn embedding needs alphabet_size and word_length"));
        };
        match cnn.filter_widths.iter().find(|&&width| width > length) {
            None => Ok(()),
            Some(width) => Err(Error::config(format!(
                "a filter of width {width} is wider than the longest word with its marks, {length}"
            ))),
        }
    }

    fn validate_char_cnn(&self, cnn: &CharCnnConfig) -> Result<()> {
        if self.spec.output.tied {
            return Err(Error::config("a char-cnn embedding has no table that the output could be tied to"));
        }
        let widths = &cnn.filter_widths;
        if widths.is_empty() || widths.len() != cnn.filter_counts.len() {
            return Err(Error::config(format!(
                "filter_widths has {} entries and filter_counts {}: each width needs one count",
                widths.len(),
                cnn.filter_counts.len()
            )));
        }
        if cnn.char_size == 0
            || cnn.max_word_length < 3
            || widths.contains(&0)
            || cnn.filter_counts.contains(&0)
        {
            return Err(Error::config(
                "char_size, filter_widths and filter_counts must be at least 1, max_word_length at least 3",
            ));
        }
        Ok(())
    }

    /// Sizes so large that counting the weights would overflow, or that listing them would take memory, are refused
    /// here, before anything is allocated.
    fn validate_magnitude(&self) -> Result<()> {
        const LARGEST: usize = 1 << 24;
        const MOST_LAYERS: usize = 1 << 12;
        let core = &self.spec.core;
        let depth = if let CoreConfig::Rhn(rhn) = core { rhn.recurrence_depth } else { 1 };
        let (cnn, highway_layers) = match &self.spec.embedding {
            EmbeddingConfig::Word(_) => (None, 0),
            EmbeddingConfig::CharCnn(cnn) => (Some(cnn), cnn.highway_layers.max(cnn.filter_widths.len())),
        };
        let spelling = [self.alphabet_size, self.word_length].into_iter().flatten();
        let sizes = [self.vocab_size, core.hidden_size(), core.layers(), depth, self.embedding_size()];
        let mut sizes =
            sizes.into_iter().chain(spelling).chain(cnn.into_iter().flat_map(CharCnnConfig::sizes));
        let weights = [8, core.layers(), depth, core.hidden_size(), core.hidden_size()]
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size))
            .filter(|&weights| weights < 1 << 38);
        if sizes.any(|size| size > LARGEST) || weights.is_none() {
            return Err(Error::config("these sizes make a model that fits no machine's memory"));
        }
        match core.layers().max(highway_layers) {
            layers if layers > MOST_LAYERS => {
                Err(Error::config(format!("{layers} layers are too many, at most {MOST_LAYERS} are built")))
            }
            _ => Ok(()),
        }
    }
}
