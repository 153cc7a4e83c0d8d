//! Classification of sentences: those of a labelled corpus in batches of like length, and the loss of their labels.

mod objective;

pub use objective::{LabelLoss, SentenceBatch};

use crate::checkpoint::Checkpoint;
use crate::config::{ModelConfig, Recipe};
use crate::data::Tokenizer;
use crate::data::labelled::LabelledCorpus;
use crate::data::lengths::drawn_batches;
use crate::error::{Error, Result};
use crate::eval::classify::{LabelledSentences, SentenceCutter, Threshold, evaluate};
use crate::eval::{Evaluation, EvaluationProgress};
use crate::model::{Classifier, Parameters, lent, specs};
use crate::parallel::world::{World, agree};
use crate::storage::{CONFIG, MODEL, RECIPE, THRESHOLD, TOKENIZER, save_tensors, to_json};
use crate::train::averaging::Average;
use crate::train::step::Stepper;
use crate::train::task::{Data, Files, Task};
use crate::train::update::Update;
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A recipe brought to its labelled sentences: everything that a run needs before its first step.
pub struct ClassifyTask {
    recipe: Recipe,
    corpus: String,
    sha256: String,
    tokenizer: Tokenizer,
    train: LabelledSentences,
    valid: LabelledSentences,
    test: Option<LabelledSentences>,
    /// Words of validation and test that the vocabulary lacks, where the embedding reads any word.
    words: Vec<String>,
    /// Elements of the corpus that are no sentences.
    left_out: u64,
    model: ModelConfig,
    fixed: BTreeMap<String, Tensor>,
    precision: Precision,
    device: Device,
    taken: Vec<String>,
    /// The batches of the epoch that was asked for last.
    batches: RefCell<Option<(u64, Vec<Vec<u32>>)>>,
}

/// What `threshold.json` of a checkpoint says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThresholdFile {
    /// The probability from which on a sentence is decided to need an edit.
    pub threshold: f64,
    /// F1 of these decisions on the validation split, on which it was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_f1: Option<f64>,
}

/// The model's sizes once the vocabulary is known, and its tables of characters.
pub(super) fn size_classifier(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
) -> Result<(ModelConfig, BTreeMap<String, Tensor>)> {
    let (model, fixed) = ModelConfig::for_words(recipe.model.clone(), tokenizer.words())?;
    specs(&model)?;
    Ok((model, fixed))
}

impl ClassifyTask {
    /// Takes the vocabulary of an open corpus (or goes on with `tokenizer`) and sizes the model.
    pub fn with_corpus(
        recipe: Recipe,
        corpus: LabelledCorpus,
        tokenizer: Option<Tokenizer>,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let build = || Tokenizer::build(&recipe.corpus, &corpus.training_text());
        let tokenizer = tokenizer.map_or_else(build, Ok)?;
        let (model, fixed) = size_classifier(&recipe, &tokenizer)?;
        let train = SentenceCutter::new(&tokenizer, &model).closed().cut_all(&corpus.train)?;
        let batch = recipe.train.batch_size;
        if train.labels.len() < batch {
            let what =
                format!("{} training sentences are too few for a batch of {batch}", train.labels.len());
            return Err(Error::data(&corpus.name, what));
        }
        let mut cutter = SentenceCutter::new(&tokenizer, &model);
        Ok(Self {
            train,
            valid: cutter.cut_all(&corpus.valid)?,
            test: corpus.test.as_ref().map(|test| cutter.cut_all(test)).transpose()?,
            words: cutter.words(),
            left_out: corpus.left_out,
            corpus: corpus.name,
            sha256: corpus.sha256,
            tokenizer,
            model,
            fixed,
            precision: precision.into(),
            device: device.clone(),
            taken: Vec::new(),
            batches: RefCell::default(),
            recipe,
        })
    }

    /// With the `keys` of its recipe whose values were taken from a checkpoint.
    pub fn with_taken(self, keys: Vec<String>) -> Self {
        Self { taken: keys, ..self }
    }

    /// The splits for training, for validation and, where the corpus has one, for the test.
    pub fn splits(&self) -> [Option<&LabelledSentences>; 3] {
        [Some(&self.train), Some(&self.valid), self.test.as_ref()]
    }

