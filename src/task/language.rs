//! Language modelling: the corpus as tokens, the vocabulary and the model's sizes.

mod measure;
mod prepare;

pub(crate) use prepare::check_unit;

pub use super::next_token::{NextToken, Window, WindowNoise};

use super::split::{SplitSize, SplitTokens};
use super::teachers::{Teacher, Teachers};
use super::windows::RowWindows;
use crate::checkpoint::Checkpoint;
use crate::config::{ModelConfig, Recipe, Unit};
use crate::data::{Encoded, ShardedCorpus, TokenSource, Tokenizer};
use crate::error::{Error, Result};
use crate::eval::{Evaluation, EvaluationProgress};
use crate::model::grow::{Vocabulary, grow};
use crate::model::sampler::CandidateSource;
use crate::model::{FrozenModel, LanguageModel, Parameters, WeightTypes, specs};
use crate::parallel::world::World;
use crate::sample::text::{Prompt, text};
use crate::sample::{SampleSettings, Sampler};
use crate::storage::{CONFIG, MODEL, RECIPE, TOKENIZER, save_tensors, to_json};
use crate::train::averaging::Average;
use crate::train::step::Stepper;
use crate::train::task::{Data, Files, Task};
use crate::train::update::Update;
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use std::collections::BTreeMap;

/// Tokens of the model's own text that are shown after an epoch.
const SAMPLE_TOKENS: usize = 240;

/// A recipe brought to its text: everything that a run needs before its first step.
pub struct Language {
    recipe: Recipe,
    corpus: String,
    corpus_sha256: String,
    tokenizer: Tokenizer,
    train: SplitTokens,
    valid: SplitTokens,
    test: Option<SplitTokens>,
    /// The corpus, if it is one of shards.
    shards: Option<ShardedCorpus>,
    model: ModelConfig,
    windows: RowWindows,
    valid_windows: RowWindows,
    precision: Precision,
    device: Device,
    fixed: BTreeMap<String, Tensor>,
    taken: Vec<String>,
    teachers: Option<Teachers>,
}

impl Language {
    /// With the `keys` of its recipe whose values were taken from a checkpoint or made to fit the text.
    pub fn with_taken(self, keys: Vec<String>) -> Self {
        Self { taken: keys, ..self }
    }

    /// The models that the run is taught by.
    pub fn teachers(&self) -> &[Teacher] {
        self.teachers.as_ref().map_or(&[], Teachers::each)
    }

    /// The vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What a token is.
    pub fn unit(&self) -> Unit {
        self.tokenizer.unit()
    }

    /// Where the run computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The splits for training, for validation and, where the corpus has one, for the test; none if they are not in memory.
    pub fn splits(&self) -> Option<(&Encoded, &Encoded, Option<&Encoded>)> {
        let test = self.test.as_ref().and_then(SplitTokens::text);
        Some((self.train.text()?, self.valid.text()?, test))
    }

    /// What the splits for training, for validation and, where the corpus has one, for the test have.
    pub fn sizes(&self) -> (SplitSize, SplitSize, Option<SplitSize>) {
        (self.train.size(), self.valid.size(), self.test.as_ref().map(SplitTokens::size))
    }

    /// The tokens of the test split, or of that for validation, as one row.
    pub(crate) fn held_out(&self) -> Box<dyn TokenSource> {
        self.test.as_ref().unwrap_or(&self.valid).tokens(1)
    }

    /// Windows of `train.bptt_steps` steps in the training split, whatever lengths they are drawn with.
    pub(crate) fn fixed_count(&self) -> usize {
        self.windows.fixed_count()
    }

    /// Windows of the validation split.
    pub(crate) fn valid_count(&self) -> usize {
        self.valid_windows.count(0)
    }

    /// Inputs and targets of a window of validation, `(time, batch)` of u32 each.
    pub(crate) fn valid_window(&self, index: usize) -> Result<(Tensor, Tensor)> {
        self.valid_windows.window(0, index, &self.device)
    }

    /// Window number `index` of epoch `epoch`, on a device of the caller's choice.
    pub(crate) fn batch_on(&self, epoch: u64, index: usize, device: &Device) -> Result<Window> {
        let (inputs, targets) = self.windows.window(epoch, index, device)?;
        Ok(Window { inputs, targets })
    }

    /// The first step's weights, drawn from the recipe's seed or taken from `init_from`, and all that changes them.
    pub fn stepper(&self, init_from: Option<&Checkpoint>) -> Result<Stepper<NextToken>> {
        let config = &self.recipe.train;
        let parameters = match init_from {
            None => self.first_parameters()?,
            Some(checkpoint) if self.is_grown_from(&checkpoint.config) => {
                self.grown_parameters(checkpoint)?
            }
            Some(checkpoint) => self.parameters_of(checkpoint)?,
        };
        let parameters = parameters.update_only(config.update, &self.model.spec)?;
        let dtype = self.precision.dtype();
        let model = LanguageModel::new(&self.model, &parameters, self.precision, &self.device)?;
        let update = Update::new(config, &parameters, dtype, &self.device)?;
        let objective =
            NextToken::new(model, config).resetting_at(self.resets_at()).taught_by(self.teachers.clone());
        Stepper::new(objective, parameters, update, Average::new(&config.averaging), config.batch_size)
    }

    /// Weights drawn from the recipe's seed.
    pub fn first_parameters(&self) -> Result<Parameters> {
        let config = &self.recipe.train;
        let fixed = self.fixed.clone();
        let types = self.weight_types()?;
        Parameters::draw(&self.model, fixed, config.seed, config.initial(), types, &self.device)
    }

