//! Training on n-best lists: a language model learns to put first the hypotheses with few word errors.
//!
//! What is trained and published is a language model like any other; `[train.lists]` of the recipe says how lists are scored.

mod expected;
mod lists;
mod measure;

pub use expected::{ExpectedErrors, ListBatch};
pub use lists::ListTokens;
pub(crate) use lists::Lists;

use super::language::size_model;
use super::order::shuffled;
use crate::checkpoint::Checkpoint;
use crate::config::{ListsConfig, ModelConfig, Recipe};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::eval::{Evaluation, EvaluationProgress};
use crate::model::{FrozenModel, LanguageModel, NoiseSource, Parameters};
use crate::parallel::world::{World, agree};
use crate::storage::{CONFIG, MODEL, RECIPE, TOKENIZER, save_tensors, to_json};
use crate::train::averaging::Average;
use crate::train::step::Stepper;
use crate::train::task::{Data, Files, Task};
use crate::train::update::Update;
use candle_core::Device;
use lists::{SPLITS, Utterance};
use rhn_kernels::precision::Precision;
use std::cell::RefCell;

/// A recipe brought to its lists.
pub struct Rescoring {
    recipe: Recipe,
    settings: ListsConfig,
    tokenizer: Tokenizer,
    /// The line end.
    context: u32,
    lists: Lists,
    train: Vec<ListTokens>,
    model: ModelConfig,
    taken: Vec<String>,
    precision: Precision,
    device: Device,
    /// The order of the epoch that was asked for last.
    order: RefCell<Option<(u64, Vec<u32>)>>,
}

impl Rescoring {
    /// Cuts `found`, the lists that the recipe's corpus names, with the vocabulary of the model that is trained on.
    ///
    /// # Errors
    /// If they are fewer than a batch, or the vocabulary has no line end.
    pub(crate) fn open(
        recipe: Recipe,
        found: Lists,
        tokenizer: Tokenizer,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        let settings = recipe.train.lists.unwrap_or_default();
        let Some(context) = tokenizer.line_end_id() else {
            return Err(Error::config(
                "[task] kind = \"rescore\" needs a vocabulary with a line end, after which a sentence begins; the \
                 checkpoint's has none",
            ));
        };
        let lists = Lists { name: recipe.corpus.name.clone(), ..found };
        let batch = recipe.train.batch_size;
        let [train, ..] = &lists.splits;
        if train.len() < batch {
            let what =
                format!("{} lists to train on are too few for train.batch_size = {batch}", train.len());
            return Err(Error::data(&lists.name, what));
        }
        let weights = settings.weights();
        let train = train.iter().map(|utterance| ListTokens::new(utterance, &tokenizer, &weights));
        let train = train.collect::<Result<Vec<_>>>()?;
        let (model, _) = size_model(&recipe, &tokenizer)?;
        Ok(Self {
            settings,
            context,
            train,
            model,
            taken: Vec::new(),
            precision,
            device: device.clone(),
            order: RefCell::default(),
            lists,
            tokenizer,
            recipe,
        })
    }

    /// With the `keys` of its recipe whose values were taken from a checkpoint.
    pub(crate) fn with_taken(self, keys: Vec<String>) -> Self {
        Self { taken: keys, ..self }
    }

    /// Utterances of training, validation and test, and words of the first that the vocabulary lacks.
    pub(crate) fn sizes(&self) -> ([usize; 3], usize) {
        let sizes = self.lists.splits.each_ref().map(Vec::len);
        (sizes, self.train.iter().map(|list| list.unseen).sum())
    }

    /// The weights of `first`, and all that changes them.
    pub(crate) fn stepper(&self, first: &Checkpoint) -> Result<Stepper<ExpectedErrors>> {
        let parameters = self.parameters_of(first)?;
        self.stepper_on(parameters)
    }

