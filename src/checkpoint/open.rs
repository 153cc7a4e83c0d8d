//! Reads a published checkpoint, ours or another program's; refuses what is not whole and names the file.

use super::directory::{check_exists, read_published};
use crate::config::{ModelConfig, Recipe};
use crate::data::Tokenizer;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::model::config::MODEL_TYPE;
use crate::model::language::NO_LANGUAGE_MODEL;
use crate::model::layers::Embedding;
use crate::model::{
    FrozenModel, LanguageModel, Parameters, SentenceVae, TensorSpec, WeightTypes, embedding, specs,
};
use crate::storage::file_set::LoadedFile;
use crate::storage::{CONFIG, MANIFEST, MODEL, RECIPE, THRESHOLD, TOKENIZER, read, tensors};
use crate::task::classify::ThresholdFile;
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Why a model of images is refused where text is read.
const IMAGES: &str = "classifies images and reads no text: `rhn eval` and `rhn study` take it";

/// A checkpoint in memory; the weights are still the bytes of their file.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Where it lies.
    pub directory: PathBuf,
    /// What fixes the weights' shapes.
    pub config: ModelConfig,
    /// The bytes of `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// Where they were read from.
    pub tokenizer_path: PathBuf,
    /// `recipe.toml`, where there is one.
    pub recipe: Option<String>,
    /// `threshold.json`, where there is one: of a classifier of sentences that was validated.
    threshold: Option<LoadedFile>,
    /// Every file had the length and the hash that the manifest says. Without a manifest (another program's
    /// checkpoint) nothing could be checked.
    pub verified: bool,
    config_file: LoadedFile,
    model: LoadedFile,
}

impl Checkpoint {
    /// Reads the checkpoint in `directory` and changes nothing there. Fails with [`Error::Checkpoint`] and the name of
    /// the file that is missing, damaged or not understood.
    pub fn open(directory: &Path) -> Result<Self> {
        check_exists(directory)?;
        let (mut files, verified) = match read_published(directory)? {
            Some(files) => (files, true),
            None => (read_foreign(directory)?, false),
        };
        let mut take = |name: &str| {
            files.remove(name).ok_or_else(|| {
                Error::checkpoint(directory.join(name), format!("is missing: {MANIFEST} does not list it"))
            })
        };
        let config = take(CONFIG)?;
        let model = take(MODEL)?;
        let tokenizer = take(TOKENIZER)?;
        Ok(Self {
            directory: directory.to_path_buf(),
            config: parse_config(&config.path, &config.bytes)?,
            tokenizer: tokenizer.bytes,
            tokenizer_path: tokenizer.path,
            recipe: files.remove(RECIPE).map(text).transpose()?,
            threshold: files.remove(THRESHOLD),
            verified,
            config_file: config,
            model,
        })
    }

    /// The bytes of the files that fix what the model computes: `config.json`, `tokenizer.json`, `model.safetensors`.
    pub fn files(&self) -> [&[u8]; 3] {
        [&self.config_file.bytes, &self.tokenizer, &self.model.bytes]
    }

    /// The weights as `types` says on `device`: exactly the tensors of `expected`, all finite.
    pub fn weights(
        &self,
        expected: &BTreeMap<String, TensorSpec>,
        types: impl Into<WeightTypes>,
        device: &Device,
    ) -> Result<BTreeMap<String, Tensor>> {
        tensors::load_weights(&self.model.path, &self.model.bytes, expected, types.into(), device)
    }

