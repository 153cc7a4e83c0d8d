//! Hands a model its weights by name while it is put together: described, drawn from a seed, or taken.

use crate::error::{Error, Result};
use candle_core::{DType, Device, Shape, Tensor};
use rhn_kernels::precision::Precision;
use rhn_kernels::rng::Rng;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What a checkpoint must hold under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The tensor's shape.
    pub shape: Vec<usize>,
    /// For a table of indices, which training leaves alone: the number that all of them are below.
    pub below: Option<usize>,
}

impl TensorSpec {
    /// A trained weight.
    pub fn weight(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), below: None }
    }

    /// A table of indices below `below`.
    pub fn indices(shape: &[usize], below: usize) -> Self {
        Self { shape: shape.to_vec(), below: Some(below) }
    }

    /// Whether training changes the tensor.
    pub fn trained(&self) -> bool {
        self.below.is_none()
    }

    /// How many numbers it has.
    pub fn count(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64
    }
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
///
/// To describe a model is to build it on tensors that have the right shapes and no memory of their own, so a layer may
/// look at the shapes of its weights while it is built.
pub(super) struct Builder<'a> {
    source: &'a Source<'a>,
    pub(super) precision: Precision,
    pub(super) device: &'a Device,
    prefix: String,
    asked: &'a RefCell<Asked>,
}

/// What a model has asked for.
#[derive(Default)]
pub(super) struct Asked {
    /// Every tensor.
    pub(super) specs: BTreeMap<String, TensorSpec>,
    /// Those that were drawn.
    pub(super) drawn: BTreeMap<String, Tensor>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        source: &'a Source<'a>,
        precision: Precision,
        device: &'a Device,
        asked: &'a RefCell<Asked>,
    ) -> Self {
        Self { source, precision, device, prefix: String::new(), asked }
    }

    /// Hands out the weights whose names begin with `name` and a dot.
    pub(super) fn under(&self, name: &str) -> Self {
        let prefix = format!("{}{name}.", self.prefix);
        Self { prefix, ..*self }
    }

    pub(super) fn dtype(&self) -> DType {
        self.precision.dtype()
    }

    /// A weight, at first uniform in ± scale.
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
        self.tensor(name, TensorSpec::weight(shape.dims()), self.dtype(), |name| {
            let Source::Draw { seed, scale, .. } = self.source else { return Err(missing(name)) };
            let mut rng = Rng::keyed(*seed, &format!("init.{name}"), 0);
            let draw = |index| first(index, scale * (2.0 * rng.uniform() - 1.0)) as f32;
            let values: Vec<f32> = (0..shape.elem_count()).map(draw).collect();
            Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype())?)
        })
    }

    /// A table of u32 indices below `below`, which training leaves alone.
    pub(super) fn indices(&self, name: &str, shape: (usize, usize), below: usize) -> Result<Tensor> {
        let spec = TensorSpec::indices(&[shape.0, shape.1], below);
        self.tensor(name, spec, DType::U32, |name| {
            let Source::Draw { fixed, .. } = self.source else { return Err(missing(name)) };
            Ok(fixed.get(name).ok_or_else(|| missing(name))?.clone())
        })
    }

    fn tensor(
        &self,
        name: &str,
        spec: TensorSpec,
        dtype: DType,
        first: impl FnOnce(&str) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let name = format!("{}{name}", self.prefix);
        let tensor = match self.source {
            Source::Describe => Tensor::zeros((), dtype, self.device)?.broadcast_as(&*spec.shape)?,
            Source::Take(tensors) => tensors.get(&name).ok_or_else(|| missing(&name))?.clone(),
            Source::Draw { .. } => first(&name)?.to_device(self.device)?,
        };
        let mut asked = self.asked.borrow_mut();
        if let Source::Draw { .. } = self.source {
            asked.drawn.insert(name.clone(), tensor.clone());
        }
        asked.specs.insert(name, spec);
        Ok(tensor)
    }
}

/// A tensor that the model has and its source lacks.
pub(super) fn missing(name: &str) -> Error {
    Error::tensor(name, "the model has this tensor, the checkpoint lacks it")
}
