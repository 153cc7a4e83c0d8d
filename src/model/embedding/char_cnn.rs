//! The character-aware word vector (Kim et al., 2016): convolutions over characters, maximum over time, highway layers.
//!
//! ```text
//! f_w = max over time of tanh(conv_w(characters) + b_w)   y = all widths side by side, then the highway layers
//! ```
//!
//! A word is `{`, its characters and `}`, padded with a blank whose vector is zero and stays so; or its bytes between two marks,
//! and then any string has a vector, in the vocabulary or not (Józefowicz et al., 2016, arXiv 1602.02410, section 3.1).

use super::highway::{self, HighwaySettings, HighwayVariant, Highways};
use super::of_characters::{OfCharacters, WordNetwork};
use super::settings::{EmbeddingSettings, Surroundings};
use super::spelling::{self, Characters, Spelling, SpellingSize};
use crate::error::{Error, Result};
use crate::model::builder::Builder;
use crate::model::config::at_least;
use crate::model::layers::Embedding;
use candle_core::Tensor;
use rhn_kernels::char_cnn::{self, Filters};
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;
use serde::{Deserialize, Serialize};

/// A convolution over a word's characters, then highway layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CharCnnConfig {
    /// What a word is made of: the characters of the vocabulary, or bytes.
    #[serde(default, skip_serializing_if = "Characters::is_unicode")]
    pub characters: Characters,
    /// The size of a character's vector.
    pub char_size: usize,
    /// How many characters each group of filters sees.
    pub filter_widths: Vec<usize>,
    /// How many filters each group has.
    pub filter_counts: Vec<usize>,
    /// How many highway layers follow.
    pub highway_layers: usize,
    /// How these mix what they compute with what they receive.
    #[serde(default, skip_serializing_if = "HighwayVariant::is_coupled")]
    pub highway: HighwayVariant,
    /// What is added to their transform gates beside the trained biases, and taken from their carry gates.
    #[serde(default = "highway::transform_bias", skip_serializing_if = "highway::is_usual")]
    pub transform_bias: f64,
    /// Words are cut to this many characters, their two marks included. Published over bytes: 50.
    #[serde(default = "spelling::longest_word")]
    pub max_word_length: usize,
    /// Project the word vector to this size; unless given it keeps one value a filter. Recipes may call it `projection`.
    #[serde(default, alias = "projection", skip_serializing_if = "Option::is_none")]
    pub word_size: Option<usize>,
    /// What the vocabulary adds; `config.json` has it beside the vocabulary's size.
    #[serde(skip)]
    pub spelling: Option<SpellingSize>,
    /// Highway layers of an output that is such a network too, where a study has changed those of the embedding alone.
    #[serde(skip)]
    pub output_layers: Option<usize>,
}

impl CharCnnConfig {
    /// Filters of all widths; as many as there can be where the counts are beyond that.
    pub(in crate::model) fn filters(&self) -> usize {
        self.filter_counts.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// How the vocabulary is spelled, if each filter fits into a word.
    fn spelled(&self) -> Result<SpellingSize> {
        let Some(size) = self.spelling else {
            return Err(Error::config("a char-cnn embedding needs alphabet_size and word_length"));
        };
        match self.filter_widths.iter().find(|&&width| width > size.word_length) {
            None => Ok(size),
            Some(width) => Err(Error::config(format!(
                "a filter of width {width} is wider than the longest word with its marks, {}",
                size.word_length
            ))),
        }
    }
}

impl EmbeddingSettings for CharCnnConfig {
    fn size(&self, _around: Surroundings) -> usize {
        self.word_size.unwrap_or_else(|| self.filters())
    }

    fn validate(&self, around: Surroundings) -> Result<()> {
        if around.tied {
            return Err(Error::config("a char-cnn embedding has no table that the output could be tied to"));
        }
        let widths = &self.filter_widths;
        let counts = &self.filter_counts;
        if widths.is_empty() || widths.len() != counts.len() {
            return Err(Error::config(format!(
                "model.embedding.filter_widths has {} entries and filter_counts {}: each width needs one count",
                widths.len(),
                counts.len()
            )));
        }
        at_least(1, "model.embedding", &[("char_size", self.char_size)])?;
        at_least(3, "model.embedding", &[("max_word_length", self.max_word_length)])?;
        if widths.contains(&0) || counts.contains(&0) {
            return Err(Error::config(
                "model.embedding.filter_widths and filter_counts have a 0, wanted 1 or more each",
            ));
        }
        self.highway.validate(self.transform_bias)
    }

    fn validate_vocabulary(&self) -> Result<()> {
        self.spelled().map(drop)
    }

