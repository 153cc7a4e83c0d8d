//! Output layers, losses, AdaGrad and projected LSTMs against PyTorch's own modules: `reference/make_vocabulary.py`.

use crate::parity::{Golden, Report, apply_as_it_is, assert_each_is_tested, summed};
use candle_core::{D, DType, Device, Tensor};
use rhn::config::LossConfig;
use rhn::model::sampler::{Candidates, LogUniform};
use rhn::model::{LanguageModel, Noise, State};
use rhn::train::objective::Sums;
use rhn::train::update::{Step, Update};
use rhn_kernels::softmax::sampled::Kind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `sentence: "file"`: one test a golden file.
macro_rules! golden {
    ($($sentence:ident: $file:literal,)*) => {
        const FILES: &[&str] = &[$($file),*];
        $(#[test] fn $sentence() { agrees_with_pytorch($file) })*
    };
}

golden! {
    an_adaptive_softmax_trained_by_adagrad_equals_pytorch: "adaptive",
    an_adaptive_softmax_with_a_head_bias_over_projected_lstms_equals_pytorch: "adaptive-head-bias",
    an_adaptive_softmax_whose_last_cluster_has_one_word_equals_pytorch: "adaptive-one-cutoff",
    adaptive_tables_into_an_adaptive_softmax_equal_pytorch: "adaptive-input",
    an_adaptive_softmax_tied_to_adaptive_tables_equals_pytorch: "adaptive-input-tied",
    projected_lstms_trained_by_adagrad_with_decay_equal_pytorch: "lstm-projected",
    a_sampled_softmax_equals_pytorch: "sampled",
    a_sampled_softmax_over_the_embedding_equals_pytorch: "sampled-tied",
    noise_contrastive_estimation_equals_pytorch: "nce",
    a_softmax_over_characters_equals_pytorch: "char-cnn",
    a_softmax_over_characters_with_a_correction_equals_pytorch: "char-cnn-correction",
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/vocabulary")
}

#[test]
fn every_golden_file_has_its_test() {
    assert_each_is_tested(&folder(), FILES);
}

/// From the logits of all words, one by one.
#[test]
fn a_sampled_softmax_over_characters_is_that_of_its_logits() {
    const SAMPLES: [u32; 4] = [0, 7, 2, 11];
    const DRAWS: u64 = 6;
    let golden = Golden::read(&folder().join("char-cnn-correction.safetensors"));
    let parameters = golden.parameters(DType::F64);
    let model = LanguageModel::new(&golden.config, &parameters, DType::F64, &Device::Cpu).unwrap();
    let targets = golden.tensor("targets");
    let state = golden.state(&model);
    let sampler = LogUniform::new(golden.config.vocab_size);
    let candidates = Candidates::new(Kind::Softmax, sampler, SAMPLES.to_vec(), DRAWS);
    let noise = Noise { candidates: Some(Arc::new(candidates)), ..Noise::none() };
    let (found, _) = model.nats(golden.tensor("tokens"), targets, &state, &noise).unwrap();
    let (logits, _) = model.logits(golden.tensor("tokens"), &state, &Noise::none()).unwrap();
    let found = found.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let logits = logits.flatten(0, 1).unwrap().to_vec2::<f64>().unwrap();
    let targets = targets.flatten_all().unwrap().to_vec1::<u32>().unwrap();
    assert!(targets.iter().any(|target| SAMPLES.contains(target)));
    for ((found, logits), target) in found.iter().zip(logits).zip(targets) {
        let corrected = |word: u32| logits[word as usize] - sampler.log_expected(word, DRAWS);
        let others = SAMPLES.into_iter().filter(|&word| word != target);
        let sum: f64 = others.chain([target]).map(|word| corrected(word).exp()).sum();
        assert!((found - (sum.ln() - corrected(target))).abs() < 1e-12);
    }
}

fn agrees_with_pytorch(file: &str) {
    let golden = Golden::read(&folder().join(format!("{file}.safetensors")));
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-5)] {
        let mut report = Report { golden: &golden, dtype, tolerance, wrong: Vec::new() };
        one_window(&golden, dtype, &mut report);
        twenty_steps(&golden, dtype, &mut report);
        assert!(report.wrong.is_empty(), "{file} in {dtype:?}:\n{}", report.wrong.join("\n"));
    }
}

/// The words that step `step` of the golden file's loss is over.
fn noise(golden: &Golden, step: usize) -> Noise {
    let kind = match golden.train.loss {
        LossConfig::Exact | LossConfig::Distill(_) => return Noise::none(),
        LossConfig::Sampled { .. } => Kind::Softmax,
        LossConfig::Nce { .. } => Kind::Nce,
    };
    let ids = golden.tensor("curve.samples").get(step).unwrap().to_vec1().unwrap();
    let draws: u32 = golden.tensor("curve.draws").get(step).unwrap().to_scalar().unwrap();
    let sampler = LogUniform::new(golden.config.vocab_size);
    let candidates = Some(Arc::new(Candidates::new(kind, sampler, ids, u64::from(draws))));
    Noise { candidates, ..Noise::none() }
}

