use super::{Asked, Intervention, Reading, Trained};
use crate::config::{ModelConfig, Unit};
use crate::data::Encoded;
use crate::eval::perplexity::{Split, batched};
use crate::model::{LanguageModel, Parameters, stages};
use crate::predict::tiny;
use candle_core::{DType, Device, Tensor};
use rhn_kernels::precision::Precision;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const TEXT: &str = "a bab abba\nbaab a abab\n";

/// A small model with weights large enough that every layer counts.
struct Case {
    config: ModelConfig,
    tensors: BTreeMap<String, Tensor>,
    text: Encoded,
    precision: Precision,
}

impl Case {
    fn new(embedding: Value, core: Value, precision: Precision) -> Self {
        Self::with_output(embedding, core, json!({"kind": "softmax"}), precision)
    }

    fn with_output(embedding: Value, core: Value, output: Value, precision: Precision) -> Self {
        let unit = if embedding["kind"] == "word" { Unit::Char } else { Unit::Word };
        let text = TEXT.repeat(8);
        let (encoded, vocab_size) = tiny::encoded(unit, &text);
        let spec =
            serde_json::from_value(json!({"embedding": embedding, "core": core, "output": output})).unwrap();
        let words: Vec<String> = tiny::tokenizer(unit, &text).words().to_vec();
        assert_eq!(words.len(), vocab_size);
        let (config, fixed) = ModelConfig::for_words(spec, &words).unwrap();
        let device = Device::Cpu;
        let drawn = Parameters::draw(&config, fixed, 3, 0.8, precision.dtype(), &device).unwrap();
        Self { tensors: drawn.tensors(), config, text: encoded, precision }
    }

    fn characters(variant: &str, layers: usize) -> Self {
        let embedding = json!({"kind": "char-cnn", "char_size": 3, "filter_widths": [1, 2], "filter_counts": [3, 4],
            "highway": variant, "highway_layers": layers});
        Self::new(embedding, json!({"kind": "lstm", "hidden_size": 5}), Precision::F32)
    }

    fn recurrent(layers: usize, depth: usize, precision: Precision) -> Self {
        let core = json!({"kind": "rhn", "layers": layers, "hidden_size": 6, "recurrence_depth": depth,
            "transform_bias": -1.0});
        Self::new(json!({"kind": "word"}), core, precision)
    }

    fn perplexity(&self, intervention: &Intervention) -> f64 {
        let split = Split { corpus: "tiny", split: "test", unit: Unit::Char, text: &self.text };
        let reading = Reading { split: &split, batch: 2, steps: 5 };
        let trained = Trained {
            config: &self.config,
            tensors: &self.tensors,
            precision: self.precision,
            device: &Device::Cpu,
        };
        trained.evaluate(intervention, reading, &mut |_, _| Ok(())).unwrap().perplexity.unwrap()
    }

    fn untouched(&self) -> f64 {
        self.perplexity(&Intervention::none(stages(&self.config)[0]))
    }

    fn all(&self) -> Vec<Intervention> {
        Asked { swap: true, repeat: true, ..Asked::default() }.interventions(&stages(&self.config)).unwrap()
    }

    /// Overwrites the transform gate's part of a bias, which lies behind H's.
    fn shut(&mut self, name: &str, sublayer: Option<usize>) {
        let bias = &self.tensors[name];
        let (rows, width) = if bias.rank() == 2 { bias.dims2().unwrap() } else { (1, bias.elem_count()) };
        let mut values: Vec<f64> =
            bias.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        for row in (0..rows).filter(|&row| sublayer.is_none_or(|wanted| wanted == row)) {
            values[row * width + width / 2..][..width / 2].fill(-1000.0);
        }
        let shut =
            Tensor::from_vec(values, bias.dims(), &Device::Cpu).unwrap().to_dtype(bias.dtype()).unwrap();
        self.tensors.insert(name.into(), shut);
    }
}

#[test]
fn no_change_gives_the_evaluations_perplexity_to_the_bit() {
    for case in [
        Case::characters("coupled", 3),
        Case::recurrent(1, 3, Precision::F32),
        Case::recurrent(2, 2, Precision::Bf16),
    ] {
        let parameters =
            Parameters::load(&case.config, &case.tensors, case.precision.dtype(), &Device::Cpu).unwrap();
        let model = LanguageModel::new(&case.config, &parameters, case.precision, &Device::Cpu).unwrap();
        let split = Split { corpus: "tiny", split: "test", unit: Unit::Char, text: &case.text };
        let wanted =
            batched(&model.freeze().unwrap(), &split, 2, 5, &mut |_, _| Ok(())).unwrap().perplexity.unwrap();
        for stage in stages(&case.config) {
            assert_eq!(case.perplexity(&Intervention::none(stage)).to_bits(), wanted.to_bits());
        }
    }
}

