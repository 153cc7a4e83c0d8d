//! The model against an independent PyTorch implementation: `reference/` holds it, and the arrays it wrote.

use candle_core::{DType, Device, Tensor, Var};
use rhn::config::{ModelConfig, TrainConfig};
use rhn::model::{LanguageModel, Noise, Parameters, State, WeightMasks};
use rhn::train::objective::Sums;
use rhn::train::update::{Step, Update};
use rhn_kernels::gradients::Gradient;
use rhn_kernels::scan::HiddenMask;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `sentence: "file"`: one test a golden file.
macro_rules! golden {
    ($($sentence:ident: $file:literal,)*) => {
        const FILES: &[&str] = &[$($file),*];
        $(#[test] fn $sentence() { agrees_with_pytorch($file) })*
    };
}

golden! {
    an_rhn_of_depth_1_equals_pytorch: "rhn-depth-1-tied",
    an_rhn_of_depth_3_equals_pytorch: "rhn-depth-3-tied",
    an_untied_rhn_with_a_square_embedding_equals_pytorch: "rhn-depth-3-untied-small-vocabulary",
    stacked_rhn_layers_equal_pytorch: "rhn-2-layers-untied",
    an_rhn_with_separate_masks_for_its_gates_equals_pytorch: "rhn-separate-gate-masks",
    the_character_aware_lstm_equals_pytorch: "char-cnn-lstm-2-layers",
    letters_into_an_rhn_equal_pytorch: "char-cnn-rhn",
    letters_projected_into_an_rhn_equal_pytorch: "char-cnn-projected-rhn",
    a_tied_lstm_equals_pytorch: "lstm-tied",
    an_lstm_with_variational_masks_equals_pytorch: "lstm-hidden-mask",
    stacked_grus_equal_pytorch: "gru-2-layers-tied",
    a_gru_with_variational_masks_equals_pytorch: "gru-hidden-mask",
    highway_layers_with_gates_of_their_own_equal_pytorch: "highway-full",
    highway_layers_with_a_carry_gate_alone_equal_pytorch: "highway-c-only",
    highway_layers_with_a_transform_gate_alone_equal_pytorch: "highway-t-only",
    residual_layers_equal_pytorch: "highway-residual",
    residual_layers_with_a_second_product_equal_pytorch: "highway-residual-linear",
    plain_layers_equal_pytorch: "highway-plain",
    coupled_highway_layers_with_another_transform_bias_equal_pytorch: "highway-coupled-open",
    a_highway_lstm_equals_pytorch: "hlstm-2-layers-tied",
    three_highway_lstm_layers_with_masked_depth_gates_equal_pytorch: "hlstm-3-layers-depth-mask",
    a_projected_highway_lstm_equals_pytorch: "hlstm-projected",
    a_depth_gated_lstm_equals_pytorch: "depth-gated-lstm",
    a_highway_lstm_with_stabilisers_equals_pytorch: "hlstm-stabilised",
    a_depth_gated_lstm_with_stabilisers_equals_pytorch: "depth-gated-lstm-stabilised",
    an_lstm_with_a_highway_layer_inside_equals_pytorch: "kurata-lstm-tied",
    stacked_lstms_with_highway_layers_inside_equal_pytorch: "kurata-lstm-2-layers",
    rhn_layers_that_share_their_transform_gate_equal_pytorch: "rhn-shared-gate",
    rhn_layers_that_share_both_gates_with_masks_apart_equal_pytorch: "rhn-shared-gates",
    an_rhn_of_depth_4_that_shares_both_gates_equals_pytorch: "rhn-shared-gates-untied",
    a_mixture_tied_to_vectors_of_another_size_equals_pytorch: "mixture-tied-rhn",
    an_untied_mixture_with_masks_at_every_step_equals_pytorch: "mixture-untied-lstm",
    a_mixture_over_characters_equals_pytorch: "mixture-char-cnn",
    an_rhn_with_every_mask_and_masked_weights_equals_pytorch: "weight-drop-rhn",
    an_rhn_with_masked_weights_and_shared_gates_equals_pytorch: "weight-drop-rhn-shared-gates",
    an_lstm_with_masked_weights_equals_pytorch: "weight-drop-lstm",
    a_gru_with_masked_weights_equals_pytorch: "weight-drop-gru",
    a_highway_lstm_with_masked_weights_equals_pytorch: "weight-drop-hlstm",
    a_depth_gated_lstm_with_masked_weights_equals_pytorch: "weight-drop-depth-gated-lstm",
    a_kurata_lstm_with_masked_weights_equals_pytorch: "weight-drop-kurata-lstm",
    mogrified_rhn_layers_with_every_mask_equal_pytorch: "mogrifier-rhn",
    a_mogrified_rhn_with_shared_gates_equals_pytorch: "mogrifier-rhn-shared-gates",
    mogrified_lstm_layers_equal_pytorch: "mogrifier-lstm",
    a_mogrified_lstm_of_low_rank_equals_pytorch: "mogrifier-lstm-rank",
    words_by_two_lstms_into_an_rhn_equal_pytorch: "char-lstm-rhn",
    words_by_two_lstms_and_highway_layers_equal_pytorch: "char-lstm-highway-lstm",
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
}

#[test]
fn every_golden_file_has_its_test() {
    assert_each_is_tested(&folder(), FILES);
}

/// Each fixture of the folder is in `tested`, and there is nothing else but what made them.
#[track_caller]
pub(crate) fn assert_each_is_tested(folder: &Path, tested: &[&str]) {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let beside = |path: &PathBuf| path.extension().is_none_or(|e| e == "py" || e == "md"); // and further folders
    let mut names: Vec<_> = files
        .filter(|path| !beside(path))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    let mut tested = tested.to_vec();
    tested.sort();
    assert_eq!(names, tested);
}

#[test]
fn what_is_not_a_number_passes_no_comparison() {
    let of = |values: &[f64]| Tensor::new(values, &Device::Cpu).unwrap();
    assert_eq!(distance(&of(&[1.0, 2.0]), &of(&[1.0, 4.0])), 0.5); // relative to the largest, 4
    assert_eq!(distance(&of(&[f64::NAN, 2.0]), &of(&[1.0, 4.0])), f64::INFINITY);
    assert_eq!(distance(&of(&[1.0, 4.0]), &of(&[1.0, f64::NAN])), f64::INFINITY);
    assert_eq!(distance(&of(&[f64::INFINITY]), &of(&[f64::INFINITY])), f64::INFINITY);
    assert_eq!(distance(&of(&[1.0]), &of(&[1.0, 4.0])), f64::INFINITY);
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

/// Logits, state, loss and every gradient, from a state that is not zero.
fn one_window(golden: &Golden, dtype: DType, report: &mut Report<'_>) {
    let parameters = golden.parameters(dtype);
    let model = LanguageModel::new(&golden.config, &parameters, dtype, &Device::Cpu).unwrap();
    let (tokens, targets) = (golden.tensor("tokens"), golden.tensor("targets"));
    let (state, masks) = (golden.state(&model), golden.masks(dtype, golden.optional("mask.word")));

    let (logits, after) = model.logits(tokens, &state, &masks).unwrap();
    report.compare("logits", &logits);
    for (name, part) in after.save() {
        report.compare(&name.replace("state", "final"), &part);
    }
    let (nats, _) = model.nats(tokens, targets, &state, &masks).unwrap();
    let loss = summed(&nats);
    report.compare("loss", &loss);
    let gradients = loss.backward().unwrap();
    for (name, variable) in parameters.trained() {
        let gradient = gradients.get(variable).unwrap_or_else(|| panic!("{name} receives no gradient"));
        report.compare(&format!("grad.{name}"), gradient);
    }

    if masks.weights.iter().all(|masks| masks.0.is_empty()) {
        // an evaluation has no masks of weights
        let (logits, _) = model.freeze().unwrap().logits(tokens, &state, &masks).unwrap();
        report.compare("logits", &logits);
    }
}

/// Each window's loss, each gradient's norm, and the weights after the last update.
fn twenty_steps(golden: &Golden, dtype: DType, report: &mut Report<'_>) {
    let parameters = golden.parameters(dtype);
    let model = LanguageModel::new(&golden.config, &parameters, dtype, &Device::Cpu).unwrap();
    let mut update = Update::new(&golden.train, &parameters, dtype, &Device::Cpu).unwrap();
    let windows = golden.tensor("curve.tokens");
    let (count, rows, batch) = windows.dims3().unwrap();
    let mut state = model.zero_state(batch).unwrap();
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for i in 0..count {
        let window = windows.get(i).unwrap();
        let tokens = window.narrow(0, 0, rows - 1).unwrap();
        let targets = window.narrow(0, 1, rows - 1).unwrap();
        let word = golden.optional("curve.mask.word").map(|mask| mask.get(i).unwrap());
        let masks = golden.masks(dtype, word.as_ref());
        let (nats, after) = model.nats(&tokens, &targets, &state, &masks).unwrap();
        let loss = summed(&nats);
        losses.push(values(&loss)[0]);
        let sums = Sums { nats: nats.detach(), tokens: targets.elem_count() as u64 };
        let step = Step { step: i as u64, rate: golden.train.learning_rate };
        norms.push(apply(&mut update, &parameters, &loss, &sums, step));
        state = after.detach();
    }
    report.compare("curve", &Tensor::new(losses, &Device::Cpu).unwrap());
    report.compare("curve.grad_norm", &Tensor::new(norms, &Device::Cpu).unwrap());
    for (name, variable) in parameters.trained() {
        report.compare(&format!("after.{name}"), variable);
    }
}

/// Summed over the window's steps, averaged over its batch rows.
pub(crate) fn summed(nats: &Tensor) -> Tensor {
    nats.mean(1).unwrap().sum_all().unwrap()
}

/// One update, clipped. Returns the gradient's norm before that.
pub(crate) fn apply(
    update: &mut Update,
    parameters: &Parameters,
    loss: &Tensor,
    sums: &Sums,
    step: Step,
) -> f64 {
    let store = loss.backward().unwrap();
    let gradient = |(name, variable): (&str, &Var)| {
        let gradient = store.get(variable).cloned();
        assert!(gradient.is_some() || parameters.rests(name), "{name} receives no gradient");
        gradient.map(Gradient::Dense)
    };
    update.step(parameters, parameters.trained().map(gradient).collect(), sums, step).unwrap();
    update.reports(true).unwrap().pop().unwrap().unwrap().grad_norm
}

/// As [`apply`], by the gradients in the form that the loss gives them.
pub(crate) fn apply_as_it_is(
    update: &mut Update,
    parameters: &Parameters,
    loss: &Tensor,
    sums: &Sums,
    step: Step,
) {
    let gradients = parameters.gradients_as_they_are(loss).unwrap();
    update.step(parameters, gradients, sums, step).unwrap();
    update.reports(true).unwrap().pop().unwrap().unwrap();
}

/// What PyTorch computed for one small model.
pub(crate) struct Golden {
    pub(crate) config: ModelConfig,
    pub(crate) train: TrainConfig,
    /// What further JSON there is, by name.
    pub(crate) metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().as_ref().expect("metadata");
        Self {
            metadata: metadata.clone().into_iter().collect(),
            config: serde_json::from_str(&metadata["config"]).unwrap(),
            train: serde_json::from_str(&metadata["train"]).unwrap(),
            tensors: candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
                .unwrap()
                .into_iter()
                .collect(),
        }
    }

    pub(crate) fn optional(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    pub(crate) fn tensor(&self, name: &str) -> &Tensor {
        self.optional(name).unwrap_or_else(|| panic!("the golden file has no {name}"))
    }

    /// The first weights.
    pub(crate) fn parameters(&self, dtype: DType) -> Parameters {
        self.parameters_of("param.", &self.config, dtype)
    }

    /// The weights of the model `config`, whose names begin with `prefix`.
    pub(crate) fn parameters_of(&self, prefix: &str, config: &ModelConfig, dtype: DType) -> Parameters {
        let named =
            |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.into(), tensor.clone()));
        let first = self.tensors.iter().filter_map(named).collect();
        Parameters::load(config, &first, dtype, &Device::Cpu).unwrap()
    }

    /// The state that enters the window.
    pub(crate) fn state(&self, model: &LanguageModel) -> State {
        let (_, batch) = self.tensor("tokens").dims2().unwrap();
        model.zero_state(batch).unwrap().load(&self.tensors).unwrap()
    }

    /// Those of a layer's recurrent weights.
    fn weight_masks(&self, pass: &str, layer: usize, dtype: DType) -> WeightMasks {
        let prefix = format!("{pass}.weights.core.{layer}.");
        let named = |(name, mask): (&String, &Tensor)| {
            Some((name.strip_prefix(&prefix)?.to_string(), mask.to_dtype(dtype).unwrap()))
        };
        WeightMasks(self.tensors.iter().filter_map(named).collect())
    }

    /// The masks, with `word` (time, batch) for the tokens at hand.
    fn masks(&self, dtype: DType, word: Option<&Tensor>) -> Noise {
        self.masks_of("mask", dtype, word)
    }

    /// Those whose names begin with `pass`.
    pub(crate) fn masks_of(&self, pass: &str, dtype: DType, word: Option<&Tensor>) -> Noise {
        let cast = |mask: &Tensor| mask.to_dtype(dtype).unwrap();
        let mask = |name: String| self.optional(&name).map(cast);
        let hidden = |k| match (mask(format!("{pass}.hidden.{k}")), mask(format!("{pass}.hidden_t.{k}"))) {
            (None, _) => HiddenMask::None,
            (Some(both), None) => HiddenMask::Shared(both),
            (Some(h), Some(t)) => HiddenMask::Separate { h, t },
        };
        let layers = 0..self.config.spec.core.layers();
        Noise {
            word: word.map(|word| cast(&word.unsqueeze(2).unwrap())),
            input: layers.clone().map(|k| mask(format!("{pass}.input.{k}"))).collect(),
            hidden: layers.clone().map(hidden).collect(),
            weights: layers.clone().map(|k| self.weight_masks(pass, k, dtype)).collect(),
            depth: (0..self.config.spec.core.layers()).map(|k| mask(format!("{pass}.depth.{k}"))).collect(),
            output: mask(format!("{pass}.output")),
            components: mask(format!("{pass}.components")),
            candidates: None,
        }
    }
}

