//! The character-aware word vector (Kim et al., 2016): convolutions over letters, maximum over time, highway layers.
//!
//! ```text
//! f_w = tanh(max over time of conv_w(letters) + b_w)      y = all widths side by side, then the highway layers
//! ```
//!
//! The maximum is taken before the tanh, which rises everywhere: the same value and gradient, with 1/length of
//! the work. A word is `{`, its characters and `}`, padded with a blank whose vector is zero and stays so.

use super::builder::Builder;
use super::highway::Highway;
use crate::config::model::CharCnnConfig;
use crate::error::{Error, Result};
use crate::ops::linear::{Stored, linear};
use crate::ops::precision::Precision;
use candle_core::{D, Tensor};

pub(super) struct CharCnn {
    characters: Tensor,
    spelling: Tensor,
    filters: Vec<Filters>,
    highways: Vec<Highway>,
    projection: Option<(Tensor, Tensor)>,
    char_size: usize,
    precision: Precision,
}

/// The filters of one width.
struct Filters {
    width: usize,
    weight: Tensor,
    bias: Tensor,
    precision: Precision,
}

impl CharCnn {
    /// `letters`: how many there are, the blank included; `word_length`: of the padded word.
    pub(super) fn build(
        config: &CharCnnConfig,
        vocab_size: usize,
        letters: usize,
        word_length: usize,
        builder: &Builder<'_>,
    ) -> Result<Self> {
        if let Some(width) = config.filter_widths.iter().find(|&&width| width > word_length) {
            return Err(Error::config(format!(
                "a filter of width {width} is wider than the longest word with its marks, {word_length}"
            )));
        }
        let blank_is_zero = |index: usize, uniform: f64| if index < config.char_size { 0.0 } else { uniform };
        let groups = config.filter_widths.iter().zip(&config.filter_counts).enumerate();
        let size: usize = config.filter_counts.iter().sum();
        Ok(Self {
            characters: builder.weight_with(
                "embedding.characters",
                (letters, config.char_size),
                blank_is_zero,
            )?,
            spelling: builder.fixed("embedding.spelling", (vocab_size, word_length))?,
            filters: groups
                .map(|(i, (&width, &count))| Filters::build(i, width, count, config.char_size, builder))
                .collect::<Result<_>>()?,
            highways: (0..config.highway_layers)
                .map(|i| Highway::build(size, &format!("embedding.highway.{i}"), builder))
                .collect::<Result<_>>()?,
            projection: match config.word_size {
                None => None,
                Some(word_size) => Some((
                    builder.weight("embedding.projection.weight", (size, word_size))?,
                    builder.weight("embedding.projection.bias", word_size)?,
                )),
            },
            char_size: config.char_size,
            precision: builder.precision(),
        })
    }

    pub(super) fn device(&self) -> candle_core::Device {
        self.spelling.device().clone()
    }

    /// Vectors of the words `ids` (u32): `(words)` to `(words, size)`.
    pub(super) fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let letters = self.spelling.index_select(ids, 0)?;
        let (words, length) = letters.dims2()?;
        let blank = Tensor::zeros((1, self.char_size), self.characters.dtype(), self.characters.device())?;
        let characters =
            Tensor::cat(&[&blank, &self.characters.narrow(0, 1, self.characters.dim(0)? - 1)?], 0)?;
        let vectors = characters.index_select(&letters.flatten_all()?, 0)?;
        let vectors = vectors.reshape((words, length, self.char_size))?;
        let features: Vec<_> = self.filters.iter().map(|f| f.forward(&vectors)).collect::<Result<_>>()?;
        let mut y = Tensor::cat(&features, 1)?;
        for highway in &self.highways {
            y = highway.forward(&y)?;
        }
        match &self.projection {
            None => Ok(y),
            Some((weight, bias)) => {
                Ok(linear(&y, weight, Stored::ByInput, self.precision)?.broadcast_add(bias)?)
            }
        }
    }
}

impl Filters {
    fn build(i: usize, width: usize, count: usize, char_size: usize, builder: &Builder<'_>) -> Result<Self> {
        Ok(Self {
            width,
            weight: builder.weight(&format!("embedding.conv.{i}.weight"), (width * char_size, count))?,
            bias: builder.weight(&format!("embedding.conv.{i}.bias"), count)?,
            precision: builder.precision(),
        })
    }

    /// `(words, length, char size)` to `(words, count)`.
    fn forward(&self, vectors: &Tensor) -> Result<Tensor> {
        let (words, length, char_size) = vectors.dims3()?;
        let places = length - self.width + 1;
        let shifted: Vec<_> = (0..self.width)
            .map(|offset| vectors.narrow(1, offset, places))
            .collect::<std::result::Result<_, _>>()?;
        let windows = Tensor::cat(&shifted, 2)?.reshape((words * places, self.width * char_size))?;
        let responses =
            linear(&windows, &self.weight, Stored::ByInput, self.precision)?.reshape((words, places, ()))?;
        let responses = responses.transpose(1, 2)?.contiguous()?;
        // By index, so that of equal maxima one receives the gradient.
        let best = responses.detach().argmax_keepdim(D::Minus1)?;
        let highest = responses.gather(&best, D::Minus1)?.squeeze(D::Minus1)?;
        Ok(highest.broadcast_add(&self.bias)?.tanh()?)
    }
}
