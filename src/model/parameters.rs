//! The weights of a model, by name. Paths are the checkpoint's keys.

use super::builder::{TensorSpec, missing};
use super::config::ModelSpec;
use super::groups::UpdateGroup;
use crate::error::{Error, Result};
use candle_core::{D, DType, Device, Tensor, Var};
use rhn_kernels::gradients::{Gradient, Gradients};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The element types of a model's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightTypes {
    /// Of all but the tables of words.
    pub weights: DType,
    /// Of the tables of words: `weights`, or on the CPU f16 where a training only looks their rows up.
    pub tables: DType,
}

impl From<DType> for WeightTypes {
    /// The same for all.
    fn from(dtype: DType) -> Self {
        Self { weights: dtype, tables: dtype }
    }
}

impl WeightTypes {
    /// That of a weight.
    pub fn of(self, spec: &TensorSpec) -> DType {
        if spec.is_of_words { self.tables } else { self.weights }
    }
}

/// The weights of a model, by name.
#[derive(Debug)]
pub struct Parameters {
    trained: BTreeMap<String, Var>,
    /// Those of them of which training changes some columns alone.
    columns: BTreeMap<String, Range<usize>>,
    /// Weights that this training leaves as they are, and another may not.
    held: BTreeMap<String, Var>,
    /// Tables of indices.
    fixed: BTreeMap<String, Tensor>,
    /// Those trained weights that some steps have no part of.
    resting: BTreeSet<String>,
    /// Those with a row for each word or character.
    tables: BTreeSet<String>,
}

impl Parameters {
    /// The tensors that `specs` asks for, copied.
    pub(super) fn from_tensors(
        specs: &BTreeMap<String, TensorSpec>,
        tensors: &BTreeMap<String, Tensor>,
        types: WeightTypes,
        device: &Device,
    ) -> Result<Self> {
        let named = |chosen: fn(&TensorSpec) -> bool| {
            specs.iter().filter(move |(_, spec)| chosen(spec)).map(|(name, _)| name.clone()).collect()
        };
        let mut parameters = Self {
            trained: BTreeMap::new(),
            columns: BTreeMap::new(),
            held: BTreeMap::new(),
            fixed: BTreeMap::new(),
            resting: named(|spec| spec.rests),
            tables: named(|spec| spec.is_table),
        };
        for (name, spec) in specs {
            let tensor = tensors.get(name).ok_or_else(|| missing(name))?;
            if tensor.dims() != spec.shape {
                let what = format!("{:?} where the model has {:?}", tensor.dims(), spec.shape);
                return Err(Error::tensor(name, what));
            }
            let tensor = tensor.to_device(device)?;
            if spec.trained() {
                let var = Var::from_tensor(&tensor.to_dtype(types.of(spec))?)?;
                parameters.trained.insert(name.clone(), var);
            } else {
                parameters.fixed.insert(name.clone(), tensor);
            }
        }
        Ok(parameters)
    }

    /// The same weights, of which training changes those of `group` alone.
    ///
    /// # Errors
    /// If the model has no such weights.
    pub fn update_only(mut self, group: UpdateGroup, model: &ModelSpec) -> Result<Self> {
        if group.is_all() {
            return Ok(self);
        }
        for (name, var) in std::mem::take(&mut self.trained) {
            let width = var.dim(D::Minus1)?;
            let columns = group.columns(model, &name, width).unwrap_or(0..0);
            if columns.is_empty() {
                self.held.insert(name, var);
                continue;
            }
            if columns != (0..width) {
                self.columns.insert(name.clone(), columns);
            }
            self.trained.insert(name, var);
        }
        match self.trained.is_empty() {
            false => Ok(self),
            true => Err(Error::config(format!(
                "train.update = \"{}\": the model has no such weights; its core is {}",
                group.name(),
                model.core
            ))),
        }
    }

