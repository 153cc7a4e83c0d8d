//! What is exported: a language model whose every part is known here, with its weights in single precision.

use crate::checkpoint::Checkpoint;
use crate::config::{EmbeddingConfig, ModelConfig};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::model::specs;
use crate::storage::{CONFIG, RESULT};
use candle_core::{DType, Device, Tensor};
use rhn_kernels::precision::Precision;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What the exported programs know of each kind of core: every other key changes the equations in a way that they do not
/// have, so it is refused.
const CORES: [(&str, &[&str]); 4] = [
    ("rhn", &["layers", "hidden_size", "recurrence_depth", "transform_bias", "shared_gates", "mogrifier"]),
    ("lstm", &["layers", "hidden_size", "mogrifier"]),
    ("gru", &["layers", "hidden_size"]),
    (
        "hlstm",
        &[
            "layers",
            "hidden_size",
            "variant",
            "depth_bias",
            "peephole",
            "coupled",
            "first_layer_carry",
            "projection",
            STABILISER,
        ],
    ),
];

/// A key of `[model.core]` and a tensor of a layer, which are folded into other weights.
const STABILISER: &str = "stabiliser";

/// A model to be exported.
pub(super) struct Subject {
    pub(super) config: ModelConfig,
    /// `[model.core]` as `config.json` has it.
    pub(super) core: Value,
    pub(super) tokenizer: Tokenizer,
    /// `(vocabulary, size)`: one vector a token. Those of characters are computed once.
    pub(super) table: Tensor,
    /// The weights of each layer by what their names say after `core.<k>.`.
    pub(super) layers: Vec<BTreeMap<String, Tensor>>,
    /// `(hidden, vocabulary)`, of a mixture `(size, vocabulary)`; `None` if the table is used.
    pub(super) output: Option<Tensor>,
    /// What a mixture of softmaxes has beside that.
    pub(super) mixture: Option<Mixture>,
    /// `(vocabulary)`.
    pub(super) output_bias: Tensor,
    /// What is said of the model in a README.
    pub(super) about: About,
}

/// How a mixture of softmaxes makes its vectors of a state, and weighs them.
pub(super) struct Mixture {
    /// How many softmaxes.
    pub(super) components: usize,
    /// `(hidden, components · size)`.
    pub(super) vectors: Tensor,
    /// `(components · size)`.
    pub(super) vectors_bias: Tensor,
    /// `(hidden, components)`.
    pub(super) prior: Tensor,
}

/// What is known of where a model comes from.
pub(super) struct About {
    /// The model in a few words.
    pub(super) model: String,
    /// The corpus and the numbers of its test split, if they are known.
    pub(super) corpus: Option<String>,
    pub(super) result: Option<Value>,
    /// Whether vectors were computed from characters.
    pub(super) from_characters: bool,
    /// The SHA-256 of the weights that were exported.
    pub(super) weights: String,
}

impl About {
    /// Corpus, result and weights, a line each.
    pub(super) fn facts(&self) -> String {
        let mut lines = Vec::new();
        lines.extend(self.corpus.as_ref().map(|name| format!("- trained on `{}`", file_name(name))));
        let number = |key: &str| self.result.as_ref().and_then(|result| result[key].as_f64());
        lines.extend(number("perplexity").map(|perplexity| {
            format!(
                "- perplexity of the test split, one text with the state carried: {perplexity:.4} a token"
            )
        }));
        lines.extend(number("bits_per_char").map(|bits| format!("- bits per character: {bits:.4}")));
        lines.push(format!("- SHA-256 of the checkpoint's weights: `{}`", self.weights));
        format!("\n{}\n", lines.join("\n"))
    }
}

/// The last part of a path: where a corpus lay is nobody's concern.
fn file_name(corpus: &str) -> String {
    let name = Path::new(corpus).file_name();
    name.map_or(corpus.into(), |name| name.to_string_lossy().into_owned())
}

impl Subject {
    /// What `checkpoint` holds.
    ///
    /// # Errors
    /// If it is damaged, reads images, or has a part of a kind or with a setting that is not exported; names it.
    pub(super) fn new(checkpoint: &Checkpoint) -> Result<Self> {
        let config = checkpoint.config.clone();
        if config.spec.classifier.is_some() || config.spec.latent.is_some() {
            checkpoint.check_language()?;
        }
        let json = serde_json::to_value(&config).expect("a configuration is JSON");
        check_known(&json).map_err(|what| Error::checkpoint(checkpoint.directory.join(CONFIG), what))?;
        let tokenizer = checkpoint.read_tokenizer()?;
        let mut weights = checkpoint.weights(&specs(&config)?, DType::F32, &Device::Cpu)?;
        let from_characters = !matches!(config.spec.embedding, EmbeddingConfig::Word(_));
        let table = if from_characters {
            checkpoint.model(Precision::F32, &Device::Cpu)?.table().clone()
        } else {
            take(&mut weights, "embedding.weight")?
        };
        let output = match (config.spec.output.tied, config.spec.output.by_word) {
            (true, _) => None,
            (false, false) => Some(take(&mut weights, "output.weight")?),
            (false, true) => Some(take(&mut weights, "output.table")?.t()?.contiguous()?),
        };
        let output_bias = take(&mut weights, "output.bias")?;
        let mixture = config.spec.output.component_count();
        let mixture = mixture.map(|components| Mixture::take(components, &mut weights)).transpose()?;
        let layers = (0..config.spec.core.layers()).map(|k| layer(&weights, k)).collect::<Result<_>>()?;
        let about = About {
            model: config.to_string(),
            corpus: checkpoint.read_recipe().ok().flatten().map(|recipe| recipe.corpus.name),
            result: result(&checkpoint.directory),
            from_characters,
            weights: checkpoint.weights_sha256(),
        };
        let mut core = json["core"].clone();
        core.as_object_mut().map(|core| core.remove(STABILISER)); // it is in the weights
        Ok(Self { config, core, tokenizer, table, layers, output, mixture, output_bias, about })
    }
}

