//! The first layer of an image classifier: a plain layer from the pixels, for a change of size no highway layer can make
//! (Srivastava et al., 2015).
//!
//! ```text
//! y = f(x W + b)          f as in the layers that follow
//! ```
//!
//! Weights: `embedding.weight` (pixels, size), `embedding.bias`.

use super::settings::{EmbeddingSettings, Surroundings};
use crate::error::{Error, Result};
use crate::model::builder::Builder;
use crate::model::config::at_least;
use crate::model::core::Activation;
use crate::model::layers::Embedding;
use candle_core::Tensor;
use rhn_kernels::feed_forward::activated;
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;
use serde::{Deserialize, Serialize};

/// A plain layer from an image's pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelsConfig {
    /// Pixels of an image, its channels counted.
    #[serde(default = "mnist")]
    pub pixels: usize,
    /// The layer's function.
    #[serde(default)]
    pub activation: Activation,
}

fn mnist() -> usize {
    28 * 28
}

impl EmbeddingSettings for PixelsConfig {
    fn size(&self, around: Surroundings) -> usize {
        around.hidden_size
    }

    fn validate(&self, around: Surroundings) -> Result<()> {
        if around.tied {
            return Err(Error::config("pixels have no table that the output could be tied to"));
        }
        at_least(1, "model.embedding", &[("pixels", self.pixels)])
    }

    fn magnitude(&self) -> (Vec<usize>, usize) {
        (vec![self.pixels], 1)
    }

    fn describe(&self) -> &'static str {
        "pixels"
    }

    fn build(&self, _vocab_size: usize, size: usize, builder: &Builder<'_>) -> Result<Box<dyn Embedding>> {
        let weights = builder.under("embedding");
        Ok(Box::new(Pixels {
            weight: weights.weight("weight", (self.pixels, size))?,
            bias: weights.weight("bias", size)?,
            activation: self.activation,
            precision: builder.precision,
        }))
    }
}

struct Pixels {
    weight: Tensor,
    bias: Tensor,
    activation: Activation,
    precision: Precision,
}

impl Embedding for Pixels {
    /// `(time, batch, pixels)` to `(time, batch, size)`.
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let (time, batch, _) = images.dims3()?;
        let xs = images.flatten(0, 1)?;
        let products = linear(&xs, &self.weight, Stored::ByInput, self.precision)?;
        Ok(activated(&products, &self.bias, self.activation.into())?.reshape((time, batch, ()))?)
    }

    fn table(&self) -> Result<Tensor> {
        Err(Error::config("this model reads images, which have no vocabulary"))
    }

    fn cost(&self) -> u64 {
        self.weight.elem_count() as u64
    }
}
