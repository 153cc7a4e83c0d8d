//! A word vector by two LSTMs over the word's characters: C2W (Ling et al., 2015, arXiv 1508.02096), with the sizes that
//! Vania and Lopez (2017, arXiv 1704.08352) call them by.
//!
//! ```text
//! f = last state of an LSTM over { c_1 … c_m }     b = last state of another one over } c_m … c_1 {
//! e = f W_f + b W_b + bias                         then highway layers, if there are any
//! ```
//!
//! Both begin at the zero state for every word. Words are spelled as those of a char CNN: `{`, the characters, `}`, or the
//! bytes between two marks, and then any string has a vector.
//!
//! Weights, all under `embedding`: `characters` (alphabet, char size); `forward.input.weight` (char size, 4 hidden),
//! `forward.recurrent.weight` (hidden, 4 hidden), `forward.bias` (4 hidden), and again as `backward`, columns of i, o, f, g
//! in this order; `projection.weight` (2 hidden, word size), the rows of W_f first, `projection.bias`.

use super::highway::{self, HighwaySettings, HighwayVariant, Highways};
use super::of_characters::{OfCharacters, WordNetwork};
use super::settings::{EmbeddingSettings, Surroundings};
use super::spelling::{self, Characters, Spelling, SpellingSize};
use super::word_groups::{WordGroup, word_groups};
use crate::error::{Error, Result};
use crate::model::builder::Builder;
use crate::model::config::at_least;
use crate::model::layers::Embedding;
use candle_core::Tensor;
use rhn_kernels::embedding::lookup;
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::{self, HiddenMask, scan};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Two LSTMs over a word's characters, then highway layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CharLstmConfig {
    /// What a word is made of: the characters of the vocabulary, or bytes.
    #[serde(default, skip_serializing_if = "Characters::is_unicode")]
    pub characters: Characters,
    /// The size of a character's vector. Published: 50 (Ling et al.), 200 (Vania and Lopez).
    pub char_size: usize,
    /// Units of each LSTM. Published: 150, 200.
    pub char_hidden: usize,
    /// The size of a word's vector. Published: 50, 200.
    pub word_size: usize,
    /// How many highway layers follow. Published: none.
    #[serde(default)]
    pub highway_layers: usize,
    /// How these mix what they compute with what they receive.
    #[serde(default, skip_serializing_if = "HighwayVariant::is_coupled")]
    pub highway: HighwayVariant,
    /// What is added to their transform gates beside the trained biases, and taken from their carry gates.
    #[serde(default = "highway::transform_bias", skip_serializing_if = "highway::is_usual")]
    pub transform_bias: f64,
    /// Words are cut to this many characters, their two marks included.
    #[serde(default = "spelling::longest_word")]
    pub max_word_length: usize,
    /// What the vocabulary adds; `config.json` has it beside the vocabulary's size.
    #[serde(skip)]
    pub spelling: Option<SpellingSize>,
}

impl CharLstmConfig {
    fn spelled(&self) -> Result<SpellingSize> {
        let missing = || Error::config("a char-lstm embedding needs alphabet_size and word_length");
        self.spelling.filter(|size| size.word_length > 0).ok_or_else(missing)
    }

    fn highway_settings(&self) -> HighwaySettings {
        HighwaySettings {
            layers: self.highway_layers,
            size: self.word_size,
            variant: self.highway,
            transform_bias: self.transform_bias,
        }
    }
}

impl EmbeddingSettings for CharLstmConfig {
    fn size(&self, _around: Surroundings) -> usize {
        self.word_size
    }

    fn validate(&self, around: Surroundings) -> Result<()> {
        if around.tied {
            return Err(Error::config("a char-lstm embedding has no table that the output could be tied to"));
        }
        let sizes =
            [("char_size", self.char_size), ("char_hidden", self.char_hidden), ("word_size", self.word_size)];
        at_least(1, "model.embedding", &sizes)?;
        at_least(3, "model.embedding", &[("max_word_length", self.max_word_length)])?;
        self.highway.validate(self.transform_bias)
    }

    fn validate_vocabulary(&self) -> Result<()> {
        self.spelled().map(drop)
    }

    fn magnitude(&self) -> (Vec<usize>, usize) {
        let mut sizes =
            vec![self.char_size, self.char_hidden.saturating_mul(4), self.max_word_length, self.word_size];
        sizes.extend(self.spelling.iter().flat_map(|size| [size.alphabet_size, size.word_length]));
        (sizes, self.highway_layers)
    }