    /// Every tensor of `model.safetensors` as it is stored, on the CPU: for a look at it.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        tensors::load_tensors(&self.model.path, &self.model.bytes, &Device::Cpu)
    }

    /// The SHA-256 of `model.safetensors`: which weights these are.
    pub fn weights_sha256(&self) -> String {
        sha256(&self.model.bytes)
    }

    /// The weights of its model, to be trained on. Fails if a tensor is missing, additional, of another shape, or not
    /// finite.
    pub fn parameters(&self, types: impl Into<WeightTypes>, device: &Device) -> Result<Parameters> {
        let types = types.into();
        let weights = self.weights(&specs(&self.config)?, types, device)?;
        Parameters::load(&self.config, &weights, types, device).map_err(Error::in_file(&self.model.path))
    }

    /// The weights, to be trained on as those of the model `config`; of another model they are refused.
    pub fn parameters_for(
        &self,
        config: &ModelConfig,
        types: impl Into<WeightTypes>,
        device: &Device,
    ) -> Result<Parameters> {
        // Whether the vocabulary is sorted by frequency was checked where it matters, with the words.
        let wanted = ModelConfig { sorted_by_frequency: self.config.sorted_by_frequency, ..config.clone() };
        if self.config != wanted {
            let what = format!("is another model: {}", differences(&self.config, &wanted));
            return Err(Error::checkpoint(&self.directory, what));
        }
        self.parameters(types, device)
    }

    /// Its model, for evaluation of text. Fails as [`Checkpoint::parameters`].
    pub fn model(&self, precision: Precision, device: &Device) -> Result<FrozenModel> {
        self.check_language()?;
        let parameters = self.parameters(precision.dtype(), device)?;
        LanguageModel::new(&self.config, &parameters, precision, device)?.freeze()
    }

    /// What makes vectors of its tokens, whatever the model does with them. Fails as [`Checkpoint::parameters`], and of a model
    /// of images.
    pub(crate) fn embedding(&self, precision: Precision, device: &Device) -> Result<Box<dyn Embedding>> {
        if self.config.pixels().is_some() {
            return Err(Error::checkpoint(&self.directory, IMAGES));
        }
        let parameters = self.parameters(precision.dtype(), device)?;
        embedding::of_parameters(&self.config, &parameters, precision, device)
    }

    /// Refuses what is no model of a text's next token.
    pub fn check_language(&self) -> Result<()> {
        match no_language_model(&self.config) {
            None => Ok(()),
            Some(what) => Err(Error::checkpoint(&self.directory, what)),
        }
    }

    /// Its sentence VAE, for evaluation. Fails as [`Checkpoint::parameters`], and if it is another kind of model.
    pub fn sentence_vae(&self, precision: Precision, device: &Device) -> Result<SentenceVae> {
        let parameters = self.parameters(precision.dtype(), device)?;
        let model = SentenceVae::new(&self.config, &parameters, precision, device);
        model.map_err(|error| Error::checkpoint(&self.directory, error.to_string()))?.freeze()
    }

    /// The same with the gradients of what is given to it, and none of its weights.
    pub fn sentence_vae_with_gradients(&self, precision: Precision, device: &Device) -> Result<SentenceVae> {
        let parameters = self.parameters(precision.dtype(), device)?;
        let model = SentenceVae::with_fixed_weights(&self.config, &parameters, precision, device);
        model.map_err(|error| Error::checkpoint(&self.directory, error.to_string()))
    }

    /// Where a classifier of sentences decides, if it was chosen. Fails if the file is not understood.
    pub fn threshold(&self) -> Result<Option<f64>> {
        let Some(file) = &self.threshold else { return Ok(None) };
        let read: ThresholdFile = serde_json::from_slice(&file.bytes)
            .map_err(|error| Error::checkpoint(&file.path, format!("is no threshold: {error}")))?;
        match read.threshold.is_finite() {
            true => Ok(Some(read.threshold)),
            false => Err(Error::checkpoint(&file.path, format!("has the threshold {}", read.threshold))),
        }
    }

    /// The vocabulary. Fails if it is not understood, or does not belong to the weights.
    pub fn read_tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = Tokenizer::parse(&self.tokenizer_path, &self.tokenizer)?;
        self.check_vocabulary(tokenizer.vocab_size())?;
        Ok(tokenizer)
    }

    /// Refuses a tokenizer that does not belong to the weights.
    pub fn check_vocabulary(&self, tokenizer_size: usize) -> Result<()> {
        if tokenizer_size == self.config.vocab_size {
            return Ok(());
        }
        let what = format!(
            "vocab_size is {}, but {} has a vocabulary of {tokenizer_size}: they belong to different models",
            self.config.vocab_size,
            self.tokenizer_path.display()
        );
        Err(Error::checkpoint(&self.config_file.path, what))
    }

    /// The run that it comes from, if it says so. Fails if its recipe is not understood.
    pub fn read_recipe(&self) -> Result<Option<Recipe>> {
        let path = self.directory.join(RECIPE);
        let refuse = |error: Error| Error::checkpoint(&path, error.to_string());
        let Some(text) = &self.recipe else { return Ok(None) };
        let recipe = Recipe::parse(text, Path::new(RECIPE)).map_err(refuse)?;
        recipe.validate().map_err(refuse)?;
        Ok(Some(recipe))
    }
}