impl Mixture {
    fn take(components: usize, weights: &mut BTreeMap<String, Tensor>) -> Result<Self> {
        Ok(Self {
            components,
            vectors: take(weights, "output.components.weight")?,
            vectors_bias: take(weights, "output.components.bias")?,
            prior: take(weights, "output.mixture.weight")?,
        })
    }
}

fn take(weights: &mut BTreeMap<String, Tensor>, name: &str) -> Result<Tensor> {
    weights.remove(name).ok_or_else(|| Error::tensor(name, "is missing"))
}

/// The weights of layer `k`; a highway LSTM's stabiliser is multiplied into the matrices that read the input.
fn layer(weights: &BTreeMap<String, Tensor>, k: usize) -> Result<BTreeMap<String, Tensor>> {
    let prefix = format!("core.{k}.");
    let of_layer =
        |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(&prefix)?.into(), tensor.clone()));
    let mut layer: BTreeMap<String, Tensor> = weights.iter().filter_map(of_layer).collect();
    if let Some(log_scale) = layer.remove(STABILISER) {
        let scale = log_scale.exp()?;
        for name in ["input.weight", "depth.weight", "depth.carry.weight"] {
            if let Some(matrix) = layer.get_mut(name) {
                *matrix = matrix.broadcast_mul(&scale)?;
            }
        }
    }
    Ok(layer)
}

/// Final numbers of the run, if they are there and readable.
fn result(directory: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(directory.join(RESULT)).ok()?).ok()
}

/// Refuses a `config.json` with something that is not exported; names it.
fn check_known(config: &Value) -> std::result::Result<(), String> {
    let kind = |part: &str| config[part]["kind"].as_str().unwrap_or_default().to_string();
    only(
        "",
        config,
        &[
            "model_type",
            "vocab_size",
            "alphabet_size",
            "word_length",
            "sorted_by_frequency",
            "embedding",
            "core",
            "output",
        ],
    )?;
    only("output.", &config["output"], &["kind", "tied", "by_word", "components"])?;
    if !["", "softmax", "mixture"].contains(&kind("output").as_str()) {
        return Err(refused("output.kind", &kind("output")));
    }
    if !["word", "char-cnn", "char-lstm"].contains(&kind("embedding").as_str()) {
        return Err(refused("embedding.kind", &kind("embedding")));
    }
    match CORES.iter().find(|(known, _)| *known == kind("core")) {
        None => Err(refused("core.kind", &kind("core"))),
        Some((_, keys)) => only("core.", &config["core"], &[&["kind"], *keys].concat()),
    }
}

fn only(path: &str, table: &Value, known: &[&str]) -> std::result::Result<(), String> {
    let mut found = table.as_object().into_iter().flatten();
    match found.find(|(key, value)| !known.contains(&key.as_str()) && !value.is_null()) {
        None => Ok(()),
        Some((key, value)) => Err(refused(&format!("{path}{key}"), &value.to_string())),
    }
}

fn refused(key: &str, value: &str) -> String {
    format!(
        "has {key} = {value}, which is not exported: the cores {}, the embeddings word, char-cnn and char-lstm and a \
         softmax over the vocabulary or a mixture of them are",
        CORES.map(|(kind, _)| kind).join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::check_known;
    use serde_json::{Value, json};

    fn config() -> Value {
        json!({"model_type": "rhn", "vocab_size": 5, "embedding": {"kind": "word"},
            "core": {"kind": "lstm", "layers": 1, "hidden_size": 3}, "output": {"tied": true}})
    }

    #[test]
    fn what_is_known_passes_and_any_other_part_is_refused_by_name() {
        assert_eq!(check_known(&config()), Ok(()));
        for (part, key, value, named) in [
            ("output", "kind", json!("tree"), "output.kind = tree"),
            ("output", "experts", json!(3), "output.experts = 3"),
            ("core", "zoneout", json!({"rate": 0.5}), "core.zoneout = {\"rate\":0.5}"),
            ("core", "kind", json!("feed-forward"), "core.kind = feed-forward"),
            ("core", "recurrence_depth", json!(2), "core.recurrence_depth = 2"), // of an RHN alone
            ("embedding", "kind", json!("pixels"), "embedding.kind = pixels"),
        ] {
            let mut config = config();
            config[part][key] = value;
            let what = check_known(&config).unwrap_err();
            assert!(what.contains(named) && what.contains("not exported"), "{what}");
        }
    }
}