    fn describe(&self) -> &'static str {
        "char LSTM"
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
        Some(self.highway_settings())
    }

    fn set_highway_layers(&mut self, layers: usize) {
        self.highway_layers = layers;
    }

    fn gate_columns(&self, name: &str) -> Option<Range<usize>> {
        let is_recurrent =
            ["embedding.forward.", "embedding.backward."].iter().any(|lstm| name.starts_with(lstm));
        is_recurrent.then_some(0..3 * self.char_hidden) // g comes last
    }

    fn build(&self, vocab_size: usize, _size: usize, builder: &Builder<'_>) -> Result<Box<dyn Embedding>> {
        let size = self.spelled()?;
        let weights = builder.under("embedding");
        let projection = weights.under("projection");
        let network = CharLstm {
            characters: weights.table("characters", (size.alphabet_size, self.char_size))?,
            forward: Lstm::build(self, &weights.under("forward"))?,
            backward: Lstm::build(self, &weights.under("backward"))?,
            weight: projection.weight("weight", (2 * self.char_hidden, self.word_size))?,
            bias: projection.weight("bias", self.word_size)?,
            highways: Highways::build(self.highway_settings(), &weights)?,
            precision: builder.precision,
        };
        Ok(Box::new(OfCharacters::build(network, vocab_size, size, self.reads_any_string(), builder)?))
    }
}

/// Two LSTMs over the characters of words.
struct CharLstm {
    characters: Tensor,
    forward: Lstm,
    backward: Lstm,
    /// Of the projection of both last states.
    weight: Tensor,
    bias: Tensor,
    highways: Highways,
    precision: Precision,
}

impl WordNetwork for CharLstm {
    const DISTINCT_ON_GPU: bool = true;

    /// The projection of both LSTMs' last states.
    fn features(&self, characters: &Tensor) -> Result<Tensor> {
        // On a GPU a step costs about the same for any number of words: one group has the fewest steps.
        let least = if characters.device().is_cuda() { usize::MAX } else { LEAST_WORDS };
        let groups = word_groups(&characters.to_vec2()?, least);
        let forward = self.forward.of_characters(&self.characters, self.precision)?;
        let backward = self.backward.of_characters(&self.characters, self.precision)?;
        let states = |group: &WordGroup| -> Result<Tensor> {
            let forward = self.forward.last(&forward, group, &group.forward, self.precision)?;
            let backward = self.backward.last(&backward, group, &group.backward, self.precision)?;
            Ok(Tensor::cat(&[forward, backward], 1)?)
        };
        let states = Tensor::cat(&groups.iter().map(states).collect::<Result<Vec<_>>>()?, 0)?;
        let projected = linear(&states, &self.weight, Stored::ByInput, self.precision)?;
        let mut rows = vec![0u32; projected.dim(0)?];
        for (row, &word) in groups.iter().flat_map(|group| &group.words).enumerate() {
            rows[word] = row as u32;
        }
        let rows = Tensor::new(rows, characters.device())?;
        Ok(lookup(&projected, &rows, None)?.broadcast_add(&self.bias)?)
    }

    fn highways(&self) -> &Highways {
        &self.highways
    }

    fn vectors(&self, features: Tensor) -> Result<Tensor> {
        self.highways.forward(features)
    }

    /// Both LSTMs at every character, the projection, the highway layers. A shorter word takes less.
    fn cost(&self, length: usize) -> usize {
        let lstms = 2 * length * self.forward.recurrent.elem_count();
        lstms + self.weight.elem_count() + self.highways.cost()
    }
}

/// Words of a group on a CPU, if there are so many: fewer leave a product's weights in use for too few rows, more would be of
/// more different lengths.
const LEAST_WORDS: usize = 16;

/// One direction.
struct Lstm {
    input: Tensor,
    recurrent: Tensor,
    bias: Tensor,
}

impl Lstm {
    fn build(settings: &CharLstmConfig, weights: &Builder<'_>) -> Result<Self> {
        let hidden = settings.char_hidden;
        Ok(Self {
            input: weights.weight("input.weight", (settings.char_size, 4 * hidden))?,
            recurrent: weights.weight("recurrent.weight", (hidden, 4 * hidden))?,
            bias: weights.weight("bias", 4 * hidden)?,
        })
    }

    /// The products of each character of the alphabet, `(alphabet, char size)` to `(alphabet, 4 hidden)`: there are fewer
    /// characters than positions.
    fn of_characters(&self, characters: &Tensor, precision: Precision) -> Result<Tensor> {
        Ok(linear(characters, &self.input, Stored::ByInput, precision)?)
    }

    /// The states after the last character of each word, `(words, hidden)`, from [`Lstm::of_characters`]; `characters` are the
    /// group's in the order in which they are read, `(time, words)`.
    fn last(
        &self,
        products: &Tensor,
        group: &WordGroup,
        characters: &[u32],
        precision: Precision,
    ) -> Result<Tensor> {
        let device = products.device();
        let words = group.words.len();
        let characters = Tensor::from_slice(characters, (group.time, words), device)?;
        let projected = lookup(products, &characters, None)?;
        let zero = Tensor::zeros((words, self.recurrent.dim(0)?), products.dtype(), device)?;
        let state = [zero.clone(), zero];
        let Self { recurrent, bias, .. } = self;
        let (ys, state) =
            scan::<scan::Lstm>(&projected, recurrent, bias, &state, &HiddenMask::None, precision)?;
        match &group.last {
            None => Ok(state[0].clone()),
            Some(last) => {
                let rows = Tensor::from_slice(last, words, device)?;
                Ok(lookup(&ys.flatten(0, 1)?, &rows, None)?)
            }
        }
    }
}
