//! Named weights: described, drawn from a seed, or taken from a checkpoint. Paths are the checkpoint's keys.

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::model::lm::LanguageModel;
use crate::rng::Rng;
use candle_core::{DType, Device, Shape, Tensor, Var};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

/// What a checkpoint must hold under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The tensor's shape.
    pub shape: Vec<usize>,
    /// Whether training changes it; the others are tables of indices.
    pub trained: bool,
}

/// All tensors of the model that `config` describes, by name; nothing is allocated.
pub fn specs(config: &ModelConfig) -> Result<BTreeMap<String, TensorSpec>> {
    config.validate()?;
    let builder = Builder::new(Source::Describe, DType::F32, &Device::Cpu);
    LanguageModel::build(config, &builder)?;
    Ok(builder.described.into_inner())
}

/// How many numbers training finds.
pub fn parameter_count(config: &ModelConfig) -> Result<u64> {
    let specs = specs(config)?;
    let count = |spec: &TensorSpec| spec.shape.iter().product::<usize>() as u64;
    Ok(specs.values().filter(|spec| spec.trained).map(count).sum())
}

/// The weights of a model, by name.
#[derive(Debug)]
pub struct Parameters {
    trained: BTreeMap<String, Var>,
    fixed: BTreeMap<String, Tensor>,
}

impl Parameters {
    /// First weights drawn from `seed`, each tensor from a stream of its own, uniform in ± `scale` where the
    /// model wants nothing else. `fixed` are the model's tables of indices.
    pub fn draw(
        config: &ModelConfig,
        fixed: BTreeMap<String, Tensor>,
        seed: u64,
        scale: f64,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let builder = Builder::new(Source::Draw { seed, scale, fixed: &fixed }, dtype, device);
        LanguageModel::build(config, &builder)?;
        let specs = builder.described.into_inner();
        Self::from_tensors(&specs, &builder.tensors.into_inner(), dtype, device)
    }

    /// The weights in `tensors`, copied; names and shapes were checked when the checkpoint was opened.
    pub fn load(
        config: &ModelConfig,
        tensors: &BTreeMap<String, Tensor>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        Self::from_tensors(&specs(config)?, tensors, dtype, device)
    }

    fn from_tensors(
        specs: &BTreeMap<String, TensorSpec>,
        tensors: &BTreeMap<String, Tensor>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let mut parameters = Self { trained: BTreeMap::new(), fixed: BTreeMap::new() };
        for (name, spec) in specs {
            let tensor = tensors.get(name).ok_or_else(|| missing(name))?;
            if tensor.dims() != spec.shape {
                return Err(Error::checkpoint(
                    name,
                    format!("{:?} where the model has {:?}", tensor.dims(), spec.shape),
                ));
            }
            let tensor = tensor.to_device(device)?;
            if spec.trained {
                parameters.trained.insert(name.clone(), Var::from_tensor(&tensor.to_dtype(dtype)?)?);
            } else {
                parameters.fixed.insert(name.clone(), tensor);
            }
        }
        Ok(parameters)
    }

    /// The trained weights in name order.
    pub fn trained(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.trained.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// All tensors, trained and fixed, as a checkpoint keeps them; storage is shared.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let trained = self.trained.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor()));
        trained.chain(self.fixed.clone()).collect()
    }

    /// Overwrites the trained weights with those of `tensors`.
    pub fn restore(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, var) in &self.trained {
            let tensor = tensors.get(name).ok_or_else(|| missing(name))?;
            var.set(&tensor.to_device(var.device())?.to_dtype(var.dtype())?)?;
        }
        Ok(())
    }

    /// How many numbers training finds.
    pub fn count(&self) -> u64 {
        self.trained.values().map(|var| var.elem_count() as u64).sum()
    }

    /// Builders hand out the variables themselves, so that gradients are recorded for them.
    pub(super) fn tracked(&self) -> BTreeMap<String, Tensor> {
        let trained = self.trained.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone()));
        trained.chain(self.fixed.clone()).collect()
    }
}

fn missing(name: &str) -> Error {
    Error::checkpoint(Path::new(name), "the model has this tensor, the checkpoint lacks it")
}

/// Where the weights of a model under construction come from.
pub(super) enum Source<'a> {
    /// Nowhere: only names and shapes are wanted.
    Describe,
    /// From a seed.
    Draw { seed: u64, scale: f64, fixed: &'a BTreeMap<String, Tensor> },
    /// From tensors that exist.
    Take(&'a BTreeMap<String, Tensor>),
}

/// Hands a model its weights by name while it is put together.
pub(super) struct Builder<'a> {
    source: Source<'a>,
    dtype: DType,
    device: Device,
    described: RefCell<BTreeMap<String, TensorSpec>>,
    tensors: RefCell<BTreeMap<String, Tensor>>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(source: Source<'a>, dtype: DType, device: &Device) -> Self {
        Self {
            source,
            dtype,
            device: device.clone(),
            described: RefCell::default(),
            tensors: RefCell::default(),
        }
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// A weight, uniform in ± scale at first.
    pub(super) fn weight(&self, name: &str, shape: impl Into<Shape>) -> Result<Tensor> {
        self.weight_with(name, shape, |_, uniform| uniform)
    }

    /// A weight whose first values are made from their index and a number uniform in ± scale.
    pub(super) fn weight_with(
        &self,
        name: &str,
        shape: impl Into<Shape>,
        first: impl Fn(usize, f64) -> f64,
    ) -> Result<Tensor> {
        let shape = shape.into();
        self.describe(name, &shape, true);
        match &self.source {
            Source::Describe => Ok(Tensor::zeros(0, self.dtype, &self.device)?),
            Source::Take(tensors) => Ok(tensors.get(name).ok_or_else(|| missing(name))?.clone()),
            Source::Draw { seed, scale, .. } => {
                let mut rng = Rng::keyed(*seed, &format!("init.{name}"), 0);
                let draw = |index| first(index, scale * (2.0 * rng.uniform() - 1.0)) as f32;
                let values: Vec<f32> = (0..shape.elem_count()).map(draw).collect();
                let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
                self.keep(name, tensor.to_dtype(self.dtype)?.to_device(&self.device)?)
            }
        }
    }

    /// A table of indices, u32, which training leaves alone.
    pub(super) fn fixed(&self, name: &str, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        self.describe(name, &shape, false);
        match &self.source {
            Source::Describe => Ok(Tensor::zeros(0, DType::U32, &self.device)?),
            Source::Take(tensors) => Ok(tensors.get(name).ok_or_else(|| missing(name))?.clone()),
            Source::Draw { fixed, .. } => {
                let tensor = fixed.get(name).ok_or_else(|| missing(name))?;
                self.keep(name, tensor.to_device(&self.device)?)
            }
        }
    }

    fn describe(&self, name: &str, shape: &Shape, trained: bool) {
        let spec = TensorSpec { shape: shape.dims().to_vec(), trained };
        self.described.borrow_mut().insert(name.to_string(), spec);
    }

    fn keep(&self, name: &str, tensor: Tensor) -> Result<Tensor> {
        self.tensors.borrow_mut().insert(name.to_string(), tensor.clone());
        Ok(tensor)
    }
}
