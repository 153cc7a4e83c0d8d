//! The sentence VAE: sentences as items in batches of similar length, the bound that is minimized, and what is measured.

mod objective;
mod prepare;

pub(crate) use objective::hide;
pub use objective::{Elbo, ElboNoise};
pub(crate) use prepare::sentence_end;
pub(super) use prepare::size_vae;

use super::order::batches;
use crate::checkpoint::Checkpoint;
use crate::config::{LatentTraining, ModelConfig, Recipe, Unit};
use crate::data::Tokenizer;
use crate::data::items::{Items, SentenceBatch};
use crate::error::Result;
use crate::eval::latent::{LatentSettings, UNUSED, evaluate};
use crate::eval::{Evaluation, EvaluationProgress};
use crate::model::{EncoderNoiseSource, NoiseSource, Parameters, SentenceVae};
use crate::parallel::world::{World, agree};
use crate::sample::sentences::{SentenceWriter, Written, prior};
use crate::storage::{CONFIG, MODEL, RECIPE, TOKENIZER, save_tensors, to_json};
use crate::train::averaging::Average;
use crate::train::step::Stepper;
use crate::train::task::{Data, Files, KlWeight, Task};
use crate::train::update::Update;
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Sentences of the model's own that are shown after an epoch, and the most tokens of one.
const SHOWN: usize = 3;
const SHOWN_TOKENS: usize = 60;

/// A recipe brought to its sentences: everything that a run needs before its first step.
pub struct VaeTask {
    recipe: Recipe,
    corpus: String,
    corpus_sha256: String,
    tokenizer: Tokenizer,
    train: Items,
    valid: Items,
    test: Option<Items>,
    /// Symbols of the splits for training, validation and test that the vocabulary lacks.
    unseen: [u64; 3],
    /// The token that ends a sentence, and from which a decoder begins.
    line_end: u32,
    model: ModelConfig,
    fixed: BTreeMap<String, Tensor>,
    precision: Precision,
    device: Device,
    /// Keys of the recipe whose values were taken from a checkpoint.
    taken: Vec<String>,
    /// The batches of the epoch that was asked for last.
    order: RefCell<Option<(u64, Vec<Vec<u32>>)>>,
}

impl VaeTask {
    /// With the `keys` of its recipe whose values were taken from a checkpoint.
    pub fn with_taken(self, keys: Vec<String>) -> Self {
        Self { taken: keys, ..self }
    }

    /// The vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What a token is.
    pub fn unit(&self) -> Unit {
        self.tokenizer.unit()
    }

    /// The sentences for training, for validation and, where the corpus has some, for the test.
    pub fn sentences(&self) -> (&Items, &Items, Option<&Items>) {
        (&self.train, &self.valid, self.test.as_ref())
    }

    /// Symbols of the splits for training, validation and test that the vocabulary lacks.
    pub fn unseen(&self) -> [u64; 3] {
        self.unseen
    }

    /// The first step's weights, drawn from the recipe's seed or taken from `init_from`, and all that changes them.
    pub fn stepper(&self, init_from: Option<&Checkpoint>) -> Result<Stepper<Elbo>> {
        let config = &self.recipe.train;
        let parameters = match init_from {
            None => self.first_parameters()?,
            Some(checkpoint) if self.prior_is_new(&checkpoint.config) => {
                self.parameters_with_prior(checkpoint)?
            }
            Some(checkpoint) => self.parameters_of(checkpoint)?,
        };
        let dtype = self.precision.dtype();
        let latent = training(&self.recipe);
        let objective = Elbo {
            model: SentenceVae::new(&self.model, &parameters, self.precision, &self.device)?,
            noise: NoiseSource::new(&self.model, &config.dropout, config.seed, dtype, &self.device),
            encoder_noise: EncoderNoiseSource::new(
                &self.model,
                &latent.encoder_dropout,
                config.seed,
                dtype,
                &self.device,
            ),
            latent,
            steps_per_epoch: self.steps_per_epoch(),
            unknown: self.tokenizer.unknown_id(),
            seed: config.seed,
        };
        let update = Update::new(config, &parameters, dtype, &self.device)?;
        Stepper::new(objective, parameters, update, Average::new(&config.averaging), config.batch_size)
    }

    /// Weights drawn from the recipe's seed.
    pub fn first_parameters(&self) -> Result<Parameters> {
        let config = &self.recipe.train;
        let fixed = self.fixed.clone();
        let dtype = self.precision.dtype();
        Parameters::draw(&self.model, fixed, config.seed, config.initial(), dtype, &self.device)
    }

    /// Whether this model has a learned prior and is otherwise that of `old`, which has none.
    fn prior_is_new(&self, old: &ModelConfig) -> bool {
        let [own, old] = [&self.model, old].map(|config| config.spec.latent.as_ref());
        own.zip(old).is_some_and(|(own, old)| own.grown_from(old).as_ref() == Some(own))
    }

