//! What a study of an image classifier works on: a checkpoint and a part of its own images.

use crate::checkpoint::Checkpoint;
use crate::config::Recipe;
use crate::data::images::Images;
use crate::data::{DataDirectories, SplitName, TrainedOn};
use crate::error::{Error, Result};
use crate::model::{LanguageModel, Parameters};
use crate::predict::corpus_sha256;
use crate::readable::grouped;
use crate::storage::RECIPE;
use crate::study::directory::StudyDirectory;
use crate::task::images::corpus_of;
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A net and its images.
pub(super) struct ImageSubject {
    pub(super) model: LanguageModel,
    pub(super) images: Images,
    pub(super) recipe: Recipe,
    checkpoint: Checkpoint,
    corpus: String,
    split: SplitName,
    out: Option<PathBuf>,
}

impl ImageSubject {
    /// Opens the images that the checkpoint's recipe names, at most `count` of them. Fails if they or the weights are
    /// refused.
    pub(super) fn open(
        checkpoint: Checkpoint,
        split: SplitName,
        count: Option<usize>,
        out: Option<PathBuf>,
        directories: &DataDirectories,
        (device, precision): (Device, Precision),
    ) -> Result<Self> {
        let missing = "is missing: it says which images the net was trained on";
        let path = checkpoint.directory.join(RECIPE);
        let recipe = checkpoint.read_recipe()?.ok_or_else(|| Error::checkpoint(path, missing))?;
        let sha256 = corpus_sha256(&checkpoint.directory);
        let run =
            TrainedOn { config: &recipe.corpus, sha256: sha256.as_deref(), directory: &checkpoint.directory };
        let corpus = corpus_of(run, None, &checkpoint.config, directories)?;
        let absent = || Error::data(&corpus.name, "has no validation images: corpus.split keeps none apart");
        let all = match split {
            SplitName::Train => corpus.train.clone(),
            SplitName::Test => corpus.test.clone(),
            SplitName::Valid => corpus.valid.clone().ok_or_else(absent)?,
            SplitName::All => {
                return Err(Error::config("--split all is for text: name train, valid or test"));
            }
        };
        let images = all.first(count.unwrap_or(all.len()));
        if images.is_empty() {
            return Err(Error::config("--tokens 0 leaves no image to read"));
        }
        let parameters = checkpoint.parameters(precision.dtype(), &device)?;
        let model = LanguageModel::of_tensors(&checkpoint.config, &parameters.tensors(), precision, &device)?;
        Ok(Self { model, images, recipe, checkpoint, corpus: corpus.name, split, out })
    }

    /// The corpus and the split.
    pub(super) fn names(&self) -> [&str; 2] {
        [&self.corpus, self.split.as_str()]
    }

    /// The weights by name.
    pub(super) fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let dtype = self.model.precision().dtype();
        Ok(self.checkpoint.parameters(dtype, self.model.device())?.tensors())
    }

    /// The run's directory.
    pub(super) fn run(&self) -> &Path {
        &self.checkpoint.directory
    }

    /// The same net with the weights that its run's seed draws.
    pub(super) fn untrained(&self) -> Result<LanguageModel> {
        let train = &self.recipe.train;
        let config = self.model.config();
        let device = self.model.device();
        let precision = self.model.precision();
        let dtype = precision.dtype();
        let drawn = Parameters::draw(config, BTreeMap::new(), train.seed, train.initial(), dtype, device)?;
        LanguageModel::of_tensors(config, &drawn.tensors(), precision, device)
    }

    /// The directory of the study's results. Fails if it cannot be made.
    pub(super) fn directory(&self, study: &str) -> Result<StudyDirectory> {
        StudyDirectory::create(self.out.as_deref(), &self.checkpoint.directory, study)
    }

    /// What was read, for the head of a table.
    pub(super) fn describe(&self) -> String {
        let [corpus, split] = self.names();
        format!("{corpus}, {split} split, {} images\n\n", grouped(self.images.len() as u64))
    }
}
