//! A checkpoint as `eval`, `sample` and `score` need it: verified, with its model and its tokenizer.

use super::output::note;
use crate::checkpoint::{self, Checkpoint};
use crate::config::recipe::Recipe;
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::model::{LanguageModel, Parameters, specs};
use candle_core::{DType, Device};

/// A checkpoint in memory.
pub struct Loaded {
    /// The model, which records nothing.
    pub model: LanguageModel,
    /// The units that it was trained on.
    pub tokenizer: Tokenizer,
    checkpoint: Checkpoint,
}

impl Loaded {
    /// Opens the directory or hub address `argument`.
    ///
    /// # Errors
    /// If a file is missing, damaged or does not belong to the others.
    pub fn open(argument: &str, dtype: DType, device: &Device) -> Result<Self> {
        let checkpoint = Checkpoint::open(&checkpoint::resolve(argument)?)?;
        if !checkpoint.verified {
            note(&format!("{argument}: no manifest; the files could not be verified"));
        }
        let tokenizer = Tokenizer::load(&checkpoint.tokenizer_path)?;
        checkpoint.check_vocabulary(tokenizer.vocab_size())?;
        let config = &checkpoint.config;
        let shapes = specs(config)?.into_iter().map(|(name, spec)| (name, spec.shape)).collect();
        let weights = checkpoint.weights(&shapes, dtype, device)?;
        let parameters = Parameters::load(config, &weights, dtype, device)?;
        let model = LanguageModel::frozen(config, &parameters, dtype, device)?;
        Ok(Self { model, tokenizer, checkpoint })
    }

    /// The run as it was asked for.
    ///
    /// # Errors
    /// If the checkpoint has none, as another program's may not.
    pub fn recipe(&self) -> Result<Recipe> {
        let path = self.checkpoint.directory.join(checkpoint::RECIPE);
        match &self.checkpoint.recipe {
            Some(text) => Recipe::parse(text, &path),
            None => Err(Error::checkpoint(
                path,
                "is missing: it says which corpus the model was trained on, with which batch and dropout",
            )),
        }
    }
}
