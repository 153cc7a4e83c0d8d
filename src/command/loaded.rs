//! A checkpoint as `eval`, `sample` and `score` need it: verified, with its model and its tokenizer.

use super::output::note;
use crate::checkpoint::{self, Checkpoint};
use crate::config::recipe::Recipe;
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::model::{LanguageModel, Parameters, specs};
use candle_core::Device;
use rhn_kernels::precision::Precision;
use std::path::Path;

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
    pub fn open(argument: &str, precision: Precision, device: &Device) -> Result<Self> {
        let checkpoint = Checkpoint::open(&checkpoint::resolve(argument)?)?;
        if !checkpoint.verified {
            note(&format!("{argument}: no manifest; the files could not be verified"));
        }
        let tokenizer = Tokenizer::parse(&checkpoint.tokenizer_path, &checkpoint.tokenizer)?;
        checkpoint.check_vocabulary(tokenizer.vocab_size())?;
        let config = &checkpoint.config;
        let shapes = specs(config)?.into_iter().map(|(name, spec)| (name, spec.shape)).collect();
        let weights = checkpoint.weights(&shapes, precision.dtype(), device)?;
        let parameters = Parameters::load(config, &weights, precision.dtype(), device)?;
        let model = LanguageModel::frozen(config, &parameters, precision, device)?;
        Ok(Self { model, tokenizer, checkpoint })
    }

    /// The run as it was asked for.
    ///
    /// # Errors
    /// If the checkpoint has none, as another program's may not, or one that is not understood.
    pub fn recipe(&self) -> Result<Recipe> {
        let missing =
            "is missing: it says which corpus the model was trained on, with which batch and dropout";
        let path = self.checkpoint.directory.join(checkpoint::RECIPE);
        recipe_of(&self.checkpoint)?.ok_or_else(|| Error::checkpoint(path, missing))
    }
}

/// The run that a checkpoint comes from, if it says so.
///
/// # Errors
/// If its recipe is not understood.
pub(super) fn recipe_of(checkpoint: &Checkpoint) -> Result<Option<Recipe>> {
    let path = checkpoint.directory.join(checkpoint::RECIPE);
    let refuse = |error: Error| Error::checkpoint(&path, error.to_string());
    let Some(text) = &checkpoint.recipe else { return Ok(None) };
    let recipe = Recipe::parse(text, Path::new(checkpoint::RECIPE)).map_err(refuse)?;
    recipe.validate().map_err(refuse)?;
    Ok(Some(recipe))
}
