//! What a run needs before its first step: the corpus as tokens, the vocabulary, the model's sizes.

use super::ledger::Ledger;
use super::optimizer::Optimizer;
use super::step::Stepper;
use crate::checkpoint::Checkpoint;
use crate::config::train::OnNonFinite;
use crate::config::{ModelConfig, Recipe};
use crate::data::batch::Batches;
use crate::data::{Corpus, Encoded, Places, Text, Tokenizer};
use crate::error::{Error, Result};
use crate::eval::Split;
use crate::model::{LanguageModel, NoiseSource, Parameters, specs};
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use std::collections::BTreeMap;

/// A recipe brought to its text.
pub struct Session {
    /// How the run was asked for.
    pub recipe: Recipe,
    /// What the corpus is called.
    pub corpus: String,
    /// Of the corpus's text.
    pub corpus_sha256: String,
    /// The vocabulary.
    pub tokenizer: Tokenizer,
    /// What is learned.
    pub train: Encoded,
    /// What chooses the best epoch.
    pub valid: Encoded,
    /// What the result is measured on; `None` where the corpus has no test split.
    pub test: Option<Encoded>,
    /// What fixes the weights' shapes.
    pub model: ModelConfig,
    /// How the training split is read.
    pub lanes: Batches,
    /// What the run computes with.
    pub precision: Precision,
    /// Where they are.
    pub device: Device,
    fixed: BTreeMap<String, Tensor>,
}

impl Session {
    /// Opens the corpus, takes its vocabulary (or goes on with `tokenizer`) and sizes the model.
    pub fn prepare(
        recipe: Recipe,
        places: &Places,
        tokenizer: Option<Tokenizer>,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let corpus = Corpus::open(&recipe.corpus, places)?;
        Self::of(recipe, corpus, tokenizer, precision, device)
    }

    /// As [`Session::prepare`], with a corpus that is open.
    pub fn of(
        recipe: Recipe,
        corpus: Corpus,
        tokenizer: Option<Tokenizer>,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let tokenizer = match tokenizer {
            None => Tokenizer::build(&recipe.corpus, &corpus.train)?,
            Some(tokenizer) => tokenizer,
        };
        let (found, wanted) = (tokenizer.unit(), recipe.corpus.unit);
        if found != wanted {
            let what =
                format!("the checkpoint's vocabulary cuts by {found:?}, and corpus.unit says {wanted:?}");
            return Err(Error::config(what));
        }
        let encode = |text: &Text| tokenizer.encode(text);
        let (train, valid) = (encode(&corpus.train)?, encode(&corpus.valid)?);
        let test = if corpus.test.is_empty() { None } else { Some(encode(&corpus.test)?) };
        let test = test.filter(|test| test.tokens.len() > 1); // the first is only context
        let config = &recipe.train;
        let place = |split: &str| format!("{} ({split} split)", corpus.name);
        let lanes =
            Batches::batched(&place("training"), train.tokens.len(), config.batch_size, config.bptt_steps)?;
        Batches::batched(&place("validation"), valid.tokens.len(), config.batch_size, config.bptt_steps)?;
        let (model, fixed) = size_model(&recipe, &tokenizer)?;
        Ok(Self {
            corpus: corpus.name,
            corpus_sha256: corpus.sha256,
            tokenizer,
            train,
            valid,
            test,
            model,
            lanes,
            precision: precision.into(),
            device: device.clone(),
            fixed,
            recipe,
        })
    }

    /// A split, with the names that reports give it.
    pub fn split<'a>(&'a self, name: &'a str, text: &'a Encoded) -> Split<'a> {
        Split { corpus: &self.corpus, split: name, unit: self.tokenizer.unit(), text }
    }

    /// The run's first step, with weights drawn from the recipe's seed or taken from `init_from`.
    pub fn stepper(&self, init_from: Option<&Checkpoint>) -> Result<Stepper> {
        let config = &self.recipe.train;
        let parameters = match init_from {
            None => self.first_parameters()?,
            Some(checkpoint) => self.parameters_of(checkpoint)?,
        };
        let model = LanguageModel::new(&self.model, &parameters, self.precision, &self.device)?;
        Ok(Stepper {
            state: model.zero_state(config.batch_size)?,
            optimizer: Optimizer::new(config, &parameters)?,
            masks: NoiseSource::new(
                &self.model,
                &config.dropout,
                config.seed,
                self.precision.dtype(),
                &self.device,
            ),
            ledger: Ledger::new(
                &self.device,
                self.precision.dtype(),
                config.max_grad_norm,
                self.may_skip(0),
            )?,
            model,
            parameters,
        })
    }

    /// How many steps may be passed over because they are not finite, after so many that were.
    pub(super) fn may_skip(&self, skipped: u64) -> u64 {
        match self.recipe.train.on_non_finite {
            OnNonFinite::Stop => 0,
            OnNonFinite::Skip => self.recipe.train.max_skipped_steps.saturating_sub(skipped),
        }
    }

    /// Weights drawn from the recipe's seed.
    pub fn first_parameters(&self) -> Result<Parameters> {
        let (config, fixed) = (&self.recipe.train, self.fixed.clone());
        let (seed, scale) = (config.seed, config.init_scale);
        Parameters::draw(&self.model, fixed, seed, scale, self.precision.dtype(), &self.device)
    }

    /// The weights of a checkpoint of the same model.
    pub fn parameters_of(&self, checkpoint: &Checkpoint) -> Result<Parameters> {
        if checkpoint.config != self.model {
            let show = |config: &ModelConfig| serde_json::to_string(config).unwrap_or_default();
            return Err(Error::checkpoint(
                &checkpoint.directory,
                format!("is another model: {}, wanted {}", show(&checkpoint.config), show(&self.model)),
            ));
        }
        checkpoint.parameters(self.precision.dtype(), &self.device)
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.recipe.train.epochs.saturating_mul(self.lanes.window_count() as u64)
    }
}

/// The model's sizes once the vocabulary is known, and its tables of letters.
///
/// # Errors
/// If they do not fit together.
pub fn size_model(recipe: &Recipe, tokenizer: &Tokenizer) -> Result<(ModelConfig, BTreeMap<String, Tensor>)> {
    let (model, fixed) = ModelConfig::for_words(recipe.model.clone(), tokenizer.words())?;
    specs(&model)?; // sizes that do not fit together are refused here
    Ok((model, fixed))
}
