//! A checkpoint as `eval`, `sample` and `score` need it: verified, with its model and its tokenizer.

use crate::checkpoint;
use crate::config::recipe::Recipe;
use crate::data::Tokenizer;
use crate::error::Error;
use crate::model::LanguageModel;
use candle_core::{DType, Device};

/// A checkpoint in memory.
pub struct Loaded {
    /// The weights.
    pub model: LanguageModel,
    /// The units that it was trained on.
    pub tokenizer: Tokenizer,
    /// The run as it was asked for.
    pub recipe: Option<Recipe>,
}
