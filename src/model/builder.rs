//! Hands a model its weights by name while it is put together: described, drawn from a seed, or taken.

use crate::error::{Error, Result};
use candle_core::{DType, Device, Shape, Tensor, Var};
use rhn_kernels::embedding::two_byte_table;
use rhn_kernels::precision::Precision;
use rhn_kernels::rng::Rng;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What a checkpoint must hold under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The tensor's shape.
    pub shape: Vec<usize>,
    /// For a table of indices, which training leaves alone: the number that all of them are below.
    pub below: Option<usize>,
    /// Whether there are steps that it has no part in, and no gradient from.
    pub rests: bool,
    /// Whether each row is of one word or character, so that an optimizer can remember one number of it.
    pub is_table: bool,
    /// Whether it is such a table of words, whose rows a loss over sampled words looks up and nothing else reads in training.
    pub is_of_words: bool,
}

impl TensorSpec {
    /// A trained weight.
    pub fn weight(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), below: None, rests: false, is_table: false, is_of_words: false }
    }

    /// A table of indices below `below`.
    pub fn indices(shape: &[usize], below: usize) -> Self {
        Self { shape: shape.to_vec(), below: Some(below), rests: false, is_table: false, is_of_words: false }
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

/// How first weights are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Initial {
    /// Which rule gives the range.
    pub rule: InitialRule,
    /// With `uniform` the range itself, else a factor on it.
    pub scale: f64,
}

/// Which rule gives the range that first weights are uniform in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitialRule {
    /// The same for all weights and biases: ± `init_scale`.
    #[default]
    Uniform,
    /// ± √(6 / (inputs + outputs)) for matrices, biases 0 (Glorot and Bengio, 2010).
    Glorot,
    /// ± √(6 / inputs) for matrices, biases 0 (He et al., 2015).
    He,
}

impl From<f64> for Initial {
    /// Uniform in ± `scale`.
    fn from(scale: f64) -> Self {
        Self { rule: InitialRule::Uniform, scale }
    }
}

impl Initial {
    /// The range of a weight of this shape, whose columns are those of `products` matrices; a vector is a bias.
    fn of_matrix(&self, shape: &[usize], products: usize) -> f64 {
        let [.., inputs, outputs] = shape else { return self.of_bias() };
        let inputs = *inputs as f64;
        let outputs = *outputs as f64 / products as f64;
        match self.rule {
            InitialRule::Uniform => self.scale,
            InitialRule::Glorot => self.scale * (6.0 / (inputs + outputs)).sqrt(),
            InitialRule::He => self.scale * (6.0 / inputs).sqrt(),
        }
    }

    fn of_bias(&self) -> f64 {
        if self.rule == InitialRule::Uniform { self.scale } else { 0.0 }
    }
}

