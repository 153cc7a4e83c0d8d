//! Classification of images: the images of a corpus in an order drawn anew each epoch, and the loss of their labels.

use super::order::shuffled;
use crate::checkpoint::Checkpoint;
use crate::config::{CorpusConfig, ModelConfig, Recipe};
use crate::data::chosen::images_of;
use crate::data::images::{ImageCorpus, Images};
use crate::data::{DataDirectories, TrainedOn};
use crate::error::{Error, Result};
use crate::eval::images::evaluate;
use crate::eval::{Evaluation, EvaluationProgress};
use crate::model::{LanguageModel, Noise, NoiseSource, Parameters, State};
use crate::parallel::rows::Rows;
use crate::parallel::world::{World, agree};
use crate::storage::{CONFIG, MODEL, RECIPE, TOKENIZER, save_tensors, to_json};
use crate::train::averaging::Average;
use crate::train::objective::{Loss, Objective, Sums};
use crate::train::step::Stepper;
use crate::train::task::{Data, Files, Task};
use crate::train::update::Update;
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A recipe brought to its images: everything that a run needs before its first step.
pub struct ImageTask {
    recipe: Recipe,
    corpus: ImageCorpus,
    model: ModelConfig,
    precision: Precision,
    device: Device,
    /// The order of the epoch that was asked for last.
    order: RefCell<Option<(u64, Vec<u32>)>>,
}

/// Images and their labels: `(1, images, pixels)` and `(1, images)` of u32.
pub struct Labelled {
    /// From 0 to 1.
    pub images: Tensor,
    /// The classes' numbers.
    pub labels: Tensor,
}

impl ImageTask {
    /// Sizes the model for an open corpus.
    pub fn with_corpus(
        recipe: Recipe,
        corpus: ImageCorpus,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        let model = size_net(&recipe, &corpus)?;
        let batch = recipe.train.batch_size;
        if corpus.train.len() < batch {
            let what = format!("{} training images are too few for a batch of {batch}", corpus.train.len());
            return Err(Error::data(&corpus.name, what));
        }
        Ok(Self { recipe, corpus, model, precision, device: device.clone(), order: RefCell::default() })
    }

    /// The images.
    pub fn corpus(&self) -> &ImageCorpus {
        &self.corpus
    }

    /// The first step's weights, drawn from the recipe's seed or taken from `init_from`, and all that changes them.
    pub fn stepper(&self, init_from: Option<&Checkpoint>) -> Result<Stepper<Label>> {
        let config = &self.recipe.train;
        let parameters = match init_from {
            Some(checkpoint) => self.parameters_of(checkpoint)?,
            None => self.first_parameters()?,
        };
        let dtype = self.precision.dtype();
        let model = LanguageModel::new(&self.model, &parameters, self.precision, &self.device)?;
        let objective = Label {
            noise: NoiseSource::new(&self.model, &config.dropout, config.seed, dtype, &self.device),
            model,
        };
        let update = Update::new(config, &parameters, dtype, &self.device)?;
        Stepper::new(objective, parameters, update, Average::new(&config.averaging), config.batch_size)
    }

    /// Weights drawn from the recipe's seed.
    pub fn first_parameters(&self) -> Result<Parameters> {
        let config = &self.recipe.train;
        let dtype = self.precision.dtype();
        Parameters::draw(&self.model, BTreeMap::new(), config.seed, config.initial(), dtype, &self.device)
    }

    /// The numbers of the images of a batch.
    fn numbers(&self, epoch: u64, index: usize) -> Vec<u32> {
        let mut held = self.order.borrow_mut();
        if held.as_ref().is_none_or(|(of, _)| *of != epoch) {
            let count = self.corpus.train.len();
            *held = Some((epoch, shuffled(count, self.recipe.train.seed, "images.order", epoch)));
        }
        let (_, order) = held.as_ref().expect("it was drawn");
        let size = self.recipe.train.batch_size;
        order[index * size..(index + 1) * size].to_vec()
    }

    /// What decides which weights are kept, and what it is called.
    fn chosen_by(&self) -> (&'static str, &Images) {
        match &self.corpus.valid {
            Some(valid) => ("valid", valid),
            None => ("train", &self.corpus.train),
        }
    }
}

/// Refuses a model for images of another size; one that `is_new` can be made for these.
/// The net's sizes once the labels are known.
pub(super) fn size_net(recipe: &Recipe, corpus: &ImageCorpus) -> Result<ModelConfig> {
    let model = ModelConfig::new(recipe.model.clone(), corpus.classes);
    model.validate()?;
    check_pixels(&model, corpus, true)?;
    Ok(model)
}

fn check_pixels(model: &ModelConfig, corpus: &ImageCorpus, is_new: bool) -> Result<()> {
    let wanted = model.pixels();
    let found = corpus.train.size();
    if wanted == Some(found) {
        return Ok(());
    }
    let wanted = wanted.map_or("none".into(), |pixels| pixels.to_string());
    let what = format!("{} has images of {found} pixels, the model reads {wanted}", corpus.name);
    Err(Error::config(if is_new { format!("{what}: --set model.embedding.pixels={found}") } else { what }))
}

