//! Stages: successive layers of one width, of which each computes a new state from the last one's (Greff et al., 2017,
//! arXiv 1612.07771). What such a stage did, for a study of it.

use candle_core::Tensor;

/// A stage at work on some rows: words of the vocabulary, or tokens of a text. No tensor has a history.
pub struct StageTrace {
    /// `(rows, units)`: what enters the first layer.
    pub entering: Tensor,
    /// In their order.
    pub layers: Vec<LayerTrace>,
}

/// What a layer of a stage made, `(rows, units)` each.
pub struct LayerTrace {
    /// Its output.
    pub state: Tensor,
    /// H, where a gate mixes it with the layer's input as another estimate of the same features.
    pub candidate: Option<Tensor>,
    /// T, where the layer has a transform gate.
    pub gate: Option<Tensor>,
    /// C, where the layer has a carry gate with weights of its own.
    pub carry: Option<Tensor>,
}

#[cfg(test)]
mod tests {
    use super::super::config::ModelConfig;
    use super::super::noise::Noise;
    use super::super::{LanguageModel, Parameters};
    use candle_core::{DType, Device, Tensor};
    use rhn_kernels::precision::Precision;
    use serde_json::{Value, json};

    fn model(embedding: Value, core: Value, precision: Precision) -> LanguageModel {
        let words = ["a", "bab", "<unk>", "aaa", "<eos>"].map(String::from);
        let spec = serde_json::from_value(json!({"embedding": embedding, "core": core})).unwrap();
        let (config, fixed) = ModelConfig::for_words(spec, &words).unwrap();
        let device = Device::Cpu;
        let drawn = Parameters::draw(&config, fixed, 3, 0.8, precision.dtype(), &device).unwrap();
        LanguageModel::of_tensors(&config, &drawn.tensors(), precision, &device).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_last_state_of_the_highway_layers_is_the_words_vector_to_the_bit() {
        for variant in ["coupled", "full", "c-only", "t-only", "residual", "residual-linear", "plain"] {
            let embedding = json!({"kind": "char-cnn", "char_size": 3, "filter_widths": [1, 2],
                "filter_counts": [3, 4], "highway": variant, "highway_layers": 2});
            let core = json!({"kind": "lstm", "hidden_size": 5});
            let model = model(embedding, core, Precision::F32);
            let ids = Tensor::new(&[0u32, 1, 2, 3, 4], &Device::Cpu).unwrap();
            let trace = model.trace_words(&ids).unwrap().unwrap();
            assert_eq!(trace.layers.len(), 2);
            assert_eq!(values(&trace.layers[1].state), values(&model.freeze().unwrap().table), "{variant}");
            let has = |part: &Option<Tensor>| part.is_some();
            let gated = ["coupled", "full", "t-only"].contains(&variant);
            let mixed = ["coupled", "full"].contains(&variant);
            let carries = ["full", "c-only"].contains(&variant);
            for layer in &trace.layers {
                assert_eq!(
                    [has(&layer.gate), has(&layer.candidate), has(&layer.carry)],
                    [gated, mixed, carries]
                );
            }
        }
    }

    #[test]
    fn the_highway_layers_behind_two_lstms_are_a_stage_too() {
        let embedding = json!({"kind": "char-lstm", "char_size": 3, "char_hidden": 4, "word_size": 6,
            "highway_layers": 2});
        let model = model(embedding, json!({"kind": "lstm", "hidden_size": 5}), Precision::F32);
        let ids = Tensor::new(&[0u32, 1, 2, 3, 4], &Device::Cpu).unwrap();
        let trace = model.trace_words(&ids).unwrap().unwrap();
        assert_eq!((trace.layers.len(), trace.entering.dims()), (2, &[5, 6][..]));
        assert_eq!(values(&trace.layers[1].state), values(&model.freeze().unwrap().table));
    }

    #[test]
    fn the_last_state_of_a_time_step_is_the_models_to_the_bit() {
        let precisions = [Precision::F32, Precision::Bf16, Precision::F64];
        for (shared, precision) in
            ["none", "transform", "both"].into_iter().flat_map(|shared| precisions.map(|one| (shared, one)))
        {
            let core = json!({"kind": "rhn", "layers": 2, "hidden_size": 9, "recurrence_depth": 3,
                "shared_gates": shared});
            let model = model(json!({"kind": "word"}), core, precision);
            let tokens = Tensor::new(&[[0u32, 1], [4, 3], [2, 2]], &Device::Cpu).unwrap();
            let zero = model.zero_state(2).unwrap();
            let (traces, after) = model.trace_steps(&tokens, &zero).unwrap().unwrap();
            let (_, wanted) = model.freeze().unwrap().logits(&tokens, &zero, &Noise::none()).unwrap();
            assert_eq!(traces.len(), 2);
            for (found, wanted) in after.0.iter().flatten().zip(wanted.0.iter().flatten()) {
                assert_eq!(values(found), values(wanted), "{shared} {precision:?}");
            }
            for trace in traces {
                let mut before = trace.entering.clone();
                for layer in trace.layers {
                    assert_eq!(layer.carry.is_some(), shared == "both");
                    let gate = layer.gate.unwrap();
                    let carry = layer.carry.unwrap_or_else(|| (1.0 - &gate).unwrap());
                    let transformed = (gate * layer.candidate.unwrap()).unwrap();
                    let mixed = (transformed + (carry * &before).unwrap()).unwrap();
                    let errors = values(&(mixed - &layer.state).unwrap());
                    assert!(errors.iter().all(|error| error.abs() < 1e-6));
                    before = layer.state;
                }
            }
        }
    }

    #[test]
    fn a_core_without_sublayers_has_no_stage() {
        let model = model(json!({"kind": "word"}), json!({"kind": "gru", "hidden_size": 5}), Precision::F32);
        let tokens = Tensor::new(&[[0u32], [4]], &Device::Cpu).unwrap();
        assert!(model.trace_steps(&tokens, &model.zero_state(1).unwrap()).unwrap().is_none());
        assert!(model.trace_words(&tokens.flatten_all().unwrap()).unwrap().is_none());
    }
}