    /// The weights that this training leaves as they are, in name order.
    pub fn held(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.held.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// The columns of the trained weight `name` that training changes, if not all.
    pub fn columns(&self, name: &str) -> Option<&Range<usize>> {
        self.columns.get(name)
    }

    /// The same weights with memory of their own; those that training does not change are shared.
    pub fn copy(&self) -> Result<Self> {
        let copied = |(name, var): (&String, &Var)| Ok((name.clone(), Var::from_tensor(&var.copy()?)?));
        Ok(Self {
            trained: self.trained.iter().map(copied).collect::<Result<_>>()?,
            columns: self.columns.clone(),
            held: self.held.clone(),
            fixed: self.fixed.clone(),
            resting: self.resting.clone(),
            tables: self.tables.clone(),
        })
    }

    /// The trained weights in name order.
    pub fn trained(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.trained.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// The gradient of `objective`, one number, for each trained weight, in the order of [`Parameters::trained`]; zeros for
    /// one that this objective has no part of.
    pub fn gradients(&self, objective: &Tensor) -> Result<Vec<Tensor>> {
        let gradients = self.gradients_as_they_are(objective)?.into_iter().zip(self.trained.values());
        let dense = |(gradient, var): (Option<Gradient>, &Var)| match gradient {
            Some(gradient) => Ok(gradient.dense()?),
            None => Ok(var.zeros_like()?),
        };
        gradients.map(dense).collect()
    }

    /// As [`Parameters::gradients`], in the form that the objective gives them: of a table that was only looked up, those of
    /// its rows; `None` for a weight that this objective has no part of.
    ///
    /// # Errors
    /// If a weight without which there is no objective received no gradient.
    pub fn gradients_as_they_are(&self, objective: &Tensor) -> Result<Vec<Option<Gradient>>> {
        self.take_gradients(&mut Gradients::of(objective)?)
    }

    /// As [`Parameters::gradients_as_they_are`], of an objective that was gone back through.
    ///
    /// # Errors
    /// If a weight without which there is no objective received no gradient.
    pub fn take_gradients(&self, gradients: &mut Gradients) -> Result<Vec<Option<Gradient>>> {
        let gradient = |(name, var): (&str, &Var)| match gradients.remove_as_it_is(var)? {
            None if !self.rests(name) => {
                Err(Error::Tensor(candle_core::Error::Msg(format!("{name} received no gradient"))))
            }
            gradient => Ok(gradient),
        };
        self.trained().map(gradient).collect()
    }

    /// Whether there are steps that the weight `name` has no part in, and no gradient from.
    pub fn rests(&self, name: &str) -> bool {
        self.resting.contains(name)
    }

    /// Whether each row of the weight `name` is of one word or character.
    pub fn is_table(&self, name: &str) -> bool {
        self.tables.contains(name)
    }

    /// All tensors, trained and fixed, as a checkpoint keeps them; storage is shared.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let weights = self.trained.iter().chain(&self.held);
        let weights = weights.map(|(name, var)| (name.clone(), var.as_detached_tensor()));
        weights.chain(self.fixed.clone()).collect()
    }

    /// Overwrites the weights, whether training changes them or not, with those of `tensors`.
    pub fn restore(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, var) in self.trained.iter().chain(&self.held) {
            let tensor = tensors.get(name).ok_or_else(|| missing(name))?;
            var.set(&tensor.to_device(var.device())?.to_dtype(var.dtype())?)?;
        }
        Ok(())
    }

    /// How many numbers training finds, those among them that this training leaves as they are.
    pub fn count(&self) -> u64 {
        self.trained.values().chain(self.held.values()).map(|var| var.elem_count() as u64).sum()
    }

    /// How many numbers this training changes.
    pub fn updated_count(&self) -> u64 {
        let of_weight = |(name, var): (&String, &Var)| match self.columns.get(name) {
            None => var.elem_count(),
            Some(columns) => var.elem_count() / var.dims().last().map_or(1, |&width| width) * columns.len(),
        };
        self.trained.iter().map(|weight| of_weight(weight) as u64).sum()
    }

    /// All tensors; gradients are recorded for those trained weights whose name is `wanted`.
    pub(crate) fn tracked_where(&self, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, Tensor> {
        let mut tensors = self.tensors();
        let wanted = self.trained.iter().filter(|(name, _)| wanted(name));
        tensors.extend(wanted.map(|(name, var)| (name.clone(), var.as_tensor().clone())));
        tensors
    }

    /// Builders hand out the variables themselves, so that gradients are recorded for them.
    pub(super) fn tracked(&self) -> BTreeMap<String, Tensor> {
        self.tracked_where(|_| true)
    }
}