/// What two models' settings have otherwise, key by key.
fn differences(own: &ModelConfig, wanted: &ModelConfig) -> String {
    let [own, wanted] = [own, wanted].map(|config| {
        let mut leaves = BTreeMap::new();
        json_leaves("", &serde_json::to_value(config).unwrap_or_default(), &mut leaves);
        leaves
    });
    let keys: BTreeSet<&String> = own.keys().chain(wanted.keys()).collect();
    let show = |leaves: &BTreeMap<String, String>, key: &String| {
        leaves.get(key).map_or("unset", String::as_str).to_string()
    };
    let differ = keys.into_iter().filter(|key| own.get(*key) != wanted.get(*key));
    let one = |key: &String| {
        let why = match key.as_str() {
            "latent.inputless" => " (train.latent.word_keep = 0 asks for it)",
            _ => "",
        };
        format!("its {key} is {}, wanted {}{why}", show(&own, key), show(&wanted, key))
    };
    differ.map(one).collect::<Vec<_>>().join(", ")
}

/// The values of a JSON object by their dotted keys.
fn json_leaves(key: &str, value: &serde_json::Value, leaves: &mut BTreeMap<String, String>) {
    let serde_json::Value::Object(object) = value else {
        leaves.insert(key.into(), value.to_string());
        return;
    };
    for (name, value) in object {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        json_leaves(&key, value, leaves);
    }
}

/// The files of a checkpoint without a manifest.
fn read_foreign(directory: &Path) -> Result<BTreeMap<String, LoadedFile>> {
    let mut names = vec![CONFIG, MODEL, TOKENIZER];
    for name in [RECIPE, THRESHOLD] {
        if read::exists(&directory.join(name))? {
            names.push(name);
        }
    }
    let read_one = |name: &str| {
        let path = directory.join(name);
        Ok((name.to_string(), LoadedFile { bytes: read::unverified(&path)?, path }))
    };
    names.into_iter().map(read_one).collect()
}

/// Whether a directory holds a model in another library's form, as `rhn export --to transformers` writes it: that has a
/// configuration and weights of the same names.
pub(crate) fn is_exported(directory: &Path) -> bool {
    let config = std::fs::read(directory.join(CONFIG)).ok();
    let config = config.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    config.is_some_and(|config| config["architectures"].is_array())
}

/// Why a model is none of a text's next token; `None` if it is one.
pub(crate) fn no_language_model(config: &ModelConfig) -> Option<&'static str> {
    if config.pixels().is_some() {
        Some(IMAGES)
    } else if config.spec.latent.is_some() {
        Some(NO_LANGUAGE_MODEL)
    } else if config.spec.classifier.is_some() {
        Some("classifies sentences and is no language model: `rhn eval` and `rhn judge` take it")
    } else {
        None
    }
}

/// The model that the bytes of a `config.json` describe; `path` is for messages. Fails with [`Error::Checkpoint`] if it
/// is no such file, or of a model that no machine can hold.
pub fn parse_config(path: &Path, bytes: &[u8]) -> Result<ModelConfig> {
    let refuse = |what: String| Error::checkpoint(path, what);
    let json: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| refuse(format!("is not JSON: {error}")))?;
    if json["model_type"] != MODEL_TYPE {
        return Err(refuse(format!("model_type is {}, wanted {MODEL_TYPE:?}", json["model_type"])));
    }
    let config: ModelConfig = serde_path_to_error::deserialize(json)
        .map_err(|error| refuse(format!("is not a model's configuration: {error}")))?;
    let valid = config.validate().and_then(|()| config.validate_spelling());
    valid.map_err(|error| refuse(error.to_string()))?;
    Ok(config)
}

fn text(file: LoadedFile) -> Result<String> {
    String::from_utf8(file.bytes)
        .map_err(|error| Error::checkpoint(&file.path, format!("is not text: {error}")))
}
