//! From tokens to vectors, by a table or by letters.

use super::builder::Builder;
use super::char_cnn::CharCnn;
use crate::config::{EmbeddingConfig, ModelConfig};
use crate::error::{Error, Result};
use candle_core::Tensor;
use rhn_kernels::embedding::lookup;
use rhn_kernels::profile::{self, Part};
use std::collections::HashMap;

pub(super) enum Embedding {
    /// `(vocabulary, size)`.
    Table(Tensor),
    Letters(Box<CharCnn>),
}

impl Embedding {
    pub(super) fn build(config: &ModelConfig, builder: &Builder<'_>) -> Result<Self> {
        Ok(match &config.spec.embedding {
            EmbeddingConfig::Word(_) => {
                let shape = (config.vocab_size, config.embedding_size());
                Self::Table(builder.weight("embedding.weight", shape)?)
            }
            EmbeddingConfig::CharCnn(cnn) => {
                let lacks = |what| Error::config(format!("a char-cnn embedding needs {what} in config.json"));
                let letters = config.alphabet_size.ok_or_else(|| lacks("alphabet_size"))?;
                let length = config.word_length.ok_or_else(|| lacks("word_length"))?;
                Self::Letters(Box::new(CharCnn::build(cnn, config.vocab_size, letters, length, builder)?))
            }
        })
    }

    /// `(time, batch)` of u32 to `(time, batch, size)`.
    pub(super) fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        profile::enter(Part::EmbeddingForward);
        let (time, batch) = tokens.dims2()?;
        let flat = tokens.flatten_all()?;
        let vectors = match self {
            Self::Table(table) => lookup(table, &flat, None)?,
            // To find the different words would be to wait for the device, longer than to compute some twice.
            Self::Letters(cnn) if tokens.device().is_cuda() => cnn.forward(&flat)?,
            Self::Letters(cnn) => {
                let (distinct, places) = distinct(&flat.to_vec1::<u32>()?);
                let vectors = cnn.forward(&Tensor::new(distinct, tokens.device())?)?;
                vectors.index_select(&Tensor::new(places, tokens.device())?, 0)?
            }
        };
        Ok(vectors.reshape((time, batch, ()))?)
    }

    /// The vectors of the whole vocabulary, `(vocabulary, size)`.
    pub(super) fn table(&self, vocab_size: usize) -> Result<Tensor> {
        const AT_ONCE: usize = 1024; // the convolutions' windows of a large vocabulary would fill the memory
        match self {
            Self::Table(table) => Ok(table.clone()),
            Self::Letters(cnn) => {
                let ids: Vec<u32> = (0..vocab_size as u32).collect();
                let part = |ids: &[u32]| cnn.forward(&Tensor::new(ids, &cnn.device())?);
                Ok(Tensor::cat(&ids.chunks(AT_ONCE).map(part).collect::<Result<Vec<_>>>()?, 0)?)
            }
        }
    }
}

/// The different tokens in the order of their first occurrence, and for each token its place among them.
fn distinct(tokens: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut order = Vec::new();
    let mut place = HashMap::new();
    let places = tokens.iter().map(|&token| {
        *place.entry(token).or_insert_with(|| {
            order.push(token);
            order.len() as u32 - 1
        })
    });
    let places = places.collect();
    (order, places)
}

#[cfg(test)]
mod tests {
    #[test]
    fn distinct_tokens_keep_their_first_order() {
        assert_eq!(super::distinct(&[5, 3, 5, 9, 3]), (vec![5, 3, 9], vec![0, 1, 0, 2, 1]));
    }
}