    /// As [`Rescoring::stepper`], on weights that are drawn, for a run that goes on: its own take their place.
    pub(crate) fn resumed_stepper(&self) -> Result<Stepper<ExpectedErrors>> {
        let config = &self.recipe.train;
        let dtype = self.precision.dtype();
        let (_, fixed) = size_model(&self.recipe, &self.tokenizer)?;
        let drawn = Parameters::draw(&self.model, fixed, config.seed, config.initial(), dtype, &self.device)?;
        self.stepper_on(drawn)
    }

    fn stepper_on(&self, parameters: Parameters) -> Result<Stepper<ExpectedErrors>> {
        let config = &self.recipe.train;
        let dtype = self.precision.dtype();
        let parameters = parameters.update_only(config.update, &self.model.spec)?;
        let model = LanguageModel::new(&self.model, &parameters, self.precision, &self.device)?;
        let noise = NoiseSource::new(&self.model, &config.dropout, config.seed, dtype, &self.device);
        let objective = ExpectedErrors::new(model, noise, self.settings);
        let update = Update::new(config, &parameters, dtype, &self.device)?;
        Stepper::new(objective, parameters, update, Average::new(&config.averaging), config.batch_size)
    }

    fn frozen(&self, parameters: &Parameters) -> Result<FrozenModel> {
        LanguageModel::new(&self.model, parameters, self.precision, &self.device)?.freeze()
    }

    fn measure(
        &self,
        split: usize,
        parameters: &Parameters,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        let names = [self.lists.name.as_str(), SPLITS[split]];
        let utterances = &self.lists.splits[split];
        let model = self.frozen(parameters)?;
        measure::measure(&model, &self.tokenizer, names, utterances, &self.settings, progress)
    }
}

impl Task for Rescoring {
    type Objective = ExpectedErrors;

    fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    fn taken(&self) -> &[String] {
        &self.taken
    }

    /// Words of the references take the place of tokens.
    fn data(&self) -> Data<'_> {
        let words = |utterances: &Vec<Utterance>| utterances.iter().map(|each| each.words as u64).sum();
        let tokens = self.lists.splits.each_ref().map(words);
        Data { corpus: &self.lists.name, sha256: &self.lists.sha256, tokens }
    }

    fn model(&self) -> &ModelConfig {
        &self.model
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn batch_count(&self, _epoch: u64) -> usize {
        self.train.len() / self.recipe.train.batch_size
    }

    fn batch(&self, epoch: u64, index: usize) -> Result<ListBatch> {
        let mut held = self.order.borrow_mut();
        let order = match held.take() {
            Some((of, order)) if of == epoch => order,
            _ => shuffled(self.train.len(), self.recipe.train.seed, "lists.order", epoch),
        };
        let size = self.recipe.train.batch_size;
        let numbers = &order[index * size..(index + 1) * size];
        let lists: Vec<&ListTokens> = numbers.iter().map(|&number| &self.train[number as usize]).collect();
        let place = (self.precision.dtype(), &self.device);
        let batch = ListBatch::new(&lists, self.context, &self.settings, place);
        *held = Some((epoch, order));
        batch
    }

    fn validate(
        &self,
        parameters: &Parameters,
        world: &dyn World,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        agree(world, self.measure(1, parameters, progress))
    }

    fn test(&self, parameters: &Parameters, progress: EvaluationProgress<'_>) -> Result<Option<Evaluation>> {
        let has_test = !self.lists.splits[2].is_empty();
        has_test.then(|| self.measure(2, parameters, progress)).transpose()
    }

    fn sample(&self, _parameters: &Parameters, _seed: u64) -> Result<Option<String>> {
        Ok(None)
    }

    fn files(&self, parameters: &Parameters) -> Result<Files> {
        Ok(vec![
            (CONFIG, to_json(&self.model)),
            (MODEL, save_tensors(&parameters.tensors())?),
            (TOKENIZER, self.tokenizer.to_json().into_bytes()),
            (RECIPE, self.recipe.to_toml().into_bytes()),
        ])
    }

    fn parameters_of(&self, checkpoint: &Checkpoint) -> Result<Parameters> {
        checkpoint.parameters_for(&self.model, self.precision.dtype(), &self.device)
    }
}
