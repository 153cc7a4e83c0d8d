//! The character-aware word vector (Kim et al., 2016): convolutions over letters, maximum over time, highway layers.
//!
//! ```text
//! f_w = max over time of tanh(conv_w(letters) + b_w)      y = all widths side by side, then the highway layers
//! ```
//!
//! A word is `{`, its characters and `}`, padded with a blank whose vector is zero and stays so.

use super::builder::Builder;
use super::highway::Highway;
use crate::config::model::CharCnnConfig;
use crate::error::{Error, Result};
use candle_core::Tensor;
use rhn_kernels::char_cnn::{self, Filters};
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;

pub(super) struct CharCnn {
    characters: Tensor,
    spelling: Tensor,
    filters: Vec<Filters>,
    highways: Vec<Highway>,
    projection: Option<(Tensor, Tensor)>,
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
                .map(|(i, (&width, &count))| filters(i, width, count, config.char_size, builder))
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
            precision: builder.precision(),
        })
    }

    pub(super) fn device(&self) -> candle_core::Device {
        self.spelling.device().clone()
    }

    /// Vectors of the words `ids` (u32): `(words)` to `(words, size)`.
    pub(super) fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let letters = self.spelling.index_select(ids, 0)?;
        let mut y = char_cnn::features(&letters, &self.characters, &self.filters, self.precision)?;
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

fn filters(i: usize, width: usize, count: usize, char_size: usize, builder: &Builder<'_>) -> Result<Filters> {
    let name = |part: &str| format!("embedding.conv.{i}.{part}");
    let weight = builder.weight(&name("weight"), (width * char_size, count))?;
    Ok(Filters { width, weight, bias: builder.weight(&name("bias"), count)? })
}
