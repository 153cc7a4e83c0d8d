//! Hands a model its weights by name while it is put together: described, drawn from a seed, or taken.

use crate::error::{Error, Result};
use candle_core::{DType, Device, Shape, Tensor};
use rhn_kernels::precision::Precision;
use rhn_kernels::rng::Rng;
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
    precision: Precision,
    device: Device,
    described: RefCell<BTreeMap<String, TensorSpec>>,
    tensors: RefCell<BTreeMap<String, Tensor>>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(source: Source<'a>, precision: Precision, device: &Device) -> Self {
        Self {
            source,
            precision,
            device: device.clone(),
            described: RefCell::default(),
            tensors: RefCell::default(),
        }
    }

    pub(super) fn dtype(&self) -> DType {
        self.precision.dtype()
    }

    pub(super) fn precision(&self) -> Precision {
        self.precision
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
            Source::Describe => Ok(Tensor::zeros(0, self.dtype(), &self.device)?),
            Source::Take(tensors) => Ok(tensors.get(name).ok_or_else(|| missing(name))?.clone()),
            Source::Draw { seed, scale, .. } => {
                let mut rng = Rng::keyed(*seed, &format!("init.{name}"), 0);
                let draw = |index| first(index, scale * (2.0 * rng.uniform() - 1.0)) as f32;
                let values: Vec<f32> = (0..shape.elem_count()).map(draw).collect();
                let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
                self.keep(name, tensor.to_dtype(self.dtype())?.to_device(&self.device)?)
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

    /// What the model asked for.
    pub(super) fn into_described(self) -> BTreeMap<String, TensorSpec> {
        self.described.into_inner()
    }

    /// What the model asked for, and the tensors that were drawn for it.
    pub(super) fn into_drawn(self) -> (BTreeMap<String, TensorSpec>, BTreeMap<String, Tensor>) {
        (self.described.into_inner(), self.tensors.into_inner())
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

/// A tensor that the model has and its source lacks.
pub(super) fn missing(name: &str) -> Error {
    Error::checkpoint(Path::new(name), "the model has this tensor, the checkpoint lacks it")
}