    /// The weights of a checkpoint without a learned prior, whose weights are drawn from the recipe's seed.
    fn parameters_with_prior(&self, checkpoint: &Checkpoint) -> Result<Parameters> {
        let dtype = self.precision.dtype();
        let mut before = self.model.clone();
        before.spec.latent = checkpoint.config.spec.latent.clone();
        let mut weights = self.first_parameters()?.tensors();
        weights.extend(checkpoint.parameters_for(&before, dtype, &self.device)?.tensors());
        Parameters::load(&self.model, &weights, dtype, &self.device)
    }

    fn steps_per_epoch(&self) -> u64 {
        (self.train.len() / self.recipe.train.batch_size) as u64
    }

    /// A model on `parameters` for evaluation; it records nothing.
    fn frozen(&self, parameters: &Parameters) -> Result<SentenceVae> {
        SentenceVae::new(&self.model, parameters, self.precision, &self.device)?.freeze()
    }

    /// `sentences` with one draw of z each, the same in every epoch.
    fn measure(
        &self,
        parameters: &Parameters,
        (split, sentences, unseen): (&str, &Items, u64),
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        let model = self.frozen(parameters)?;
        let writer = SentenceWriter::new(&model, &self.tokenizer)?;
        let names = [&self.corpus, split];
        let mut found = evaluate(&writer, names, sentences, LatentSettings::default(), progress)?;
        found.oov_tokens = unseen;
        Ok(found)
    }
}

/// How the latent vector of a recipe comes into use.
fn training(recipe: &Recipe) -> LatentTraining {
    recipe.train.latent.clone().unwrap_or_default()
}

impl Task for VaeTask {
    type Objective = Elbo;

    fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    fn taken(&self) -> &[String] {
        &self.taken
    }

    /// Sizes in tokens that are predicted.
    fn data(&self) -> Data<'_> {
        let test = self.test.as_ref().map_or(0, Items::predicted);
        let tokens = [self.train.predicted(), self.valid.predicted(), test];
        Data { corpus: &self.corpus, sha256: &self.corpus_sha256, tokens }
    }

    fn model(&self) -> &ModelConfig {
        &self.model
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn batch_count(&self, _epoch: u64) -> usize {
        self.steps_per_epoch() as usize
    }

    fn batch(&self, epoch: u64, index: usize) -> Result<SentenceBatch> {
        let mut held = self.order.borrow_mut();
        let known = held.take().filter(|(of, _)| *of == epoch);
        let draw = || {
            let lengths: Vec<usize> =
                (0..self.train.len()).map(|number| self.train.get(number).len()).collect();
            let train = &self.recipe.train;
            (epoch, batches(&lengths, train.batch_size, train.seed, epoch))
        };
        let (_, order) = held.insert(known.unwrap_or_else(draw));
        self.train.batch(&order[index], self.line_end, &self.device)
    }

    fn validate(
        &self,
        parameters: &Parameters,
        world: &dyn World,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        agree(world, self.measure(parameters, ("valid", &self.valid, self.unseen[1]), progress))
    }

    fn test(&self, parameters: &Parameters, progress: EvaluationProgress<'_>) -> Result<Option<Evaluation>> {
        let test = self.test.as_ref();
        test.map(|test| self.measure(parameters, ("test", test, self.unseen[2]), progress)).transpose()
    }

    /// The likeliest words for some vectors of the prior, a sentence a line, without `<unk>` as `rhn sample` writes them.
    fn sample(&self, parameters: &Parameters, seed: u64) -> Result<Option<String>> {
        let model = self.frozen(parameters)?;
        let writer = SentenceWriter::new(&model, &self.tokenizer)?.without(self.tokenizer.unknown_id());
        let z = prior(&model, seed, SHOWN)?;
        let longest = self.recipe.corpus.longest_sentence.unwrap_or(SHOWN_TOKENS).min(SHOWN_TOKENS);
        let sentences = writer.greedy(&z, longest)?;
        let lines = sentences.iter().map(|ids| writer.text(&Written { ids: ids.clone(), nats: 0.0 }));
        Ok(Some(lines.collect::<Vec<_>>().join("\n")))
    }

    fn kl_weight(&self, step: u64) -> Option<KlWeight> {
        let schedule = training(&self.recipe).schedule;
        let [last, next] =
            [step.saturating_sub(1), step].map(|step| schedule.weight(step, self.steps_per_epoch()));
        let value = next.max(last); // where a cycle has just ended, that of its last step
        Some(KlWeight { value, is_last: schedule.is_reached(value) })
    }

    fn warning(&self, valid: &Evaluation, step: u64) -> Option<String> {
        let schedule = training(&self.recipe).schedule;
        let weight = self.kl_weight(step)?;
        let latent = valid.latent.as_ref()?;
        let is_unused = schedule.last() > 0.0 && weight.is_last && latent.is_unused();
        is_unused.then(|| UNUSED.into())
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
