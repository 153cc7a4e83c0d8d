//! The models in memory: those that were asked for last, so many at most.

use super::super::args::DeviceArgs;
use super::super::output::load;
use super::Limits;
use super::engine::{Engine, Served};
use super::metrics::Metrics;
use crate::checkpoint::{self, Checkpoint};
use crate::error::{Error, Result};
use crate::model::LanguageModel;
use crate::predict::Loaded;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A model in memory. Dropped, it ends what was asked of it, and then its thread.
pub(super) struct Model {
    pub(super) engine: Engine,
    path: PathBuf,
    device: DeviceArgs,
    unpacked: Mutex<Option<Arc<LanguageModel>>>,
}

/// What models are loaded with.
pub(super) struct Loading {
    pub(super) device: DeviceArgs,
    pub(super) limits: Arc<Limits>,
    pub(super) metrics: Arc<Metrics>,
}

/// Models by name, the one that was asked for last at the end.
pub(super) struct Pool {
    most: usize,
    models: Mutex<Vec<(String, Arc<Model>)>>,
    /// One is loaded at a time, so that there are never more than `most`.
    one: Mutex<()>,
    loading: Loading,
}

impl Pool {
    pub(super) fn new(most: usize, loading: Loading) -> Self {
        Self { most, models: Mutex::default(), one: Mutex::default(), loading }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, Arc<Model>)>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model of this name, if it is loaded.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Model>> {
        let mut models = self.lock();
        let at = models.iter().position(|(loaded, _)| loaded == name)?;
        models[at..].rotate_left(1);
        models.last().map(|(_, model)| model.clone())
    }

    /// The model of this name, loaded from `path` if it is not there yet; the one that was asked for longest ago makes room.
    /// Fails if the checkpoint is refused.
    pub(super) fn load(&self, name: &str, path: &Path) -> Result<Arc<Model>> {
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = self.find(name) {
            return Ok(model);
        }
        while let Some(oldest) = self.surplus() {
            drop(oldest); // not while the others are locked
        }
        let model = Arc::new(self.open(path)?);
        let mut models = self.lock();
        models.push((name.into(), model.clone()));
        self.loading.metrics.set_models(models.len());
        Ok(model)
    }

    /// What must go before another is loaded.
    fn surplus(&self) -> Option<Arc<Model>> {
        let mut models = self.lock();
        let oldest = (models.len() >= self.most).then(|| models.remove(0).1);
        self.loading.metrics.set_models(models.len());
        oldest
    }

    /// A model beside those of the pool. Fails if the checkpoint is refused.
    pub(super) fn open(&self, path: &Path) -> Result<Model> {
        let Loading { device, limits, metrics } = &self.loading;
        let Loaded { model, tokenizer, .. } = load(path, device)?;
        let engine = Engine::start(Served { model, tokenizer }, limits.batch, limits.queue, metrics.clone());
        let engine = engine.map_err(Error::io("the model's thread"))?;
        Ok(Model { engine, path: path.to_path_buf(), device: device.clone(), unpacked: Mutex::default() })
    }

    /// All that are loaded.
    pub(super) fn all(&self) -> Vec<Arc<Model>> {
        self.lock().iter().map(|(_, model)| model.clone()).collect()
    }
}

impl Model {
    /// The model with its weights as they lie in the checkpoint, whose parts can be looked at; those that generate are packed.
    /// It is loaded when it is first asked for, and stays as long as the model does. Fails if the checkpoint is refused.
    pub(super) fn unpacked(&self) -> Result<Arc<LanguageModel>> {
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = &*unpacked {
            return Ok(model.clone());
        }
        let (device, precision) = self.device.open()?;
        let checkpoint = Checkpoint::open(&checkpoint::resolve(&self.path)?)?;
        let tensors = checkpoint.parameters(precision.dtype(), &device)?.tensors();
        let model = Arc::new(LanguageModel::of_tensors(&checkpoint.config, &tensors, precision, &device)?);
        Ok(unpacked.insert(model).clone())
    }
}