/// Where the weights of a model under construction come from.
pub(super) enum Source<'a> {
    /// Nowhere: only names and shapes are wanted.
    Describe,
    /// From a seed; tables of words in numbers of the type `tables`.
    Draw { seed: u64, initial: Initial, fixed: &'a BTreeMap<String, Tensor>, tables: DType },
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
    /// Products whose columns lie side by side in the weights that are asked for.
    products: usize,
    /// Whether the weights that are asked for have no part in some steps.
    rests: bool,
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
        Self { source, precision, device, prefix: String::new(), products: 1, rests: false, asked }
    }

    /// Hands out the weights whose names begin with `name` and a dot.
    pub(super) fn under(&self, name: &str) -> Self {
        let prefix = format!("{}{name}.", self.prefix);
        Self { prefix, ..*self }
    }

    /// Hands out weights in which the columns of `count` products lie side by side: each is a matrix of its own where
    /// first values depend on a matrix's size.
    pub(super) fn products(&self, count: usize) -> Self {
        Self { prefix: self.prefix.clone(), products: count, ..*self }
    }

    /// Hands out weights that some steps' losses have no part of: without a gradient they are not updated.
    pub(super) fn without_gradient_at_times(&self) -> Self {
        Self { prefix: self.prefix.clone(), rests: true, ..*self }
    }

    pub(super) fn dtype(&self) -> DType {
        self.precision.dtype()
    }

    /// A weight, at first as the recipe's `train.init` says.
    pub(super) fn weight(&self, name: &str, shape: impl Into<Shape>) -> Result<Tensor> {
        self.weight_with(name, shape, |_, uniform| uniform)
    }

    /// A weight of one row a word or character; else as [`Builder::weight`].
    pub(super) fn table(&self, name: &str, shape: (usize, usize)) -> Result<Tensor> {
        self.table_with(name, shape, |_, uniform| uniform)
    }

    /// As [`Builder::table`], with first values as in [`Builder::weight_with`].
    pub(super) fn table_with(
        &self,
        name: &str,
        shape: (usize, usize),
        first: impl Fn(usize, f64) -> f64,
    ) -> Result<Tensor> {
        let shape = Shape::from(shape);
        let spec = TensorSpec { is_table: true, ..self.spec(&shape) };
        self.drawn(name, spec, |initial| initial.of_matrix(shape.dims(), self.products), first)
    }

    /// A table of words whose rows a loss over sampled words looks up, and nothing else reads in training; else as
    /// [`Builder::table`].
    pub(super) fn words(&self, name: &str, shape: (usize, usize)) -> Result<Tensor> {
        let shape = Shape::from(shape);
        let spec = TensorSpec { is_table: true, is_of_words: true, ..self.spec(&shape) };
        self.drawn(name, spec, |initial| initial.of_matrix(shape.dims(), self.products), |_, uniform| uniform)
    }

    /// A weight whose first values are made from their index and the number that they would have otherwise.
    pub(super) fn weight_with(
        &self,
        name: &str,
        shape: impl Into<Shape>,
        first: impl Fn(usize, f64) -> f64,
    ) -> Result<Tensor> {
        let shape = shape.into();
        let scale = |initial: &Initial| initial.of_matrix(shape.dims(), self.products);
        self.drawn(name, self.spec(&shape), scale, first)
    }

    /// A weight whose first values are uniform in ± `range`, whatever the recipe says.
    pub(super) fn weight_within(&self, name: &str, shape: impl Into<Shape>, range: f64) -> Result<Tensor> {
        self.drawn(name, self.spec(&shape.into()), |_| range, |_, uniform| uniform)
    }

    /// The biases of several layers, `(layers, …)`; else as [`Builder::weight_with`].
    pub(super) fn biases_with(
        &self,
        name: &str,
        shape: impl Into<Shape>,
        first: impl Fn(usize, f64) -> f64,
    ) -> Result<Tensor> {
        self.drawn(name, self.spec(&shape.into()), Initial::of_bias, first)
    }

    /// A trained weight as it is asked for here.
    fn spec(&self, shape: &Shape) -> TensorSpec {
        TensorSpec { rests: self.rests, ..TensorSpec::weight(shape.dims()) }
    }

    fn drawn(
        &self,
        name: &str,
        spec: TensorSpec,
        scale: impl Fn(&Initial) -> f64,
        first: impl Fn(usize, f64) -> f64,
    ) -> Result<Tensor> {
        let shape = Shape::from(&*spec.shape);
        let is_of_words = spec.is_of_words;
        self.tensor(name, spec, self.dtype(), |name| {
            let Source::Draw { seed, initial, tables, .. } = self.source else { return Err(missing(name)) };
            let scale = scale(initial);
            let mut rng = Rng::keyed(*seed, &format!("init.{name}"), 0);
            let draw = |index| first(index, scale * (2.0 * rng.uniform() - 1.0)) as f32;
            if is_of_words && *tables == DType::F16 {
                return Ok(two_byte_table((0..shape.elem_count()).map(draw), &shape)?);
            }
            let mut values = room_for(name, shape.elem_count())?;
            values.extend((0..shape.elem_count()).map(draw));
            // A variable at once: to make one of a tensor is to copy it, and a large table would be there twice.
            let drawn = Var::from_vec(values, shape.clone(), &Device::Cpu)?.into_inner();
            Ok(drawn.to_dtype(self.dtype())?)
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

/// From so many bytes on a weight is compared with the memory that is free.
const LARGE: usize = 1 << 30;

/// Room for the numbers of a weight; without it the process would be ended by the system.
fn room_for(name: &str, count: usize) -> Result<Vec<f32>> {
    let bytes = count.saturating_mul(size_of::<f32>());
    let refuse = |there: &str| {
        let wanted = bytes.div_ceil(1 << 20);
        Error::config(format!("{name} alone takes {wanted} MiB, {there}: smaller sizes fit"))
    };
    if let Some(free) = (bytes >= LARGE).then(free_memory).flatten().filter(|free| *free < bytes) {
        return Err(refuse(&format!("and {} MiB of memory are free", free >> 20)));
    }
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(count).map_err(|_| refuse("which this process does not get"))?;
    Ok(numbers)
}

/// The bytes that the system has left for programs, where it says so.
fn free_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<usize>().ok()?.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::room_for;

    #[test]
    fn a_weight_that_no_machine_has_room_for_is_refused() {
        for count in [usize::MAX, usize::MAX / 8, 1 << 44] {
            let message = room_for("core.0.input.weight", count).unwrap_err().to_string();
            assert!(
                message.contains("core.0.input.weight alone takes") && message.contains("MiB"),
                "{message}"
            );
        }
        assert!(room_for("output.bias", 10).unwrap().capacity() >= 10);
    }
}
