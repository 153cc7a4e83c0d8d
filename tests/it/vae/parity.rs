//! Against PyTorch: `reference/make_vae.py` computes one sentence after another, so that padding has no part in anything.

use super::objective;
use crate::parity::{Golden, Report, assert_each_is_tested};
use candle_core::DType;
use rhn::data::items::SentenceBatch;
use rhn::model::latent::LatentConfig;
use rhn::model::{EncoderNoise, Noise, State};
use rhn::task::vae::ElboNoise;
use rhn::train::objective::Objective;
use serde_json::json;
use std::path::{Path, PathBuf};

/// `sentence: "file"`: one test a golden file.
macro_rules! golden {
    ($($sentence:ident: $file:literal,)*) => {
        const FILES: &[&str] = &[$($file),*];
        $(#[test] fn $sentence() { agrees_with_pytorch($file) })*
    };
}

golden! {
    a_vector_that_makes_the_first_state_equals_pytorch: "lstm-init",
    a_vector_beside_each_word_equals_pytorch: "rhn-input",
    a_bidirectional_encoder_and_free_bits_equal_pytorch: "gru-both-bidirectional",
    a_vector_without_highway_layers_equals_pytorch: "rhn-no-highway",
    a_mixture_for_a_prior_equals_pytorch: "gru-prior",
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/vae")
}

#[test]
fn every_golden_file_has_its_test() {
    assert_each_is_tested(&folder(), FILES);
}

fn latent_of(golden: &Golden) -> &LatentConfig {
    golden.config.spec.latent.as_ref().unwrap()
}

/// The Gaussian, the KL of each number, −ln p of each sentence, the loss and every gradient.
fn agrees_with_pytorch(file: &str) {
    let golden = Golden::read(&folder().join(format!("{file}.safetensors")));
    let lengths: Vec<usize> = serde_json::from_str(&golden.metadata["lengths"]).unwrap();
    let inputs = golden.tensor("inputs").clone();
    let batch = SentenceBatch { inputs, targets: golden.tensor("targets").clone(), lengths };
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-5)] {
        let mut report = Report { golden: &golden, dtype, tolerance, wrong: Vec::new() };
        let parameters = golden.parameters(dtype);
        let latent = golden.train.latent.clone().unwrap();
        let elbo = objective(&golden.config, &parameters, json!({}), latent.clone(), dtype);
        let none = EncoderNoise::default();
        let words = batch.words().unwrap();
        let posterior = elbo.model.posterior(&words, &batch.lengths, &none).unwrap();
        report.compare("mean", &posterior.mean);
        report.compare("log_variance", &posterior.log_variance);
        report.compare("divergence", &elbo.model.divergence(&posterior).unwrap());
        let noise = ElboNoise {
            masks: Noise::none(),
            encoder_masks: none.clone(),
            epsilon: golden.tensor("epsilon").to_dtype(dtype).unwrap(),
            inputs: golden.tensor("read").clone(),
            kl_weight: latent.schedule.last(),
            free_bits: latent.free_bits,
        };
        if latent_of(&golden).prior_components.is_some() {
            let z = posterior.sample(&noise.epsilon).unwrap();
            report.compare("remainder", &elbo.model.prior_remainder(&z).unwrap().unwrap());
            let ratio = elbo.model.log_prior_ratio(&posterior, &noise.epsilon).unwrap();
            report.compare("log_prior_ratio", &ratio);
        }
        let loss = elbo.loss(&batch, &State(Vec::new()), &noise).unwrap();
        report.compare("loss", &loss.objective.reshape(1).unwrap());
        // What is reported of the batch is the words' nats, time step by time step, and then the weighed KL.
        let (time, rows) = batch.targets.dims2().unwrap();
        let remainders = usize::from(latent_of(&golden).prior_components.is_some());
        let counts = time * rows + rows * (latent_of(&golden).size + remainders);
        assert_eq!(loss.sums.nats.elem_count(), counts);
        let nats = loss.sums.nats.narrow(0, 0, time * rows).unwrap().reshape((time, rows)).unwrap();
        report.compare("reconstruction", &nats.sum(0).unwrap());
        assert_eq!(loss.sums.tokens, 17); // 3 + 5 + 1 + 4 words and four ends
        let gradients = parameters.gradients(&loss.objective).unwrap();
        for ((name, _), gradient) in parameters.trained().zip(&gradients) {
            report.compare(&format!("grad.{name}"), gradient);
        }
        let frozen = elbo.model.freeze().unwrap();
        report.compare("mean", &frozen.posterior(&words, &batch.lengths, &none).unwrap().mean);
        assert!(report.wrong.is_empty(), "{file} in {dtype:?}:\n{}", report.wrong.join("\n"));
    }
}
