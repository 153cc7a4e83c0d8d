//! Groups of weights that can learn while all others stay as they were trained: in training (`train.update`) and in dynamic
//! evaluation (`--dynamic-update`).
//!
//! | part | its gates |
//! | --- | --- |
//! | RHN | T of every sublayer, or the shared ones, C among them: input and recurrent weights, biases |
//! | LSTM | i, o and f, not g |
//! | GRU | r and z |
//! | highway LSTM | i, o and f with their peepholes, and the depth gates; of `kurata` i, o, f and the highway layer's T |
//! | highway layers over characters | T and C, as far as the variant has them |
//! | LSTMs over characters (`char-lstm`) | i, o and f, not g |
//!
//! Gates are columns of tensors that hold the candidate's weights too. A projection, a Mogrifier and what a first layer of a
//! highway LSTM carries are no gates.

use super::config::ModelSpec;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A group of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateGroup {
    /// Every trained weight
    #[default]
    All,
    /// The weights and biases of the gates of recurrent and highway layers
    Gates,
    /// Their biases
    GateBiases,
    /// The bias of the output layer
    OutputBias,
}

impl UpdateGroup {
    /// As flags, recipes and reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Gates => "gates",
            Self::GateBiases => "gate-biases",
            Self::OutputBias => "output-bias",
        }
    }

    /// Whether it is every trained weight.
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// Which of the `width` columns of the weight called `name` belong to it, an empty range if none do; `None` where the
    /// core does not tell its gates apart.
    pub fn columns(self, model: &ModelSpec, name: &str, width: usize) -> Option<Range<usize>> {
        let whole = |wanted: bool| Some(if wanted { 0..width } else { 0..0 });
        let of_embedding = || model.embedding.settings().gate_columns(name);
        let gates = || match highway_gates(model, name, width).or_else(of_embedding) {
            Some(columns) => Some(columns),
            None => model.core.gate_columns(name),
        };
        match self {
            Self::All => whole(true),
            Self::Gates => gates(),
            Self::GateBiases if name.ends_with("bias") => gates(),
            Self::GateBiases => gates().map(|_| 0..0),
            Self::OutputBias => whole(name == "output.bias"),
        }
    }
}

/// The columns of gates in a weight of a highway layer over characters; `None` for other weights.
fn highway_gates(model: &ModelSpec, name: &str, width: usize) -> Option<Range<usize>> {
    let highways = model.embedding.highways()?;
    let rest = ["embedding.highway.", "output.highway."].iter().find_map(|part| name.strip_prefix(part))?;
    let (_, of_layer) = rest.split_once('.')?;
    let of_candidate = highways.size.min(width); // H comes first
    Some(if of_layer.starts_with("linear.") { 0..0 } else { of_candidate..width })
}

#[cfg(test)]
mod tests {
    use super::UpdateGroup;
    use crate::config::{ModelConfig, ModelSpec};
    use crate::model::specs;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn spec(embedding: Value, core: Value) -> ModelSpec {
        serde_json::from_value(json!({"embedding": embedding, "core": core})).unwrap()
    }

    /// For each weight of the core and of highway layers: its columns that are gates', with those of size `unit` as one.
    fn gates(spec: ModelSpec, unit: usize) -> BTreeMap<String, Vec<usize>> {
        let mut config = ModelConfig::new(spec, 9);
        config.set_spelling(crate::model::spelling::Spelling::of(["ab", "c"].into_iter(), 9).unwrap().size);
        let tensors = specs(&config).unwrap().into_iter().filter(|(_, tensor)| tensor.trained());
        let columns = |(name, tensor): (String, crate::model::TensorSpec)| {
            let width = *tensor.shape.last().unwrap();
            let columns = UpdateGroup::Gates.columns(&config.spec, &name, width).unwrap();
            assert!(columns.end <= width, "{name}: {columns:?} of {width}");
            assert!(
                columns.start.is_multiple_of(unit) && columns.end.is_multiple_of(unit),
                "{name}: {columns:?}"
            );
            (name, (columns.start / unit..columns.end / unit).collect())
        };
        tensors.map(columns).filter(|(_, gates): &(String, Vec<usize>)| !gates.is_empty()).collect()
    }

