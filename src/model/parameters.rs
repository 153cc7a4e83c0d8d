//! The weights of a model, by name. Paths are the checkpoint's keys.

use super::builder::{TensorSpec, missing};
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor, Var};
use rhn_kernels::gradients::Gradients;
use std::collections::BTreeMap;

/// The weights of a model, by name.
#[derive(Debug)]
pub struct Parameters {
    trained: BTreeMap<String, Var>,
    fixed: BTreeMap<String, Tensor>,
}

impl Parameters {
    /// The tensors that `specs` asks for, copied.
    pub(super) fn from_tensors(
        specs: &BTreeMap<String, TensorSpec>,
        tensors: &BTreeMap<String, Tensor>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let mut parameters = Self { trained: BTreeMap::new(), fixed: BTreeMap::new() };
        for (name, spec) in specs {
            let tensor = tensors.get(name).ok_or_else(|| missing(name))?;
            if tensor.dims() != spec.shape {
                let what = format!("{:?} where the model has {:?}", tensor.dims(), spec.shape);
                return Err(Error::tensor(name, what));
            }
            let tensor = tensor.to_device(device)?;
            if spec.trained() {
                parameters.trained.insert(name.clone(), Var::from_tensor(&tensor.to_dtype(dtype)?)?);
            } else {
                parameters.fixed.insert(name.clone(), tensor);
            }
        }
        Ok(parameters)
    }

    /// The same weights with memory of their own; fixed tensors are shared.
    pub fn copy(&self) -> Result<Self> {
        let copied = |(name, var): (&String, &Var)| Ok((name.clone(), Var::from_tensor(&var.copy()?)?));
        Ok(Self {
            trained: self.trained.iter().map(copied).collect::<Result<_>>()?,
            fixed: self.fixed.clone(),
        })
    }

    /// The trained weights in name order.
    pub fn trained(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.trained.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// The gradient of `objective`, one number, for each trained weight, in the order of [`Parameters::trained`].
    pub fn gradients(&self, objective: &Tensor) -> Result<Vec<Tensor>> {
        let mut gradients = Gradients::of(objective)?;
        let mut gradient = |(name, var): (&str, &Var)| {
            let missing = || Error::Tensor(candle_core::Error::Msg(format!("{name} received no gradient")));
            gradients.remove(var)?.ok_or_else(missing)
        };
        self.trained().map(&mut gradient).collect()
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

    /// All tensors; gradients are recorded for those trained weights whose name is `wanted`.
    pub(crate) fn tracked_where(&self, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, Tensor> {
        let mut tensors = self.tensors();
        let wanted = self.trained.iter().filter(|(name, _)| wanted(name));
        tensors.extend(wanted.map(|(name, var)| (name.clone(), var.as_tensor().clone())));
        tensors
    }

    /// Builders hand out the variables themselves, so that gradients are recorded for them.
    pub(super) fn tracked(&self) -> BTreeMap<String, Tensor> {
        let trained = self.trained.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone()));
        trained.chain(self.fixed.clone()).collect()
    }
}
