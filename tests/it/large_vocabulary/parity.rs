//! Output layers, losses, AdaGrad and projected LSTMs against PyTorch's own modules: `reference/make_vocabulary.py`.

use crate::parity::{Golden, Report, apply_as_it_is, assert_each_is_tested, summed};
use candle_core::{D, DType, Device, Tensor};
use rhn::config::{LossConfig, ModelConfig};
use rhn::model::sampler::{Candidates, LogUniform};
use rhn::model::{LanguageModel, Noise, State};
use rhn::train::objective::Sums;
use rhn::train::update::{Step, Update};
use rhn_kernels::softmax::sampled::Kind;
use safetensors::SafeTensors;
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
    sampled_words_with_a_sum_for_each_row_equal_pytorch: "sampled-by-row",
    an_adaptive_softmax_with_a_sum_for_each_row_and_decay_equals_pytorch: "adaptive-by-row",
    an_adaptive_softmax_trained_by_adam_counts_each_weights_updates_as_pytorch: "adaptive-adam",
    adaptive_tables_trained_by_adamw_equal_pytorch: "adaptive-input-adamw",
    a_softmax_over_characters_equals_pytorch: "char-cnn",
    a_softmax_over_characters_with_a_correction_equals_pytorch: "char-cnn-correction",
    words_read_by_their_bytes_equal_pytorch: "char-cnn-bytes",
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/vocabulary")
}

#[test]
fn every_golden_file_has_its_test() {
    assert_each_is_tested(&folder(), FILES);
}

/// Words of the vocabulary have the characters that lm_1b gives them, and others the vectors that follow from theirs.
#[test]
fn over_bytes_any_string_has_the_vector_that_pytorch_computes() {
    let path = folder().join("char-cnn-bytes.safetensors");
    let golden = Golden::read(&path);
    let bytes = std::fs::read(&path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    let words = |name: &str| -> Vec<String> { serde_json::from_str(&metadata[name]).unwrap() };
    let (config, tables) = ModelConfig::for_words(golden.config.spec.clone(), &words("words")).unwrap();
    config.validate_spelling().unwrap();
    assert_eq!(config, golden.config);
    let spelled = tables["embedding.spelling"].to_vec2::<u32>().unwrap();
    let wanted = golden.tensor("param.embedding.spelling").to_dtype(DType::U32).unwrap();
    assert_eq!(spelled, wanted.to_vec2::<u32>().unwrap());

    let parameters = golden.parameters(DType::F64);
    let model = LanguageModel::new(&golden.config, &parameters, DType::F64, &Device::Cpu).unwrap();
    let model = model.freeze().unwrap();
    let unseen = words("unseen");
    // Every one twice, with words of the vocabulary between.
    let mut tokens = Vec::new();
    let mut given: Vec<Option<&[u8]>> = Vec::new();
    for word in unseen.iter().chain(&unseen) {
        tokens.extend([3u32, 4]);
        given.extend([Some(word.as_bytes()), None]);
    }
    let found = model.vectors(&tokens, &given).unwrap().to_vec2::<f64>().unwrap();
    let wanted = golden.tensor("unseen.vectors").to_vec2::<f64>().unwrap();
    let own = model.table().get(4).unwrap().to_vec1::<f64>().unwrap();
    for (pair, wanted) in found.chunks(2).zip(wanted.iter().chain(&wanted)) {
        assert!(pair[0].iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < 1e-12));
        assert_eq!(pair[1], own);
    }
}

/// The sizes that the paper gives: filters, highway layers and projection.
#[test]
fn the_published_char_cnn_over_bytes_has_the_published_size() {
    let spec = serde_json::json!({
        "embedding": {
            "kind": "char-cnn", "characters": "bytes", "char_size": 16, "max_word_length": 50, "projection": 1024,
            "filter_widths": [1, 2, 3, 4, 5, 6, 7, 8],
            "filter_counts": [32, 32, 64, 128, 256, 512, 1024, 2048],
            "highway_layers": 2
        },
        "core": {"kind": "lstm", "layers": 2, "hidden_size": 8192, "projection": 1024}
    });
    let words = ["<eos>".to_string(), "<unk>".to_string()];
    let (config, _) = ModelConfig::for_words(serde_json::from_value(spec).unwrap(), &words).unwrap();
    let specs = rhn::model::specs(&config).unwrap(); // shapes alone
    let count = |begin: &str, end: &str| -> u64 {
        let named = |name: &String| name.starts_with(&format!("embedding.{begin}")) && name.ends_with(end);
        specs.iter().filter(|(name, _)| named(name)).map(|(_, spec)| spec.count()).sum()
    };
    assert_eq!(count("conv.", ".weight"), 459_264);
    assert_eq!(count("highway.", ""), 67_125_248);
    assert_eq!(count("projection.", ""), 4_195_328);
    assert_eq!(count("characters", ""), 261 * 16);
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
        LossConfig::Exact {} | LossConfig::Distill(_) => return Noise::none(),
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