/// Collects what differs, so that a failure shows all of it.
pub(crate) struct Report<'a> {
    pub(crate) golden: &'a Golden,
    pub(crate) dtype: DType,
    pub(crate) tolerance: f64,
    pub(crate) wrong: Vec<String>,
}

impl Report<'_> {
    pub(crate) fn compare(&mut self, name: &str, found: &Tensor) {
        let wanted = self.golden.tensor(name);
        let distance = distance(found, wanted);
        if distance > self.tolerance {
            let (dtype, tolerance) = (self.dtype, self.tolerance);
            self.wrong.push(format!(
                "{name} {dtype:?}: off by {distance:.1e} of its largest value, at most {tolerance:.0e} is allowed; \
                 found {:?} {:.6?}…, wanted {:?} {:.6?}…",
                found.dims(),
                &values(found)[..found.elem_count().min(4)],
                wanted.dims(),
                &values(wanted)[..wanted.elem_count().min(4)],
            ));
        }
    }
}

/// Largest difference relative to the largest wanted magnitude; infinite if a shape or a number is missing.
fn distance(found: &Tensor, wanted: &Tensor) -> f64 {
    if found.dims() != wanted.dims() {
        return f64::INFINITY;
    }
    let (found, wanted) = (values(found), values(wanted));
    let largest = wanted.iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let differences = found.iter().zip(&wanted).map(|(found, wanted)| (found - wanted).abs() / largest);
    differences.fold(
        0.0,
        |worst, difference| {
            if difference.is_nan() { f64::INFINITY } else { difference.max(worst) }
        },
    )
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}
