//! Vectors that are smaller the rarer a word is (Baevski and Auli, 2019, arXiv 1809.10853): the input that goes with an
//! adaptive softmax, and whose tables can be its words.
//!
//! ```text
//! E(w) = T_0[w]                      w < c_0
//!      = T_i[w − c_{i−1}] P_i        c_{i−1} ≤ w < c_i, T_i of ⌊size / div_value^i⌋ numbers a word
//! ```
//!
//! Weights: `embedding.0.weight` (c_0, size); `embedding.<i>.weight` (words, ⌊size / div_value^i⌋), and
//! `embedding.<i>.projection` (that, size). A cluster of which a window has no word has no gradient.

use super::computed;
use super::settings::{EmbeddingSettings, Surroundings};
use crate::error::{Error, Result};
use crate::model::builder::Builder;
use crate::model::clusters::{AdaptiveShape, Clusters};
use crate::model::layers::Embedding;
use candle_core::{Device, Tensor};
use rhn_kernels::embedding::lookup;
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Vectors that are smaller the rarer a word is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveEmbeddingConfig {
    /// The size of a vector, and of the first cluster's in the table; the hidden size unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// The first word of each cluster behind the first; at about 2, 10 and 40 % of the vocabulary unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutoffs: Option<Vec<usize>>,
    /// What the vectors of each further cluster are smaller by; 4 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub div_value: Option<f64>,
}

impl AdaptiveEmbeddingConfig {
    /// The clusters of `vocabulary` words.
    pub(in crate::model) fn shape(&self, vocabulary: usize) -> AdaptiveShape {
        AdaptiveShape {
            cutoffs: self.cutoffs.clone().unwrap_or_else(|| AdaptiveShape::default_cutoffs(vocabulary)),
            div_value: self.div_value.unwrap_or(4.0),
            head_bias: false,
        }
    }
}

impl EmbeddingSettings for AdaptiveEmbeddingConfig {
    fn size(&self, Surroundings { hidden_size, .. }: Surroundings) -> usize {
        self.size.unwrap_or(hidden_size)
    }

    fn validate(&self, around: Surroundings) -> Result<()> {
        let size = EmbeddingSettings::size(self, around);
        if around.ties_hidden_size {
            return Err(Error::config(
                "an adaptive embedding has a table for each cluster: only model.output.kind = \"adaptive\" can be tied to it",
            ));
        }
        self.shape(around.vocab_size).validate("model.embedding", size, around.vocab_size)
    }

    fn describe(&self) -> &'static str {
        "adaptive tables"
    }

    fn set_words(&mut self, words: &[String]) -> Result<BTreeMap<String, Tensor>> {
        self.cutoffs = Some(self.shape(words.len()).cutoffs);
        Ok(BTreeMap::new())
    }

    fn build(&self, vocab_size: usize, size: usize, builder: &Builder<'_>) -> Result<Box<dyn Embedding>> {
        let shape = self.shape(vocab_size);
        let clusters = Clusters::new(&shape.cutoffs, vocab_size);
        let weights = builder.under("embedding").without_gradient_at_times();
        let cluster = |(i, words): (usize, usize)| -> Result<(Tensor, Option<Tensor>)> {
            let weights = weights.under(&i.to_string());
            if i == 0 {
                return Ok((weights.table("weight", (words, size))?, None));
            }
            let width = shape.tail_width(size, i - 1);
            let table = weights.table("weight", (words, width))?;
            Ok((table, Some(weights.weight("projection", (width, size))?)))
        };
        let parts = clusters.sizes().enumerate().map(cluster).collect::<Result<Vec<_>>>()?;
        let (tables, projections) = parts.into_iter().unzip();
        let device = builder.device.clone();
        Ok(Box::new(Adaptive { clusters, tables, projections, precision: builder.precision, device }))
    }
}

struct Adaptive {
    clusters: Clusters,
    tables: Vec<Tensor>,
    projections: Vec<Option<Tensor>>,
    precision: Precision,
    device: Device,
}

impl Adaptive {
    /// `(words)` of u32 to `(words, size)`.
    fn vectors(&self, words: &Tensor) -> Result<Tensor> {
        let members = self.clusters.members(&words.to_vec1()?)?;
        let ids = |ids: &[u32]| Tensor::from_slice(ids, ids.len(), words.device());
        let mut found = Vec::new();
        let mut places = vec![0; words.dim(0)?];
        let mut count = 0;
        for (cluster, (table, projection)) in members.iter().zip(self.tables.iter().zip(&self.projections)) {
            if cluster.ids.is_empty() {
                continue;
            }
            let rows = lookup(table, &ids(&cluster.ids)?, None)?;
            found.push(match projection {
                None => rows,
                Some(projection) => linear(&rows, projection, Stored::ByInput, self.precision)?,
            });
            for &place in &cluster.places {
                places[place as usize] = count;
                count += 1;
            }
        }
        lookup(&Tensor::cat(&found, 0)?, &ids(&places)?, None).map_err(Error::from)
    }
}

impl Embedding for Adaptive {
    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let (time, batch) = tokens.dims2()?;
        Ok(self.vectors(&tokens.flatten_all()?)?.reshape((time, batch, ()))?)
    }

    fn table(&self) -> Result<Tensor> {
        computed::of_vocabulary(self.clusters.vocabulary(), &self.device, |words| self.vectors(words))
    }

    fn clusters(&self) -> Option<&[Tensor]> {
        Some(&self.tables)
    }
}