impl Task for ImageTask {
    type Objective = Label;

    fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    fn data(&self) -> Data<'_> {
        let ImageCorpus { train, valid, test, .. } = &self.corpus;
        let tokens =
            [train.len(), valid.as_ref().map_or(0, Images::len), test.len()].map(|count| count as u64);
        Data { corpus: &self.corpus.name, sha256: &self.corpus.sha256, tokens }
    }

    fn model(&self) -> &ModelConfig {
        &self.model
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn batch_count(&self, _epoch: u64) -> usize {
        self.corpus.train.len() / self.recipe.train.batch_size
    }

    fn batch(&self, epoch: u64, index: usize) -> Result<Labelled> {
        let numbers = self.numbers(epoch, index);
        let (images, labels) = self.corpus.train.batch(&numbers, self.precision.dtype(), &self.device)?;
        Ok(Labelled { images, labels })
    }

    /// On the training images where no others are kept apart: then the papers choose by the loss of training.
    fn validate(
        &self,
        parameters: &Parameters,
        world: &dyn World,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        let model = LanguageModel::new(&self.model, parameters, self.precision, &self.device)?;
        let (split, images) = self.chosen_by();
        // Each rank measures all of them: it takes a moment.
        let found = evaluate(&model, [&self.corpus.name, split], images, self.precision, progress);
        agree(world, found)
    }

    fn test(&self, parameters: &Parameters, progress: EvaluationProgress<'_>) -> Result<Option<Evaluation>> {
        let model = LanguageModel::new(&self.model, parameters, self.precision, &self.device)?;
        let names = [self.corpus.name.as_str(), "test"];
        evaluate(&model, names, &self.corpus.test, self.precision, progress).map(Some)
    }

    fn sample(&self, _parameters: &Parameters, _seed: u64) -> Result<Option<String>> {
        Ok(None)
    }

    fn files(&self, parameters: &Parameters) -> Result<Files> {
        Ok(vec![
            (CONFIG, to_json(&self.model)),
            (MODEL, save_tensors(&parameters.tensors())?),
            (TOKENIZER, self.corpus.labels()?.to_json().into_bytes()),
            (RECIPE, self.recipe.to_toml().into_bytes()),
        ])
    }

    fn parameters_of(&self, checkpoint: &Checkpoint) -> Result<Parameters> {
        checkpoint.parameters_for(&self.model, self.precision.dtype(), &self.device)
    }
}

/// The loss of the images' labels, averaged over a batch.
pub struct Label {
    /// The model, whose gradients are recorded.
    pub model: LanguageModel,
    /// Draws each batch's dropout masks.
    pub noise: NoiseSource,
}

impl Objective for Label {
    type Batch = Labelled;
    type Noise = Noise;

    fn zero_state(&self) -> Result<State> {
        self.model.zero_state(0)
    }

    fn noise(&self, batch: &Labelled, step: u64) -> Result<Noise> {
        self.noise.draw(&batch.labels, step, step)
    }

    fn rows(&self, batch: &Labelled, noise: Noise, rows: Rows) -> Result<(Labelled, Noise)> {
        let own =
            Labelled { images: rows.of_tensor(&batch.images, 1)?, labels: rows.of_tensor(&batch.labels, 1)? };
        Ok((own, rows.of_noise(noise)?))
    }

    fn loss(&self, batch: &Labelled, carried: &State, noise: &Noise) -> Result<Loss> {
        let (nats, carried) = self.model.nats(&batch.images, &batch.labels, carried, noise)?;
        let objective = nats.mean_all()?;
        let sums = Sums { nats: nats.detach(), tokens: batch.labels.elem_count() as u64 };
        Ok(Loss { objective, sums, carried, teacher: None })
    }
}

/// The corpus of a checkpoint that classifies images: the one that its run was trained on, or `corpus` in its place.
///
/// # Errors
/// If there is no such corpus, it is another than the run's, or its images are not of the model's size.
pub fn corpus_of(
    run: TrainedOn<'_>,
    corpus: Option<&str>,
    model: &ModelConfig,
    directories: &DataDirectories,
) -> Result<ImageCorpus> {
    let opened = match corpus {
        Some(name) => {
            ImageCorpus::open(&CorpusConfig { name: name.to_owned(), ..run.config.clone() }, directories)?
        }
        None => {
            let images = images_of(run, directories)?;
            run.check_images(&images)?;
            images
        }
    };
    check_pixels(model, &opened, false)?;
    if opened.classes > model.vocab_size {
        let what = format!("has {} classes, the model {}", opened.classes, model.vocab_size);
        return Err(Error::data(&opened.name, what));
    }
    Ok(opened)
}