#[test]
fn every_change_of_every_variant_changes_the_perplexity() {
    for variant in ["coupled", "full", "c-only", "t-only", "residual", "residual-linear", "plain"] {
        let case = Case::characters(variant, 3);
        let untouched = case.untouched();
        for intervention in case.all() {
            assert_ne!(case.perplexity(&intervention), untouched, "{variant} {intervention:?}");
        }
    }
    for layers in [1, 2] {
        let case = Case::recurrent(layers, 3, Precision::F32);
        let untouched = case.untouched();
        let all = case.all();
        assert_eq!(all.len(), layers * (3 + 1 + 3)); // removals, one exchange, repeats
        for intervention in all {
            assert_ne!(case.perplexity(&intervention), untouched, "{intervention:?}");
        }
    }
}

#[test]
fn a_layer_whose_gate_is_shut_can_be_left_out() {
    for variant in ["coupled", "t-only"] {
        let mut case = Case::characters(variant, 2);
        case.shut("embedding.highway.1.bias", None);
        let removed = case.all().into_iter().find(|one| one.order == [0]).unwrap();
        assert_eq!(case.perplexity(&removed).to_bits(), case.untouched().to_bits(), "{variant}");
    }
    for precision in [Precision::F32, Precision::F64] {
        for sublayer in [1, 2] {
            let mut case = Case::recurrent(1, 3, precision);
            case.shut("core.0.bias", Some(sublayer));
            let removed = &case.all()[sublayer];
            assert_eq!(case.perplexity(removed).to_bits(), case.untouched().to_bits());
        }
    }
}

#[test]
fn an_output_over_characters_keeps_its_own_layers() {
    let embedding = json!({"kind": "char-cnn", "characters": "bytes", "max_word_length": 12, "char_size": 3,
        "filter_widths": [1, 2], "filter_counts": [3, 4], "highway_layers": 2});
    let output = json!({"kind": "char-cnn", "correction": 2});
    let mut case =
        Case::with_output(embedding, json!({"kind": "lstm", "hidden_size": 5}), output, Precision::F32);
    case.shut("embedding.highway.1.bias", None);
    let untouched = case.untouched();
    let all = case.all();
    let removed = all.iter().find(|one| one.order == [0]).unwrap();
    assert_eq!(case.perplexity(removed).to_bits(), untouched.to_bits());
    // The last layer only hands on what it receives, three times too.
    let repeated = all.iter().find(|one| one.order == [0, 1, 1, 1]).unwrap();
    assert_eq!(case.perplexity(repeated).to_bits(), untouched.to_bits());
}

#[test]
fn a_first_sublayer_whose_gate_is_shut_can_be_left_out() {
    let mut case = Case::recurrent(2, 2, Precision::F64);
    case.shut("core.0.bias", Some(0));
    let name = "core.0.input.weight";
    case.tensors.insert(name.into(), case.tensors[name].zeros_like().unwrap()); // that the input does not open it
    assert_eq!(case.perplexity(&case.all()[0]).to_bits(), case.untouched().to_bits());
}

#[test]
fn without_the_first_sublayer_nothing_gates_the_state_by_the_input() {
    let core = json!({"kind": "rhn", "layers": 1, "hidden_size": 6, "recurrence_depth": 3, "transform_bias": -1.0,
        "mogrifier": {"rounds": 3}});
    let gated = Case::new(json!({"kind": "word"}), core, Precision::F64);
    let mut plain = Case::recurrent(1, 3, Precision::F64);
    let ungated = gated.tensors.iter().filter(|(name, _)| !name.contains(".mogrifier."));
    plain.tensors = ungated.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    assert!(plain.tensors.len() < gated.tensors.len());
    let [found, wanted] = [&gated, &plain].map(|case| case.perplexity(&case.all()[0]));
    assert!((found - wanted).abs() < 1e-12 * wanted, "{found} is not {wanted}");
}

#[test]
fn without_the_one_sublayer_the_state_stays_at_zero() {
    let mut case = Case::recurrent(1, 1, Precision::F32);
    let found = case.perplexity(&case.all()[0]);
    let weight = case.tensors["output.weight"].zeros_like().unwrap();
    case.tensors.insert("output.weight".into(), weight); // a state of zero is as good as no output weight
    assert_eq!(found.to_bits(), case.untouched().to_bits());
}

#[test]
fn a_sublayer_that_reads_the_input_keeps_its_place() {
    let case = Case::recurrent(1, 3, Precision::F32);
    let stage = stages(&case.config)[0];
    let rearranged = |order: &[usize]| stage.rearranged(&case.config, &case.tensors, order).map(drop);
    assert!(rearranged(&[1, 0, 2]).unwrap_err().to_string().contains("reads the input"));
    assert!(rearranged(&[0, 3]).unwrap_err().to_string().contains("layer 4 of 3"));
    assert!(rearranged(&[0, 2, 1, 1]).is_ok());
}