/// ln p of the whole vocabulary, state, loss and every gradient, from a state that is not zero.
fn one_window(golden: &Golden, dtype: DType, report: &mut Report<'_>) {
    let parameters = golden.parameters(dtype);
    let model = LanguageModel::new(&golden.config, &parameters, dtype, &Device::Cpu).unwrap();
    let tokens = golden.tensor("tokens");
    let targets = golden.tensor("targets");
    let state = golden.state(&model);
    let steps = golden.tensor("curve.tokens").dims()[0];

    let log_probabilities = |logits: &Tensor| {
        let highest = logits.max_keepdim(D::Minus1).unwrap();
        let sums = logits.broadcast_sub(&highest).unwrap().exp().unwrap().sum_keepdim(D::Minus1).unwrap();
        logits.broadcast_sub(&(sums.log().unwrap() + highest).unwrap()).unwrap()
    };
    let (logits, after) = model.logits(tokens, &state, &Noise::none()).unwrap();
    report.compare("log_probabilities", &log_probabilities(&logits));
    let frozen = model.freeze().unwrap();
    let (logits, _) = frozen.logits(tokens, &state, &Noise::none()).unwrap();
    report.compare("log_probabilities", &log_probabilities(&logits));
    for (name, part) in after.save() {
        report.compare(&name.replace("state", "final"), &part);
    }
    let (nats, _) = model.nats(tokens, targets, &state, &noise(golden, steps)).unwrap();
    let loss = summed(&nats);
    report.compare("loss", &loss);
    let gradients = parameters.gradients(&loss).unwrap();
    for ((name, _), gradient) in parameters.trained().zip(&gradients) {
        report.compare(&format!("grad.{name}"), gradient);
    }
    evaluates_over_the_whole_vocabulary(golden, &frozen, &state, report);
}

/// Nats of an evaluation, at temperature 1 and through the logits, are those of the whole vocabulary, samples or not.
fn evaluates_over_the_whole_vocabulary(
    golden: &Golden,
    frozen: &rhn::model::FrozenModel,
    state: &State,
    report: &mut Report<'_>,
) {
    let targets = golden.tensor("targets");
    let wanted = golden.tensor("log_probabilities").gather(&targets.unsqueeze(2).unwrap(), 2).unwrap();
    let wanted = wanted.squeeze(2).unwrap().neg().unwrap();
    let (ys, _) = frozen.hidden(golden.tensor("tokens"), state, &Noise::none()).unwrap();
    for temperature in [1.0, 1.0 + 1e-12] {
        let nats = frozen.nats_of(&ys, targets, &Noise::none(), temperature).unwrap();
        let off = (nats.to_dtype(DType::F64).unwrap() - &wanted).unwrap().abs().unwrap();
        let off: f64 = off.max_all().unwrap().to_scalar().unwrap();
        if off > report.tolerance * 4.0 {
            report
                .wrong
                .push(format!("nats of an evaluation at temperature {temperature} are off by {off:e}"));
        }
    }
}

/// Each window's loss, and the weights after the last update.
fn twenty_steps(golden: &Golden, dtype: DType, report: &mut Report<'_>) {
    let parameters = golden.parameters(dtype);
    let model = LanguageModel::new(&golden.config, &parameters, dtype, &Device::Cpu).unwrap();
    let mut update = Update::new(&golden.train, &parameters, dtype, &Device::Cpu).unwrap();
    let windows = golden.tensor("curve.tokens");
    let (count, rows, batch) = windows.dims3().unwrap();
    let mut state = model.zero_state(batch).unwrap();
    let mut losses = Vec::new();
    for i in 0..count {
        let window = windows.get(i).unwrap();
        let tokens = window.narrow(0, 0, rows - 1).unwrap();
        let targets = window.narrow(0, 1, rows - 1).unwrap();
        let (nats, after) = model.nats(&tokens, &targets, &state, &noise(golden, i)).unwrap();
        let loss = summed(&nats);
        losses.push(loss.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap());
        let sums = Sums { nats: nats.detach(), tokens: targets.elem_count() as u64 };
        let step = Step { step: i as u64, rate: golden.train.learning_rate };
        apply_as_it_is(&mut update, &parameters, &loss, &sums, step);
        state = after.detach();
    }
    report.compare("curve", &Tensor::new(losses, &Device::Cpu).unwrap());
    for (name, variable) in parameters.trained() {
        report.compare(&format!("after.{name}"), variable);
    }
}
