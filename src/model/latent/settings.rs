//! `[model.latent]` of a recipe: the Gaussian vector between the encoder and the decoder of a sentence VAE.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};

/// `[model.latent]` of a recipe: the Gaussian vector between the encoder and the decoder of a sentence VAE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LatentConfig {
    /// Numbers of the vector z.
    pub size: usize,
    /// Feed-forward highway layers between the encoder and z, and as many between z and the decoder.
    pub highway_layers: usize,
    /// What is added to their transform gates; at −2 most of the input is carried at first.
    pub transform_bias: f64,
    /// Where z enters the decoder.
    pub inject: Inject,
    /// Whether the encoder has a second core, which reads from the sentence's end.
    #[serde(skip_serializing_if = "is_false")]
    pub bidirectional: bool,
    /// Whether the decoder reads `<unk>` in place of every word, so that all it knows of them comes from z. Recipes ask for
    /// it with `train.latent.word_keep = 0`.
    #[serde(skip_serializing_if = "is_false")]
    pub inputless: bool,
    /// How many Gaussians the prior is a mixture of, which is learned; `None` is the standard Gaussian.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prior_components: Option<usize>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Where z enters the decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inject {
    /// It makes the state before the first word (Bowman et al., 2016).
    #[default]
    Init,
    /// It stands beside the vector of each word; the state before the first is zero.
    Input,
    /// Both.
    Both,
}

impl Inject {
    /// Whether z makes the first state.
    pub(super) fn is_init(self) -> bool {
        self != Self::Input
    }

    /// Whether z stands beside each word.
    pub(super) fn is_input(self) -> bool {
        self != Self::Init
    }
}

impl Default for LatentConfig {
    fn default() -> Self {
        Self {
            size: 32,
            highway_layers: 2,
            transform_bias: -2.0,
            inject: Inject::Init,
            bidirectional: false,
            inputless: false,
            prior_components: None,
        }
    }
}

impl LatentConfig {
    /// This vector with the other settings of `trained`, if its weights are those of `trained` and those of a prior, with which
    /// training can go on.
    pub(crate) fn grown_from(&self, trained: &Self) -> Option<Self> {
        let grows = self.prior_components.is_some() && trained.prior_components.is_none();
        grows.then(|| Self { prior_components: self.prior_components, ..trained.clone() })
    }

    /// Numbers that stand beside the vector of each word that the decoder reads.
    pub(in crate::model) fn input_size(&self) -> usize {
        if self.inject.is_input() { self.size } else { 0 }
    }

    /// Refuses settings that no model can have.
    pub(in crate::model) fn validate(&self) -> Result<()> {
        const MOST_LAYERS: usize = 1 << 12;
        if !(1..=1 << 24).contains(&self.size) {
            return Err(Error::config(format!(
                "model.latent.size is {}, wanted 1 to {}",
                self.size,
                1 << 24
            )));
        }
        if self.highway_layers > MOST_LAYERS {
            let layers = self.highway_layers;
            return Err(Error::config(format!(
                "model.latent.highway_layers is {layers}, wanted at most {MOST_LAYERS}"
            )));
        }
        const MOST_COMPONENTS: usize = 1 << 12;
        if let Some(components) = self.prior_components
            && !(1..=MOST_COMPONENTS).contains(&components)
        {
            return Err(Error::config(format!(
                "model.latent.prior_components is {components}, wanted 1 to {MOST_COMPONENTS}"
            )));
        }
        if !self.transform_bias.is_finite() {
            let bias = self.transform_bias;
            return Err(Error::config(format!(
                "model.latent.transform_bias is {bias}, wanted a finite number"
            )));
        }
        Ok(())
    }
}

impl Display for LatentConfig {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let place = match self.inject {
            Inject::Init => "the decoder's first state",
            Inject::Input => "beside each of the decoder's inputs",
            Inject::Both => "the decoder's first state and beside each of its inputs",
        };
        let Self { size, highway_layers, .. } = self;
        write!(f, "latent vector of size {size}, {highway_layers} highway layer(s) on each side, {place}")?;
        f.write_str(if self.inputless { ", which reads no word" } else { "" })?;
        self.prior_components
            .map_or(Ok(()), |count| write!(f, ", its prior a mixture of {count} Gaussian(s)"))
    }
}
