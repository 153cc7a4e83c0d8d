//! Sentence VAEs: against PyTorch, by differences, what is random in a step, the bounds, and from sentences to sentences.

mod bounds;
mod commands;
mod objective;
mod parity;
mod runs;

use candle_core::{DType, Device};
use rhn::config::{LatentTraining, ModelConfig};
use rhn::model::dropout::DropoutConfig;
use rhn::model::{EncoderNoiseSource, NoiseSource, Parameters, SentenceVae};
use rhn::task::vae::Elbo;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Weights of a small model, drawn in ± `scale`.
fn drawn(config: &ModelConfig, scale: f64) -> Parameters {
    Parameters::draw(config, BTreeMap::new(), 3, scale, DType::F64, &Device::Cpu).unwrap()
}

/// A model of `vocab_size` words.
fn config(vocab_size: usize, core: Value, latent: Value) -> ModelConfig {
    serde_json::from_value(json!({
        "model_type": "rhn", "vocab_size": vocab_size, "embedding": {"kind": "word", "size": 3}, "core": core,
        "output": {}, "latent": latent,
    }))
    .unwrap()
}

/// The objective of `parameters`, of a run with 10 steps an epoch whose `<unk>` is word 1.
fn objective(
    config: &ModelConfig,
    parameters: &Parameters,
    dropout: Value,
    latent: LatentTraining,
    dtype: DType,
) -> Elbo {
    let dropout: DropoutConfig = serde_json::from_value(dropout).unwrap();
    Elbo {
        model: SentenceVae::new(config, parameters, dtype, &Device::Cpu).unwrap(),
        noise: NoiseSource::new(config, &dropout, 7, dtype, &Device::Cpu),
        encoder_noise: EncoderNoiseSource::new(config, &latent.encoder_dropout, 7, dtype, &Device::Cpu),
        latent,
        steps_per_epoch: 10,
        unknown: Some(1),
        seed: 7,
    }
}
