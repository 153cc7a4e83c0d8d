//! A checkpoint as evaluation, scoring and sampling need it: verified, with its model and its tokenizer.

use crate::checkpoint::{self, Checkpoint};
use crate::config::recipe::Recipe;
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::events::{self, Event};
use crate::model::{FrozenModel, SentenceVae};
use candle_core::Device;
use rhn_kernels::precision::Precision;
use std::path::Path;

/// A model with its tokenizer; the checkpoint that they come from is kept for its recipe.
pub struct Loaded {
    /// The model.
    pub model: FrozenModel,
    /// The units that it was trained on.
    pub tokenizer: Tokenizer,
    checkpoint: Checkpoint,
}

impl Loaded {
    /// Opens the directory or hub address `argument`.
    ///
    /// # Errors
    /// If a file is missing, damaged or does not belong to the others.
    pub fn open(argument: impl AsRef<Path>, precision: Precision, device: &Device) -> Result<Self> {
        Self::new(Checkpoint::open(&checkpoint::resolve(argument.as_ref())?)?, precision, device)
    }

    /// Loads an open checkpoint; errors as [`Loaded::open`].
    pub fn new(checkpoint: Checkpoint, precision: Precision, device: &Device) -> Result<Self> {
        let tokenizer = checkpoint.read_tokenizer()?;
        Ok(Self { model: checkpoint.model(precision, device)?, tokenizer, checkpoint })
    }

    /// The checkpoint, whose weights are still the bytes of their file.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The run's directory.
    pub fn directory(&self) -> &Path {
        &self.checkpoint.directory
    }

    /// The SHA-256 of the text that the run was trained on, if its events say so.
    pub fn corpus_sha256(&self) -> Option<String> {
        corpus_sha256(self.directory())
    }

    /// The run as it was asked for.
    ///
    /// # Errors
    /// If the checkpoint has none, as another program's may not, or one that is not understood.
    pub fn recipe(&self) -> Result<Recipe> {
        recipe(&self.checkpoint)
    }
}

/// A sentence VAE with its tokenizer, as [`Loaded`] has a language model.
pub struct LoadedVae {
    /// The model.
    pub model: SentenceVae,
    /// The units that it was trained on.
    pub tokenizer: Tokenizer,
    checkpoint: Checkpoint,
}

impl LoadedVae {
    /// Loads an open checkpoint; errors as [`Loaded::open`], and if it is another kind of model.
    pub fn new(checkpoint: Checkpoint, precision: Precision, device: &Device) -> Result<Self> {
        let tokenizer = checkpoint.read_tokenizer()?;
        Ok(Self { model: checkpoint.sentence_vae(precision, device)?, tokenizer, checkpoint })
    }

    /// The checkpoint, whose weights are still the bytes of their file.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The run's directory.
    pub fn directory(&self) -> &Path {
        &self.checkpoint.directory
    }

    /// As [`Loaded::corpus_sha256`].
    pub fn corpus_sha256(&self) -> Option<String> {
        corpus_sha256(self.directory())
    }

    /// As [`Loaded::recipe`].
    ///
    /// # Errors
    /// As there.
    pub fn recipe(&self) -> Result<Recipe> {
        recipe(&self.checkpoint)
    }
}

/// The SHA-256 of the text that the run in `directory` was trained on, if its events say so.
pub(crate) fn corpus_sha256(directory: &Path) -> Option<String> {
    events::readable(directory).into_iter().rev().find_map(|event| match event {
        Event::Start(start) | Event::Resume(start) => Some(start.corpus_sha256),
        _ => None,
    })
}

/// The SHA-256 of the weights with which the run in `directory` began, if its events say that they were another checkpoint's.
pub(crate) fn begun_from(directory: &Path) -> Option<String> {
    events::readable(directory).into_iter().fold(None, |before, event| match event {
        Event::Start(start) => start.begun_from,
        Event::Resume(start) => start.begun_from.or(before),
        _ => before,
    })
}

/// The run as it was asked for.
fn recipe(checkpoint: &Checkpoint) -> Result<Recipe> {
    let missing = "is missing: it says which corpus the model was trained on, with which batch and dropout";
    let path = checkpoint.directory.join(crate::storage::RECIPE);
    checkpoint.read_recipe()?.ok_or_else(|| Error::checkpoint(path, missing))
}
