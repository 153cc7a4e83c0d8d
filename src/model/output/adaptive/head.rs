//! What an adaptive softmax decides first: one of the frequent words, or the cluster of another.

use crate::error::Result;
use crate::model::output::product::Product;
use candle_core::Tensor;
use rhn_kernels::linear::{Rows, Stored};
use rhn_kernels::precision::Precision;

/// The vectors of the first cluster's words and of the other clusters.
pub(super) enum Head {
    /// One matrix.
    One(Product),
    /// The embedding's table of the first cluster, and those of the clusters.
    Tied { words: Tensor, clusters: Tensor, precision: Precision },
}

impl Head {
    /// Calls `work` with the matrix.
    pub(super) fn with<R>(&self, work: impl FnOnce(&Product) -> Result<R>) -> Result<R> {
        match self {
            Self::One(product) => work(product),
            Self::Tied { words, clusters, precision } => {
                let weight = Tensor::cat(&[words, clusters], 0)?;
                work(&Product::Trained { weight, stored: Stored::ByOutput, precision: *precision })
            }
        }
    }

    /// Laid out for evaluation; `None` if it is already.
    pub(super) fn packed(&self) -> Result<Option<Self>> {
        Ok(self.with(Product::packed)?.map(Self::One))
    }

    /// For one row after another; `None` where only tensors can do it.
    pub(super) fn rows(&self) -> Option<Rows> {
        match self {
            Self::One(product) => product.rows(),
            Self::Tied { .. } => None,
        }
    }
}
