//! What tensors a model has, and its first weights: the model is put together once to ask it.

use super::builder::{Builder, Source, TensorSpec};
use super::lm::LanguageModel;
use super::parameters::Parameters;
use crate::config::ModelConfig;
use crate::error::Result;
use candle_core::{DType, Device, Tensor};
use rhn_kernels::precision::Precision;
use std::collections::BTreeMap;

/// All tensors of the model that `config` describes, by name; nothing is allocated.
pub fn specs(config: &ModelConfig) -> Result<BTreeMap<String, TensorSpec>> {
    config.validate()?;
    let builder = Builder::new(Source::Describe, Precision::F32, &Device::Cpu);
    LanguageModel::build(config, &builder)?;
    Ok(builder.into_described())
}

/// How many numbers training finds.
pub fn parameter_count(config: &ModelConfig) -> Result<u64> {
    let specs = specs(config)?;
    let count = |spec: &TensorSpec| spec.shape.iter().product::<usize>() as u64;
    Ok(specs.values().filter(|spec| spec.trained).map(count).sum())
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
        let builder = Builder::new(Source::Draw { seed, scale, fixed: &fixed }, dtype.into(), device);
        LanguageModel::build(config, &builder)?;
        let (specs, tensors) = builder.into_drawn();
        Self::from_tensors(&specs, &tensors, dtype, device)
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
}