    /// In which numbers the weights are kept. Fails if the recipe wants a table of two bytes a number where there is none.
    fn weight_types(&self) -> Result<WeightTypes> {
        let config = &self.recipe.train;
        let types = config.tables.types(self.precision.dtype());
        if types == self.precision.dtype().into() {
            return Ok(types);
        }
        let what = if !self.device.is_cpu() || self.precision == Precision::F64 {
            "is for training on the CPU in f32 or bf16".to_string()
        } else if CandidateSource::new(&config.loss, self.model.vocab_size, config.seed).is_none() {
            let words = self.model.vocab_size;
            format!(
                "is for losses over some of the words, and train.loss.samples is not below all {words} of them"
            )
        } else {
            return Ok(types);
        };
        Err(Error::config(format!("train.tables = \"f16\" {what}")))
    }

    /// Whether this model has more words than `old`, or a core with further weights.
    fn is_grown_from(&self, old: &ModelConfig) -> bool {
        old.vocab_size < self.model.vocab_size || self.core_is_grown_from(old)
    }

    fn core_is_grown_from(&self, old: &ModelConfig) -> bool {
        let core = &self.model.spec.core;
        core.grown_from(&old.spec.core).as_ref() == Some(core)
    }

    /// The weights of a checkpoint whose vocabulary is the first part of this one; those of a core's that it lacks are
    /// drawn from the recipe's seed.
    fn grown_parameters(&self, checkpoint: &Checkpoint) -> Result<Parameters> {
        let tokenizer = checkpoint.read_tokenizer()?;
        let old = Vocabulary { config: &checkpoint.config, words: tokenizer.words() };
        let new = Vocabulary { config: &self.model, words: self.tokenizer.words() };
        let types = self.weight_types()?;
        let mut weights = checkpoint.weights(&specs(&checkpoint.config)?, types.weights, &Device::Cpu)?;
        if self.core_is_grown_from(&checkpoint.config) {
            for (name, tensor) in self.first_parameters()?.tensors() {
                weights.entry(name).or_insert(tensor.to_device(&Device::Cpu)?);
            }
        }
        let grown = grow(old, new, &weights, &self.fixed);
        let grown = grown.map_err(Error::in_file(checkpoint.directory.join(MODEL)))?;
        Parameters::load(&self.model, &grown, types, &self.device)
    }

    /// A model on `parameters` for evaluation; it records nothing.
    pub fn frozen(&self, parameters: &Parameters) -> Result<FrozenModel> {
        LanguageModel::new(&self.model, parameters, self.precision, &self.device)?.freeze()
    }
}

impl Task for Language {
    type Objective = NextToken;

    fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    fn taken(&self) -> &[String] {
        &self.taken
    }

    fn teachers(&self) -> Vec<String> {
        self.teachers().iter().map(|teacher| teacher.sha256.clone()).collect()
    }

    fn data(&self) -> Data<'_> {
        let (train, valid, test) = self.sizes();
        Data {
            corpus: &self.corpus,
            sha256: &self.corpus_sha256,
            tokens: [train.tokens, valid.tokens, test.map_or(0, |test| test.tokens)],
        }
    }

    fn model(&self) -> &ModelConfig {
        &self.model
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn batch_count(&self, epoch: u64) -> usize {
        self.windows.count(epoch)
    }

    fn total_steps(&self) -> u64 {
        self.windows.total(self.recipe.train.epochs)
    }

    fn batch(&self, epoch: u64, index: usize) -> Result<Window> {
        self.batch_on(epoch, index, &self.device)
    }

    /// In the batches of training.
    fn validate(
        &self,
        parameters: &Parameters,
        world: &dyn World,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        self.measure_valid(&self.frozen(parameters)?, world, progress)
    }

    fn test(&self, parameters: &Parameters, progress: EvaluationProgress<'_>) -> Result<Option<Evaluation>> {
        self.test
            .as_ref()
            .map(|test| self.measure_test(test, &self.frozen(parameters)?, progress))
            .transpose()
    }

    /// A little of the model's own text, for units whose text is short enough to look at.
    fn sample(&self, parameters: &Parameters, seed: u64) -> Result<Option<String>> {
        if !matches!(self.unit(), Unit::Char | Unit::Byte) {
            return Ok(None);
        }
        let model = self.frozen(parameters)?;
        let prompt = Prompt::new(&self.tokenizer, b"")?;
        let settings = SampleSettings { forbidden: self.tokenizer.unknown_id(), ..SampleSettings::default() };
        let sampler = Sampler::new(&model, settings, prompt.context(), seed)?;
        match text(sampler, &self.tokenizer, &prompt, SAMPLE_TOKENS) {
            Err(Error::NotFinite { .. }) => Ok(None), // a symbol that training never chose; no loss
            text => text.map(Some),
        }
    }

    fn parameters_of(&self, checkpoint: &Checkpoint) -> Result<Parameters> {
        checkpoint.parameters_for(&self.model, self.weight_types()?, &self.device)
    }

    fn files(&self, parameters: &Parameters) -> Result<Files> {
        Ok(vec![
            (CONFIG, to_json(&self.model)),
            (MODEL, save_tensors(&parameters.tensors())?),
            (TOKENIZER, self.tokenizer.to_json().into_bytes()),
            (RECIPE, self.recipe.to_toml().into_bytes()),
        ])
    }
}

/// The model's sizes once the vocabulary is known, and its tables of characters.
pub fn size_model(recipe: &Recipe, tokenizer: &Tokenizer) -> Result<(ModelConfig, BTreeMap<String, Tensor>)> {
    let (mut model, fixed) = ModelConfig::for_words(recipe.model.clone(), tokenizer.words())?;
    model.sorted_by_frequency = recipe.needs_sorted_words();
    specs(&model)?;
    Ok((model, fixed))
}