    #[track_caller]
    fn check(core: Value, wanted: &[(&str, &[usize])]) {
        let found = gates(spec(json!({"kind": "word"}), core), 4);
        let wanted: BTreeMap<String, Vec<usize>> =
            wanted.iter().map(|(name, gates)| (format!("core.{name}"), gates.to_vec())).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_gates_of_each_cell_are_the_columns_that_its_file_lists() {
        let rhn = |gates: &str| json!({"kind": "rhn", "hidden_size": 4, "recurrence_depth": 2, "shared_gates": gates});
        let all = [("0.bias", &[1][..]), ("0.input.weight", &[1]), ("0.recurrent.weight", &[1])];
        check(rhn("none"), &all);
        let one = [("0.input.weight", &[1][..]), ("0.shared.bias", &[0]), ("0.shared.weight", &[0])];
        check(rhn("transform"), &one);
        let both =
            [("0.input.weight", &[1, 2][..]), ("0.shared.bias", &[0, 1]), ("0.shared.weight", &[0, 1])];
        check(rhn("both"), &both);
        let lstm = [
            ("0.input.bias", &[0, 1, 2][..]),
            ("0.input.weight", &[0, 1, 2]),
            ("0.recurrent.bias", &[0, 1, 2]),
            ("0.recurrent.weight", &[0, 1, 2]),
        ];
        check(json!({"kind": "lstm", "hidden_size": 4, "mogrifier": {"rounds": 2}}), &lstm);
        let gru = lstm.map(|(name, _)| (name, &[0, 1][..]));
        check(json!({"kind": "gru", "hidden_size": 4}), &gru);
        let kurata = [("0.highway.bias", &[1][..]), ("0.highway.weight", &[1])];
        check(
            json!({"kind": "hlstm", "variant": "kurata", "hidden_size": 4}),
            &[&lstm[..], &kurata].concat(),
        );
    }

    #[test]
    fn the_gates_of_a_highway_lstm_are_those_in_time_and_in_depth() {
        let layer = |gates: &'static [usize]| {
            [
                ("0.bias", gates),
                ("0.input.weight", gates),
                ("0.peephole", &[0]),
                ("0.recurrent.weight", gates),
            ]
        };
        let carried = [("0.depth.bias", &[0][..]), ("0.depth.peephole", &[0]), ("0.depth.weight", &[0])];
        check(json!({"kind": "hlstm", "hidden_size": 4}), &layer(&[0, 1, 2]));
        let depth_gated = json!({"kind": "hlstm", "variant": "depth-gated", "hidden_size": 4});
        check(depth_gated, &[&layer(&[0, 1])[..], &carried].concat()); // f is 1 − i
    }

    #[test]
    fn highway_layers_over_characters_have_gates_behind_their_candidates() {
        let core = json!({"kind": "lstm", "hidden_size": 5});
        for (variant, wanted) in
            [("coupled", vec![1]), ("full", vec![1, 2]), ("t-only", vec![1]), ("plain", vec![])]
        {
            let characters = json!({"kind": "char-cnn", "char_size": 3, "filter_widths": [1], "filter_counts": [5],
                "highway_layers": 1, "highway": variant});
            let found = gates(spec(characters, core.clone()), 5);
            for name in ["embedding.highway.0.weight", "embedding.highway.0.bias"] {
                assert_eq!(found.get(name).cloned().unwrap_or_default(), wanted, "{variant} {name}");
            }
        }
    }

    #[test]
    fn lstms_over_characters_have_gates_before_their_candidates() {
        let characters = json!({"kind": "char-lstm", "char_size": 3, "char_hidden": 4, "word_size": 8,
            "highway_layers": 1});
        let found = gates(spec(characters, json!({"kind": "lstm", "hidden_size": 4})), 4);
        for direction in ["forward", "backward"] {
            for part in ["input.weight", "recurrent.weight", "bias"] {
                assert_eq!(found[&format!("embedding.{direction}.{part}")], [0, 1, 2], "{direction} {part}");
            }
        }
        assert_eq!(found["embedding.highway.0.weight"], [2, 3]); // T, of 8 columns behind the 8 of H
        assert!(!found.contains_key("embedding.projection.weight"));
    }

    #[test]
    fn biases_of_gates_are_gates_and_the_output_s_is_none() {
        let spec = spec(json!({"kind": "word"}), json!({"kind": "gru", "hidden_size": 4}));
        let columns = |group: UpdateGroup, name| group.columns(&spec, name, 12).unwrap();
        assert_eq!(columns(UpdateGroup::GateBiases, "core.0.input.bias"), 0..8);
        assert!(columns(UpdateGroup::GateBiases, "core.0.input.weight").is_empty());
        assert!(columns(UpdateGroup::GateBiases, "output.bias").is_empty());
        assert_eq!(columns(UpdateGroup::OutputBias, "output.bias"), 0..12);
        assert!(columns(UpdateGroup::OutputBias, "core.0.input.bias").is_empty());
        assert_eq!(columns(UpdateGroup::All, "embedding.weight"), 0..12);
    }
}
