//! What tensors a model has, its first weights, and what its products cost: the model is built once to ask it.

use super::builder::{Asked, Initial, Source, TensorSpec};
use super::classifier::Classifier;
use super::config::ModelConfig;
use super::language::LanguageModel;
use super::latent::SentenceVae;
use super::layers::Cost;
use super::parameters::{Parameters, WeightTypes};
use crate::error::Result;
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use std::collections::BTreeMap;

/// All tensors of the model that `config` describes, by name; nothing is allocated.
pub fn specs(config: &ModelConfig) -> Result<BTreeMap<String, TensorSpec>> {
    Ok(describe(config)?.1)
}

/// The products of the model that `config` describes.
pub fn cost(config: &ModelConfig) -> Result<Cost> {
    Ok(describe(config)?.0)
}

/// How many numbers training finds.
pub fn parameter_count(config: &ModelConfig) -> Result<u64> {
    Ok(specs(config)?.values().filter(|spec| spec.trained()).map(TensorSpec::count).sum())
}

fn describe(config: &ModelConfig) -> Result<(Cost, BTreeMap<String, TensorSpec>)> {
    config.validate()?;
    let (cost, asked) = build(config, &Source::Describe, Precision::F32, &Device::Cpu)?;
    Ok((cost, asked.specs))
}

/// What the products of the model cost, and what it has asked `source` for.
fn build(
    config: &ModelConfig,
    source: &Source<'_>,
    precision: Precision,
    device: &Device,
) -> Result<(Cost, Asked)> {
    if config.spec.classifier.is_some() {
        let (model, asked) = Classifier::build(config, source, precision, device)?;
        return Ok((model.cost(), asked));
    }
    Ok(match &config.spec.latent {
        None => {
            let (model, asked) = LanguageModel::build(config, source, precision, device)?;
            (model.cost(), asked)
        }
        Some(_) => {
            let (model, asked) = SentenceVae::build(config, source, precision, device)?;
            (model.cost(), asked)
        }
    })
}

impl Parameters {
    /// First weights drawn from `seed`, each tensor from a stream of its own, as `initial` says where the
    /// model wants nothing else. `fixed` are the model's tables of indices.
    pub fn draw(
        config: &ModelConfig,
        fixed: BTreeMap<String, Tensor>,
        seed: u64,
        initial: impl Into<Initial>,
        types: impl Into<WeightTypes>,
        device: &Device,
    ) -> Result<Self> {
        let types = types.into();
        let source = Source::Draw { seed, initial: initial.into(), fixed: &fixed, tables: types.tables };
        let (_, asked) = build(config, &source, types.weights.into(), device)?;
        Self::from_tensors(&asked.specs, &asked.drawn, types, device)
    }

    /// The weights in `tensors`, copied. Fails if a tensor is missing or has another shape than the model's; names it.
    pub fn load(
        config: &ModelConfig,
        tensors: &BTreeMap<String, Tensor>,
        types: impl Into<WeightTypes>,
        device: &Device,
    ) -> Result<Self> {
        Self::from_tensors(&specs(config)?, tensors, types.into(), device)
    }
}

#[cfg(test)]
mod tests {
    use super::super::builder::{Builder, Source};
    use candle_core::{DType, Device};
    use std::cell::RefCell;

    #[test]
    fn a_described_weight_has_its_shape_and_takes_no_memory() {
        let asked = RefCell::default();
        let builder = Builder::new(&Source::Describe, DType::F32.into(), &Device::Cpu, &asked);
        let weight = builder.under("core.0").weight("weight", (1 << 20, 1 << 20)).unwrap();
        assert_eq!(weight.dims(), [1 << 20, 1 << 20]);
        assert_eq!(weight.stride(), [0, 0]); // one number for all elements
        assert!(asked.borrow().specs.contains_key("core.0.weight"));
    }
}