    /// The vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Elements of the corpus that are no sentences: nothing is left of them before the edit.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The first step's weights, drawn from the recipe's seed or, as far as they are there, taken from `init_from`, and all
    /// that changes them.
    pub fn stepper(&self, init_from: Option<&Checkpoint>) -> Result<Stepper<LabelLoss>> {
        let config = &self.recipe.train;
        let parameters = match init_from {
            None => self.first_parameters()?,
            Some(checkpoint) if checkpoint.config.spec.classifier.is_some() => {
                self.parameters_of(checkpoint)?
            }
            Some(checkpoint) => self.parameters_on(checkpoint)?,
        };
        let model = Classifier::new(&self.model, &parameters, self.precision, &self.device)?;
        let update = Update::new(config, &parameters, self.precision.dtype(), &self.device)?;
        let objective = LabelLoss::new(model, &self.model, config, self.precision);
        Stepper::new(objective, parameters, update, Average::new(&config.averaging), config.batch_size)
    }

    /// Weights drawn from the recipe's seed.
    pub fn first_parameters(&self) -> Result<Parameters> {
        let config = &self.recipe.train;
        let fixed = self.fixed.clone();
        let dtype = self.precision.dtype();
        Parameters::draw(&self.model, fixed, config.seed, config.initial(), dtype, &self.device)
    }

    /// Those of a language model's checkpoint for the embedding and the core that reads forward; the others are drawn.
    fn parameters_on(&self, checkpoint: &Checkpoint) -> Result<Parameters> {
        let dtype = self.precision.dtype();
        let mut weights = self.first_parameters()?.tensors();
        weights.extend(lent(checkpoint.weights(&specs(&checkpoint.config)?, dtype, &self.device)?));
        Parameters::load(&self.model, &weights, dtype, &self.device)
            .map_err(Error::in_file(&checkpoint.directory))
    }

    fn measure(
        &self,
        parameters: &Parameters,
        (split, sentences): (&str, &LabelledSentences),
        threshold: Threshold,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        let model = Classifier::frozen(&self.model, parameters, &self.words, self.precision, &self.device)?;
        evaluate(&model, [&self.corpus, split], sentences, threshold, progress)
    }
}

impl Task for ClassifyTask {
    type Objective = LabelLoss;

    fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    fn taken(&self) -> &[String] {
        &self.taken
    }

    /// Sentences take the place of tokens.
    fn data(&self) -> Data<'_> {
        let count = |split: Option<&LabelledSentences>| split.map_or(0, |split| split.labels.len() as u64);
        Data { corpus: &self.corpus, sha256: &self.sha256, tokens: self.splits().map(count) }
    }

    fn model(&self) -> &ModelConfig {
        &self.model
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn batch_count(&self, _epoch: u64) -> usize {
        self.train.labels.len() / self.recipe.train.batch_size
    }

    fn batch(&self, epoch: u64, index: usize) -> Result<SentenceBatch> {
        let mut held = self.batches.borrow_mut();
        if held.as_ref().is_none_or(|(of, _)| *of != epoch) {
            let lengths: Vec<usize> =
                self.train.sentences.iter().map(|sentence| sentence.ids.len()).collect();
            let config = &self.recipe.train;
            *held = Some((epoch, drawn_batches(&lengths, config.batch_size, config.seed, epoch)));
        }
        let (_, batches) = held.as_ref().expect("they were drawn");
        SentenceBatch::new(&self.train, &batches[index], self.precision.dtype(), &self.device)
    }

    /// At the threshold with the best F1. Each rank measures all of it.
    fn validate(
        &self,
        parameters: &Parameters,
        world: &dyn World,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        agree(world, self.measure(parameters, ("valid", &self.valid), Threshold::Best, progress))
    }

    /// At the threshold that validation finds with these weights.
    fn test(&self, parameters: &Parameters, progress: EvaluationProgress<'_>) -> Result<Option<Evaluation>> {
        let Some(test) = &self.test else { return Ok(None) };
        let valid = self.measure(parameters, ("valid", &self.valid), Threshold::Best, progress)?;
        let threshold = valid.decisions.map_or(Threshold::Best, |found| Threshold::At(found.threshold));
        self.measure(parameters, ("test", test), threshold, progress).map(Some)
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

    /// With the threshold; a run that stops before its first validation leaves a checkpoint without one.
    fn published(&self, parameters: &Parameters, valid: Option<&Evaluation>) -> Result<Files> {
        let mut files = self.files(parameters)?;
        let found = valid.and_then(|valid| valid.decisions);
        let file = found.map(|found| ThresholdFile { threshold: found.threshold, valid_f1: found.f1 });
        files.extend(file.map(|file| (THRESHOLD, to_json(&file))));
        Ok(files)
    }

    fn uniform_nats(&self) -> f64 {
        std::f64::consts::LN_2
    }

    fn parameters_of(&self, checkpoint: &Checkpoint) -> Result<Parameters> {
        checkpoint.parameters_for(&self.model, self.precision.dtype(), &self.device)
    }
}