    fn magnitude(&self) -> (Vec<usize>, usize) {
        let mut sizes = self.filter_widths.clone();
        sizes.extend([self.char_size, self.max_word_length, self.filters(), self.word_size.unwrap_or(0)]);
        sizes.extend(self.spelling.iter().flat_map(|size| [size.alphabet_size, size.word_length]));
        (sizes, self.highway_layers.max(self.filter_widths.len()))
    }

    fn describe(&self) -> &'static str {
        "char CNN"
    }

    fn spelling(&self) -> Option<SpellingSize> {
        self.spelling
    }

    fn set_spelling(&mut self, size: SpellingSize) {
        self.spelling = Some(size);
    }

    fn reads_any_string(&self) -> bool {
        self.characters == Characters::Bytes
    }

    fn spell(&self, words: &[String]) -> Result<Option<Spelling>> {
        self.characters.spell(words, self.max_word_length).map(Some)
    }

    fn highways(&self) -> Option<HighwaySettings> {
        Some(HighwaySettings {
            layers: self.highway_layers,
            size: self.filters(),
            variant: self.highway,
            transform_bias: self.transform_bias,
        })
    }

    fn set_highway_layers(&mut self, layers: usize) {
        self.output_layers.get_or_insert(self.highway_layers);
        self.highway_layers = layers;
    }

    fn build(&self, vocab_size: usize, _size: usize, builder: &Builder<'_>) -> Result<Box<dyn Embedding>> {
        Ok(Box::new(self.cnn("embedding", true, vocab_size, builder)?))
    }
}

impl CharCnnConfig {
    /// The network of part `part` of the model; the words' characters are those of the embedding. A projection has biases
    /// if `has_bias`.
    pub(in crate::model) fn cnn(
        &self,
        part: &str,
        has_bias: bool,
        vocab_size: usize,
        builder: &Builder<'_>,
    ) -> Result<CharCnn> {
        let size = self.spelled()?;
        let alphabet_size = size.alphabet_size;
        let char_size = self.char_size;
        let blank_is_zero = |index: usize, uniform: f64| if index < char_size { 0.0 } else { uniform };
        let groups = self.filter_widths.iter().zip(&self.filter_counts).enumerate();
        let weights = builder.under(part);
        let filters = |(i, (&width, &count)): (usize, (&usize, &usize))| {
            let weights = weights.under(&format!("conv.{i}"));
            let weight = weights.weight("weight", (width * char_size, count))?;
            Ok(Filters { width, weight, bias: weights.weight("bias", count)? })
        };
        let highways = self.highways().expect("a char CNN may have highway layers");
        let projection = |size| -> Result<(Tensor, Option<Tensor>)> {
            let weights = weights.under("projection");
            let weight = weights.weight("weight", (self.filters(), size))?;
            Ok((weight, has_bias.then(|| weights.weight("bias", size)).transpose()?))
        };
        let network = Cnn {
            characters: weights.table_with("characters", (alphabet_size, char_size), blank_is_zero)?,
            filters: groups.map(filters).collect::<Result<_>>()?,
            highways: Highways::build(highways, &weights)?,
            projection: self.word_size.map(projection).transpose()?,
            precision: builder.precision,
        };
        OfCharacters::build(network, vocab_size, size, self.reads_any_string(), builder)
    }
}

/// Vectors of words that filters over their characters compute.
pub(in crate::model) type CharCnn = OfCharacters<Cnn>;

/// Filters over the characters of a word.
pub(in crate::model) struct Cnn {
    characters: Tensor,
    filters: Vec<Filters>,
    highways: Highways,
    projection: Option<(Tensor, Option<Tensor>)>,
    precision: Precision,
}

impl WordNetwork for Cnn {
    /// To find them would be to wait for the device, longer than to compute some twice.
    const DISTINCT_ON_GPU: bool = false;

    /// What the filters give.
    fn features(&self, characters: &Tensor) -> Result<Tensor> {
        Ok(char_cnn::features(characters, &self.characters, &self.filters, self.precision)?)
    }

    fn highways(&self) -> &Highways {
        &self.highways
    }

    /// The highway layers and the projection.
    fn vectors(&self, features: Tensor) -> Result<Tensor> {
        let y = self.highways.forward(features)?;
        let Some((weight, bias)) = &self.projection else { return Ok(y) };
        let projected = linear(&y, weight, Stored::ByInput, self.precision)?;
        Ok(match bias {
            None => projected,
            Some(bias) => projected.broadcast_add(bias)?,
        })
    }

    /// Every filter at every position, the highway layers, the projection.
    fn cost(&self, length: usize) -> usize {
        let convolution = |filters: &Filters| (length + 1 - filters.width) * filters.weight.elem_count();
        let convolutions: usize = self.filters.iter().map(convolution).sum();
        let projection = self.projection.as_ref().map_or(0, |(weight, _)| weight.elem_count());
        convolutions + self.highways.cost() + projection
    }
}
